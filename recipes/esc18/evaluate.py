"""Evaluates the default model out of distribution: on negatives from other generators, and on degraded clips.

    python recipes/esc18/evaluate.py --model FILE --negatives runs/esc18/test/negatives.csv
    python recipes/esc18/evaluate.py --run runs/mn04_esc18

The first counts how many clips of each kind reach the threshold. The second evaluates each fold's network on
the fold's clips, unchanged and degraded: quieter, clipped, band-limited, noisy or short.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import earmark
from earmark.audio import load_audio, pad, resample
from earmark.data.manifest import Clip, read_manifest, targets
from earmark.errors import EarmarkError
from earmark.evaluation import metrics
from earmark.evaluation.network_predictions import predict_windows
from earmark.models.checkpoint import load_checkpoint
from earmark.models.log_mel import TorchLogMel

Floats = NDArray[np.float32]
RATE = 32000


def noisy(waveform: Floats) -> Floats:
    """White noise 20 dB below the clip."""
    noise = np.random.default_rng(len(waveform)).standard_normal(len(waveform)).astype(np.float32)
    return waveform + noise * np.float32(np.sqrt(np.mean(waveform**2)) / 10)


def loudest_second(waveform: Floats) -> Floats:
    """The second with the most energy."""
    energy = np.cumsum(np.concatenate([[0.0], waveform.astype(np.float64) ** 2]))
    start = int(np.argmax(energy[RATE:] - energy[:-RATE]))
    return waveform[start : start + RATE]


DEGRADATIONS: dict[str, Callable[[Floats], Floats]] = {
    "unchanged": lambda waveform: waveform,
    "20 dB quieter": lambda waveform: waveform / 10,
    "6 dB louder, clipped": lambda waveform: np.clip(waveform * 2, -1, 1),
    "sampled at 16 kHz": lambda waveform: resample(resample(waveform, RATE, 16000), 16000, RATE),
    "sampled at 8 kHz": lambda waveform: resample(resample(waveform, RATE, 8000), 8000, RATE),
    "white noise at -20 dB": noisy,
    "loudest second only": loudest_second,
}


def evaluate_negatives(model: Path, manifest: Path) -> None:
    """Prints, for each kind of clip without labels, how many reach the threshold."""
    tagger = earmark.load(model)
    results_by_kind: dict[str, list[earmark.Result]] = {}
    for clip in read_manifest(manifest):
        results_by_kind.setdefault(clip.extra["kind"], []).append(tagger.tag(clip.path))
    print("| kind | clips | reach a threshold | highest score |\n|---|---|---|---|")
    for kind, results in sorted(results_by_kind.items()):
        reached = sum(bool(result.detected) for result in results)
        highest = max(result.tags[0].score for result in results)
        print(f"| {kind} | {len(results)} | {reached} | {highest:.3f} |")


def evaluate_folds(run: Path) -> None:
    """Prints pooled accuracy and macro mAP of the folds' networks for each degradation."""
    recipe = json.loads((run / "fold1" / "recipe.json").read_text())
    clips = [clip for path in recipe["data"]["sources"][0]["manifests"] for clip in read_manifest(path)]
    folds = [load_checkpoint(run / f"fold{fold}" / "last.safetensors") for fold in recipe["data"]["folds"]]
    print("| clip | accuracy | macro mAP |\n|---|---|---|")
    for name, degrade in DEGRADATIONS.items():
        truth, scores = [], []
        for fold, (network, info) in zip(recipe["data"]["folds"], folds, strict=True):
            fold_clips = [clip for clip in clips if clip.fold == fold]
            truth.append(targets(fold_clips, info.labels))
            windows = _windows(fold_clips, degrade, round(info.window_s * RATE))
            scores.append(predict_windows(network, TorchLogMel(info.front_end), windows, info.task))
        truth_table, score_table = np.concatenate(truth), np.concatenate(scores)
        precision = metrics.macro(metrics.average_precision(truth_table, score_table))
        print(f"| {name} | {metrics.accuracy(truth_table, score_table):.3f} | {precision:.3f} |", flush=True)


def _windows(
    clips: list[Clip], degrade: Callable[[Floats], Floats], length: int
) -> Iterator[tuple[int, Floats]]:
    for index, clip in enumerate(clips):
        yield index, pad(degrade(load_audio(clip.path, RATE)[0]), length, "repeat")[:length]


def main() -> int:
    """Reads the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model file; by default the one that ships")
    parser.add_argument("--negatives", type=Path, help="manifest of clips without labels")
    parser.add_argument("--run", type=Path, help="folder of a cross-validation")
    given = parser.parse_args()
    try:
        if given.negatives:
            evaluate_negatives(given.model, given.negatives)
        if given.run:
            evaluate_folds(given.run)
    except EarmarkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
