"""Accuracy of ``earmark fit`` on few clips a class, for several base models.

    python -m benchmarks.few_clips ../shared/data/esc18 mn05_open mn04_as.onnx yamnet_int8.tflite

A dataset is a folder with ``meta.csv`` (filename, fold, category, src_file) and ``audio/``. The classifier is
fitted to 1, 4, 8 and 16 clips a class, each of another source, drawn from all folds but the last, and judged
on all clips of the last fold; ten draws. Features of a base are computed once, as ``earmark fit`` computes
them, variations of few clips included; of a LiteRT model the mean scores of its windows are the features,
without variations.
Rows are written as Markdown: mean and standard deviation over the draws.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.audio import load_audio
from earmark.custom.augment import VARIATIONS
from earmark.custom.example import Example
from earmark.custom.features import Clip, extract, open_base
from earmark.custom.fit import FEW_CLIPS
from earmark.custom.graph_head import Layer, apply
from earmark.custom.head import head_fitter
from earmark.custom.probe import fit_probe
from earmark.custom.table import Table, clip_scores, make_table
from earmark.training.distill.litert_teacher import LiteRTTeacher

Floats = NDArray[np.float32]
Fitter = Callable[[Table, NDArray[np.bool_]], list[Layer]]
SHOTS, DRAWS = (1, 4, 8, 16), 10
TFLITE_RATE = 16_000


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("bases", nargs="+")
    parser.add_argument("--depth", nargs="+", default=["probe", "head"], choices=["probe", "head"])
    options = parser.parse_args()
    examples, folds = read_clips(options.dataset)
    fitters: dict[str, Fitter] = {"probe": fit_probe, "head": head_fitter(0)}
    print("| base | depth | " + " | ".join(f"{shots} clips" for shots in SHOTS) + " |")
    print("|---|---|" + "---|" * len(SHOTS))
    for base in options.bases:
        plain, varied = features_of(base, examples)
        for depth in options.depth:
            cells = [score(examples, folds, plain, varied, shots, fitters[depth]) for shots in SHOTS]
            print(f"| {Path(base).stem} | {depth} | " + " | ".join(cells) + " |", flush=True)


def read_clips(folder: Path) -> tuple[list[Example], NDArray[np.int64]]:
    """The clips of a dataset, and their folds."""
    with (folder / "meta.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    examples = [
        Example(folder / "audio" / row["filename"], (row["category"],), row["src_file"]) for row in rows
    ]
    return examples, np.array([int(row["fold"]) for row in rows])


def features_of(base: str, examples: Sequence[Example]) -> tuple[list[Floats], list[list[Floats]]]:
    """Features of each clip, and of each of its variations."""
    if base.endswith(".tflite"):
        return _scores(base, examples), [[] for _ in examples]
    opened = open_base(None if base == "default" else base)
    found: list[list[Floats]] = []
    for variant in range(VARIATIONS + 1):
        clips = list(extract(opened, examples, variant=variant))
        found.append([_clip(clip).features for clip in clips])
        print(f"{base}: variation {variant} of {VARIATIONS}", file=sys.stderr)
    return found[0], [list(own) for own in zip(*found[1:], strict=True)]


def score(
    examples: Sequence[Example],
    folds: NDArray[np.int64],
    plain: Sequence[Floats],
    varied: Sequence[Sequence[Floats]],
    shots: int,
    fitter: Fitter,
) -> str:
    """Mean and deviation of the accuracy over the draws."""
    labels = tuple(sorted({label for example in examples for label in example.labels}))
    judged = np.flatnonzero(folds == folds.max())
    truth = np.array([labels.index(examples[number].labels[0]) for number in judged])
    accuracies = []
    for draw in range(DRAWS):
        drawn = _drawn(examples, folds, labels, shots, np.random.default_rng(draw))
        chosen = [replace(examples[number]) for number in drawn]
        variations = [
            (place, own) for place, number in enumerate(drawn) for own in varied[number] if shots <= FEW_CLIPS
        ]
        table = make_table(chosen, [plain[number] for number in drawn], variations, labels, "single_label")
        layers = fitter(table, np.ones(len(drawn), bool))
        scores = clip_scores([apply(layers, plain[number]) for number in judged], "single_label")
        accuracies.append(float((scores.argmax(1) == truth).mean()))
    return f"{np.mean(accuracies):.3f} ± {np.std(accuracies):.3f}"


def _drawn(
    examples: Sequence[Example],
    folds: NDArray[np.int64],
    labels: Sequence[str],
    shots: int,
    rng: np.random.Generator,
) -> list[int]:
    """Clips of each class, of different sources."""
    drawn: list[int] = []
    for label in labels:
        sources: set[str] = set()
        own = [
            number
            for number, one in enumerate(examples)
            if one.labels == (label,) and folds[number] < folds.max()
        ]
        for number in rng.permutation(own):
            if examples[number].group not in sources and len(sources) < shots:
                sources.add(examples[number].group)
                drawn.append(int(number))
    return drawn


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
