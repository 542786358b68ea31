"""Measures how recognition degrades in short windows, and what mends it.

    python -m benchmarks.short_windows --esc18 DIR [--model MODEL]

Takes the stretch with the most energy of each clip of esc18's fold 4, and names its category zero-shot: the
one whose AudioSet labels score highest. The network gets the stretch as it is, with silence behind it,
repeated, or within its clip, with features pooled over the stretch only. Results: docs/research/events.md.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import earmark
from benchmarks.event_detection import CATEGORIES, NAMES
from benchmarks.scenes import FOLDS, RATE
from benchmarks.tables import markdown
from earmark.audio import load_audio, pad
from earmark.inference.local_scores import with_local_scores
from earmark.inference.result import Result
from earmark.inference.tagger import Tagger

Floats = NDArray[np.float32]
Clip = tuple[Floats, str]
"""A waveform and its category."""

LENGTHS_S = (0.5, 1.0, 2.0, 4.0)
CLIP_S = 5.0


def loudest(waveform: Floats, length: int) -> int:
    """The start of the stretch of a length with the most energy."""
    energy = np.cumsum(np.concatenate([[0.0], np.square(waveform, dtype=np.float64)]))
    return int(np.argmax(energy[length:] - energy[:-length]))


def category(result: Result, scores: Floats) -> str:
    """The category whose labels have the highest score."""
    best = [max(scores[result.labels.index(label)] for label in CATEGORIES[name]) for name in NAMES]
    return NAMES[int(np.argmax(best))]


def accuracy(clips: Sequence[Clip], length_s: float, name: Callable[[Floats, int, int], str]) -> str:
    """The share of clips whose category is found in their loudest stretch."""
    right = 0
    for waveform, truth in clips:
        length = min(round(length_s * RATE), len(waveform))
        right += name(waveform, loudest(waveform, length), length) == truth
    return f"{right / len(clips):.3f}"


def ways(tagger: Tagger, local: Tagger) -> dict[str, Callable[[Floats, int, int], str]]:
    """The ways to name a stretch of a waveform, from its start and length in samples."""

    def plain(waveform: Floats, window_s: float) -> str:
        result = tagger.tag(waveform, RATE, window_s=window_s)
        return category(result, result.scores)

    def filled(mode: str, window_s: float) -> Callable[[Floats, int, int], str]:
        def name(waveform: Floats, start: int, length: int) -> str:
            stretch = waveform[start : start + length]
            return plain(pad(stretch, round(window_s * RATE), mode), window_s)  # type: ignore[arg-type]

        return name

    def in_clip(waveform: Floats, start: int, length: int) -> str:
        result = local.tag(waveform, RATE, window_s=CLIP_S)
        middle = (start + length / 2) / RATE
        spans = np.array([(one.start_s, one.end_s) for one in result.windows])
        inside = np.abs(spans.mean(1) - middle) <= max(0.0, length / RATE - 1.25) / 2 + 0.16
        scores = np.stack([one.scores for one in result.windows])[inside]
        return category(result, scores.mean(0))

    return {
        "as it is": lambda waveform, start, length: plain(waveform[start : start + length], length / RATE),
        "silence up to 5 s": filled("zero", CLIP_S),
        "repeated up to 5 s": filled("repeat", CLIP_S),
        "repeated up to 10 s": filled("repeat", 2 * CLIP_S),
        "local scores within its clip": in_clip,
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--esc18", type=Path, required=True)
    parser.add_argument("--model", default="mn05_open")
    args = parser.parse_args()
    tagger = earmark.load(args.model, threads=1)
    with (args.esc18 / "meta.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] in FOLDS["judging"]]
    clips = [(load_audio(args.esc18 / "audio" / row["filename"], RATE)[0], row["category"]) for row in rows]
    table = [
        [what, *(accuracy(clips, length_s, name) for length_s in LENGTHS_S)]
        for what, name in ways(tagger, with_local_scores(tagger)).items()
    ]
    heading = ["loudest stretch of", *(f"{length_s:g} s" for length_s in LENGTHS_S)]
    print(markdown(heading, table, heading[1:]))


if __name__ == "__main__":
    main()
