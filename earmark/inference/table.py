"""A result as plain text to read: tags with bars, and when each detected one was there.

Conventions: lines are at most ``width`` characters long, apart from a long path. Block characters are
optional, since not every terminal has them. Times are those of windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earmark.events.bars import LONGEST_LABEL, STRIPS, bar, duration, shortened, span, strips
from earmark.model_file.ontology import audioset_ontology

if TYPE_CHECKING:
    from earmark.inference.result import Result, Tag


def table(result: Result, width: int = 80, blocks: bool = True, windows: bool = False) -> str:
    """Formats a result for people.

    Tags that reach the model's thresholds come first, the others follow as guesses.

    Args:
        result: With the tags that :meth:`Result.filter` left.
        width: Characters in a line, at least 40.
        blocks: Whether to use block characters; else ASCII.
        windows: Whether to add a line for each window, with its highest scores.
    """
    meaning = ", probabilities" if result.calibrated else ""
    head = f"{result.path or 'samples'}  ({duration(result.duration_s)}, {result.model}{meaning})"
    rows = _Rows(result, width, blocks)
    found = {tag.label for tag in result.detected}
    detected = [tag for tag in result.tags if tag.label in found]
    guesses = [tag for tag in result.tags if tag.label not in found]
    lines = [head, *(map(rows.line, detected))]
    if not result.tags:
        lines.append("  Nothing scores that high.")
    elif not detected and result.thresholds is not None:
        lines.append("  Nothing for certain. The best guesses:")
    elif detected and guesses:
        lines.append("  Less certain:")
    lines += map(rows.line, guesses)
    if len(result.windows) > 1 and detected:
        lines += ["", *_timeline(result, detected, width, blocks)]
    if windows:
        lines += ["", *_windows(result, width)]
    return "\n".join(lines) + "\n"


class _Rows:
    """Lines of tags, whose columns fit all tags of a result and the width."""

    def __init__(self, result: Result, width: int, blocks: bool) -> None:
        self._blocks = blocks
        shown = {tag.label for tag in result.tags}
        self._parents = {label: _parent(label, shown, result.labels) for label in shown}  # "" or "(Animal)"
        self._label_width = 0
        used = len(self._start("", 0.0))
        self._label_width = min(LONGEST_LABEL, width - used, max(map(len, shown), default=0))
        free = width - used - self._label_width
        self._clock = result.duration_s >= 60
        times = [self._span(tag) for tag in result.tags] if len(result.windows) > 1 else []
        self._time_width = max(map(len, times), default=0)
        if self._time_width + 2 > free:
            self._time_width = 0
        self._parent_width = free - (self._time_width and self._time_width + 2) - 2

    def line(self, tag: Tag) -> str:
        parts = [self._start(tag.label, tag.score)]
        if self._time_width:
            parts.append(f"{self._span(tag):>{self._time_width}}")
        parent = self._parents[tag.label]
        if len(parent) <= self._parent_width:
            parts.append(parent)
        return "  ".join(parts).rstrip()

    def _start(self, label: str, score: float) -> str:
        label = shortened(label, self._label_width, self._blocks)
        return f"  {label:<{self._label_width}}  {score:.2f}  {bar(score, self._blocks)}"

    def _span(self, tag: Tag) -> str:
        return span(tag.start_s, tag.end_s, self._clock)


def _timeline(result: Result, tags: Sequence[Tag], width: int, blocks: bool) -> Iterator[str]:
    """A scale of time, and a strip for each tag, filled where windows reach the label's threshold."""
    columns = [result.labels.index(tag.label) for tag in tags]
    scores = np.stack([window.scores[columns] for window in result.windows])
    reached = scores >= np.array(result.thresholds)[columns]  # (window, tag)
    kept = _specific([tag.label for tag in tags], reached)[:STRIPS]
    kept.sort(key=lambda index: int(reached[:, index].argmax()))  # in the order of their first windows
    spans = [(one.start_s, one.end_s) for one in result.windows]
    rows = [
        (tags[index].label, [one for one, there in zip(spans, reached[:, index], strict=True) if there])
        for index in kept
    ]
    return strips(rows, result.duration_s, width, blocks)


def _windows(result: Result, width: int) -> Iterator[str]:
    """A line for each window: its span, and as many of its tags as fit."""
    with_clock = result.duration_s >= 60
    times = [span(one.start_s, one.end_s, with_clock) for one in result.windows]
    time_width = max(map(len, times))
    for window, time in zip(result.windows, times, strict=True):
        line = f"  {time:>{time_width}} "
        for tag in replace(result, windows=(window,)).tags:
            item = f" {tag.label} {tag.score:.2f}"
            if len(line) + len(item) > width:
                break
            line += item + ","
        yield line.rstrip(" ,")


def _specific(labels: Sequence[str], reached: NDArray[np.bool_]) -> list[int]:
    """Positions of labels, without those that come only with one below them in AudioSet's ontology."""
    ontology = audioset_ontology()
    below = [set(ontology.descendants(label)) if label in ontology.ids else set() for label in labels]
    return [
        index
        for index in range(len(labels))
        if not any(
            label in below[index] and (reached[:, index] <= reached[:, other]).all()
            for other, label in enumerate(labels)
        )
    ]


def _parent(label: str, shown: set[str], labels: Sequence[str]) -> str:
    """The label above one in AudioSet's ontology, in brackets, if the model has it and it is not shown."""
    above = audioset_ontology().parents.get(label, ())
    return next((f"({name})" for name in above if name in labels and name not in shown), "")
