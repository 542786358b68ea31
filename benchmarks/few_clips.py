"""Accuracy of ``earmark fit`` on few clips a class, for several base models.

    python -m benchmarks.few_clips ../shared/data/esc18 mn05_open mn04_as.onnx yamnet_int8.tflite

A dataset is a folder with ``meta.csv`` (filename, fold, category, src_file) and ``audio/``. The classifier is
fitted to 1, 4, 8 and 16 clips a class, each of another source, drawn from all folds but the last, and judged
on all clips of the last fold; ten draws. Features of a base are computed once, as ``earmark fit`` computes
them, variations of few clips included; of a LiteRT model the mean scores of its windows are the features,
without variations.
Rows are written as Markdown: mean and standard deviation over the draws. Each accuracy goes to standard
error as soon as it is known.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.audio import load_audio
from earmark.custom.augment import VARIATIONS
from earmark.custom.classifier import Fitter
from earmark.custom.example import Example
from earmark.custom.features import Base, Clip, extract, open_base
from earmark.custom.fit import FEW_CLIPS
from earmark.custom.head import head_fitter
from earmark.custom.probe import fit_probe
from earmark.custom.table import Table, clip_scores, make_table
from earmark.training.distill.litert_teacher import LiteRTTeacher

Floats = NDArray[np.float32]
TFLITE_RATE = 16_000


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("bases", nargs="+")
    parser.add_argument("--depth", nargs="+", default=["probe", "head"], choices=["probe", "head", "full"])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    examples, folds = read_clips(options.dataset)
    print("| base | depth | " + " | ".join(f"{shots} clips" for shots in options.shots) + " |")
    print("|---|---|" + "---|" * len(options.shots))
    for base in options.bases:
        plain, varied = features_of(base, examples)
        for depth in options.depth:
            fitter = fitter_of(depth, base, examples)
            tables = [table_of(examples, plain, varied if n <= FEW_CLIPS else []) for n in options.shots]
            found = [
                [
                    accuracy(table, folds, shots, fitter, draw)
                    for table, shots in zip(tables, options.shots, strict=True)
                ]
                for draw in range(options.draws)
            ]
            means, deviations = np.mean(found, 0), np.std(found, 0)
            cells = [f"{mean:.3f} ± {own:.3f}" for mean, own in zip(means, deviations, strict=True)]
            print(f"| {Path(base).stem} | {depth} | " + " | ".join(cells) + " |", flush=True)


def fitter_of(depth: str, base: str, examples: Sequence[Example]) -> Fitter:
    """What fits a classifier of a depth."""
    if depth == "full":
        from earmark.custom.full import full_fitter

        return full_fitter(opened(base), examples, 0)
    return fit_probe if depth == "probe" else head_fitter(0)


def table_of(examples: Sequence[Example], plain: list[Floats], varied: list[list[Floats]]) -> Table:
    """The table of all clips."""
    labels = tuple(sorted({label for example in examples for label in example.labels}))
    variations = [(number, own) for number, several in enumerate(varied) for own in several]
    return make_table(examples, plain, variations, labels, "single_label")


def read_clips(folder: Path) -> tuple[list[Example], NDArray[np.int64]]:
    """The clips of a dataset, and their folds."""
    with (folder / "meta.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    examples = [
        Example(folder / "audio" / row["filename"], (row["category"],), row["src_file"]) for row in rows
    ]
    return examples, np.array([int(row["fold"]) for row in rows])


def opened(base: str) -> Base:
    """A base model by name or path."""
    return open_base(None if base == "default" else base)


def features_of(base: str, examples: Sequence[Example]) -> tuple[list[Floats], list[list[Floats]]]:
    """Features of each clip, and of each of its variations."""
    if base.endswith(".tflite"):
        return _scores(base, examples), [[] for _ in examples]
    model = opened(base)
    found: list[list[Floats]] = []
    for variant in range(VARIATIONS + 1):
        clips = list(extract(model, examples, variant=variant))
        found.append([_clip(clip).features for clip in clips])
        print(f"{base}: variation {variant} of {VARIATIONS}", file=sys.stderr)
    return found[0], [list(own) for own in zip(*found[1:], strict=True)]


def accuracy(table: Table, folds: NDArray[np.int64], shots: int, fitter: Fitter, draw: int) -> float:
    """Accuracy on the last fold of a classifier that was fitted to some clips of the others."""
    judged = np.flatnonzero(folds == folds.max())
    classifier = fitter(table, drawn(table, folds < folds.max(), shots, np.random.default_rng(draw)))
    windows = table.windows()
    scores = clip_scores([classifier.logits(windows[number]) for number in judged], table.task)
    found = float((scores.argmax(1) == table.targets[judged].argmax(1)).mean())
    print(f"draw {draw}, {shots} clips a class: {found:.4f}", file=sys.stderr, flush=True)
    return found


def drawn(
    table: Table, allowed: NDArray[np.bool_], shots: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which clips are drawn: of each class so many, of different sources."""
    chosen = np.zeros(len(table.targets), bool)
    for own in table.targets.T:
        numbers = rng.permutation(np.flatnonzero(allowed & (own > 0)))
        _, first = np.unique(table.groups[numbers], return_index=True)
        chosen[numbers[np.sort(first)[:shots]]] = True
    return chosen


def _clip(clip: object) -> Clip:
    if isinstance(clip, Clip):
        return clip
    raise SystemExit(f"{clip}")


def _scores(base: str, examples: Sequence[Example]) -> list[Floats]:
    """Scores of a LiteRT model that takes windows of 16 kHz, as a row of each clip."""
    teacher = LiteRTTeacher(base, TFLITE_RATE)
    waveforms = (load_audio(example.path, TFLITE_RATE)[0] for example in examples)
    return [teacher(torch.from_numpy(waveform)[None], TFLITE_RATE).numpy() for waveform in waveforms]


if __name__ == "__main__":
    main()
