"""A result as plain text to read: tags with bars, and when each detected one was there.

Conventions: lines are at most ``width`` characters long, apart from a long path. Block characters are
optional, since not every terminal has them. Times are those of windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earmark.model_file.ontology import audioset_ontology

if TYPE_CHECKING:
    from earmark.inference.result import Result, Tag

BAR = 16
"""Characters of a full bar."""
LONGEST_LABEL = 32
LONGEST_STRIP = 60
TIMELINE_ROWS = 6
"""Labels in the timeline: the most specific ones with the highest scores."""

_EIGHTHS = " ▏▎▍▌▋▊▉"


def table(result: Result, width: int = 80, blocks: bool = True) -> str:
    """Formats a result for people.

    Tags that reach the model's thresholds come first, the others follow as guesses.

    Args:
        result: With the tags that :meth:`Result.filter` left.
        width: Characters in a line, at least 40.
        blocks: Whether to use block characters; else ASCII.
    """
    meaning = ", probabilities" if result.calibrated else ""
    head = f"{result.path or 'samples'}  ({_duration(result.duration_s)}, {result.model}{meaning})"
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
        label = _shortened(label, self._label_width, self._blocks)
        return f"  {label:<{self._label_width}}  {score:.2f}  {_bar(score, self._blocks)}"

    def _span(self, tag: Tag) -> str:
        if self._clock:
            return f"{_clock(tag.start_s)} - {_clock(tag.end_s)}"
        return f"{tag.start_s:.1f} - {tag.end_s:.1f} s"


def _timeline(result: Result, tags: Sequence[Tag], width: int, blocks: bool) -> Iterator[str]:
    """A scale of time, and a strip for each tag, filled where windows reach the label's threshold."""
    columns = [result.labels.index(tag.label) for tag in tags]
    scores = np.stack([window.scores[columns] for window in result.windows])
    reached = scores >= np.array(result.thresholds)[columns]  # (window, tag)
    kept = _specific([tag.label for tag in tags], reached)[:TIMELINE_ROWS]
    kept.sort(key=lambda index: int(reached[:, index].argmax()))  # in the order of their first windows
    label_width = min(LONGEST_LABEL, width // 2, max(len(tags[index].label) for index in kept))
    cells = min(LONGEST_STRIP, width - label_width - 4)
    start, end = "0:00" if result.duration_s >= 60 else "0 s", _duration(result.duration_s)
    yield f"  {'':<{label_width}}  {start}{end:>{cells - len(start)}}"
    on, off = ("█", "·") if blocks else ("#", ".")
    for index in kept:
        strip = "".join(on if there else off for there in _filled(result, reached[:, index], cells))
        yield f"  {_shortened(tags[index].label, label_width, blocks):<{label_width}}  {strip}"


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


def _filled(result: Result, reached: NDArray[np.bool_], cells: int) -> NDArray[np.bool_]:
    """Which parts of the recording the windows of a mask overlap, (cell,).

    An overlap is at least half of the part, or of the window if that is shorter.
    """
    spans = [(one.start_s, one.end_s) for one in result.windows]
    starts, ends = np.array(spans)[reached].T
    edges = np.linspace(0, result.duration_s, cells + 1)
    overlap = np.minimum(ends[:, None], edges[1:]) - np.maximum(starts[:, None], edges[:-1])
    needed = np.minimum(ends - starts, edges[1] - edges[0])[:, None] / 2
    return np.asarray((overlap >= needed - 1e-9).any(0))


def _parent(label: str, shown: set[str], labels: Sequence[str]) -> str:
    """The label above one in AudioSet's ontology, in brackets, if the model has it and it is not shown."""
    above = audioset_ontology().parents.get(label, ())
    return next((f"({name})" for name in above if name in labels and name not in shown), "")


def _bar(score: float, blocks: bool) -> str:
    """A bar for a score in [0, 1], padded to its full width."""
    if not blocks:
        return f"{'#' * round(score * BAR):<{BAR}}"
    whole, eighths = divmod(round(score * BAR * 8), 8)
    return f"{('█' * whole + _EIGHTHS[eighths]):<{BAR}.{BAR}}"


def _shortened(text: str, width: int, blocks: bool) -> str:
    ellipsis = "…" if blocks else "..."
    return text if len(text) <= width else text[: width - len(ellipsis)] + ellipsis


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else _clock(seconds)


def _clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
