"""Metrics of detected events: segment-based and event-based F1, as sed_eval computes them.

Source: Mesaros, Heittola and Virtanen, Metrics for Polyphonic Sound Event Detection, Applied Sciences 6(6),
2016; golden events.json.

Conventions: events are anything with ``label``, ``start_s`` and ``end_s``, in one list per recording, true
and detected ones in the same order of recordings. Events of labels that are not asked for are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.errors import DataError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class TimedEvent(Protocol):
    """A label with a start and an end in seconds, such as :class:`earmark.events.event.Event`."""

    @property
    def label(self) -> str:
        """What sounds."""

    @property
    def start_s(self) -> float:
        """Start in seconds."""

    @property
    def end_s(self) -> float:
        """End in seconds."""


Recordings = Sequence[Sequence[TimedEvent]]
"""The events of each recording."""


class EventCounts(NamedTuple):
    """True positives, false positives and false negatives of each class, shape (class,)."""

    true_positives: Floats
    false_positives: Floats
    false_negatives: Floats

    @property
    def f1(self) -> Floats:
        """F1 of each class; NaN for classes without true events, as in the other metrics."""
        present = self.true_positives + self.false_negatives > 0
        return np.where(present, _f1(*self), nan)

    @property
    def micro_f1(self) -> float:
        """F1 of the counts summed over classes; NaN if there is neither a true nor a detected event."""
        return float(_f1(*np.sum(self, axis=1, keepdims=True))[0])


def segment_counts(
    truth: Recordings, detected: Recordings, labels: Sequence[str], segment_s: float = 1.0
) -> EventCounts:
    """Counts the segments of equal length in which classes are rightly, wrongly or not detected.

    Args:
        truth: True events.
        detected: Detected events.
        labels: One per class.
        segment_s: Length of a segment in seconds; an event is active in every segment that it touches.

    Raises:
        DataError: If the numbers of recordings differ.
    """
    _require_pairs(truth, detected)

    def compare(true: Floats, found: Floats) -> tuple[int, int, int]:
        count = int(np.ceil(max([0.0, *true[:, 1], *found[:, 1]]) / segment_s))
        is_true, is_found = _active(true, segment_s, count), _active(found, segment_s, count)
        hits = int((is_true & is_found).sum())
        return hits, int(is_found.sum()) - hits, int(is_true.sum()) - hits

    return _count(truth, detected, labels, compare)


def event_counts(
    truth: Recordings,
    detected: Recordings,
    labels: Sequence[str],
    collar_s: float = 0.2,
    length_share: float = 0.5,
) -> EventCounts:
    """Counts events that are detected at the right time, once each; as many as possible are matched.

    Args:
        truth: True events.
        detected: Detected events.
        labels: One per class.
        collar_s: How far the start may be off, in seconds.
        length_share: The end may be off by this share of the true event's length if that is more than the
            collar.

    Raises:
        DataError: If the numbers of recordings differ.
    """
    _require_pairs(truth, detected)

    def compare(true: Floats, found: Floats) -> tuple[int, int, int]:
        off = np.abs(true[:, None] - found)  # (true, found, start or end)
        end_collars = np.maximum(collar_s, length_share * (true[:, 1] - true[:, 0]))
        hits = _largest_matching((off[..., 0] <= collar_s) & (off[..., 1] <= end_collars[:, None]))
        return hits, len(found) - hits, len(true) - hits

    return _count(truth, detected, labels, compare)


def spans(events: Sequence[TimedEvent], label: str) -> Floats:
    """Returns starts and ends of the events of a label in seconds, shape (event, 2)."""
    found = [(event.start_s, event.end_s) for event in events if event.label == label]
    return np.array(found, np.float64).reshape(-1, 2)


def _count(
    truth: Recordings,
    detected: Recordings,
    labels: Sequence[str],
    compare: Callable[[Floats, Floats], tuple[int, int, int]],
) -> EventCounts:
    totals = np.zeros((3, len(labels)))
    for true, found in zip(truth, detected, strict=True):
        totals += np.transpose([compare(spans(true, label), spans(found, label)) for label in labels])
    return EventCounts(*totals)


def _active(events: Floats, segment_s: float, count: int) -> Bools:
    """Whether an event touches each segment, shape (segment,)."""
    active = np.zeros(count, np.bool_)
    for start_s, end_s in events:
        active[int(np.floor(start_s / segment_s)) : int(np.ceil(end_s / segment_s))] = True
    return active


def _largest_matching(fits: Bools) -> int:
    """Number of pairs in a largest matching of rows and columns, by augmenting paths."""
    row_of: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column in np.flatnonzero(fits[row]).tolist():
            if column not in tried:
                tried.add(column)
                if column not in row_of or place(row_of[column], tried):
                    row_of[column] = row
                    return True
        return False

    return sum(place(row, set()) for row in range(len(fits)))


def _f1(true_positives: Floats, false_positives: Floats, false_negatives: Floats) -> Floats:
    total = 2 * true_positives + false_positives + false_negatives
    return np.where(total > 0, 2 * true_positives / np.maximum(total, 1), nan)


def _require_pairs(truth: Recordings, detected: Recordings) -> None:
    if len(truth) != len(detected):
        raise DataError(
            f"truth has {len(truth)} recordings, detections have {len(detected)}: pass both of each recording"
        )
