"""Scores of windows, one after the other -> notices of events, as soon as they are certain.

The events are those of :func:`earmark.events.detect.detect` on
:func:`earmark.events.windows.average_windows`, by hysteresis and without smoothing, which needs later scores.
They differ in one place: a last window that does not lie on the grid of hops counts only for the steps that
are not settled yet.

Conventions: times are seconds from the start of the stream. A step is settled when no later window on the
grid overlaps it, which is one window after its start. Memory does not grow with the length of a stream or an
event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.events.event import ROUNDING_S, Event
from earmark.events.options import EventOptions, Limits

Floats = NDArray[np.float32]
WINDOW_S, HOP_S = 1.0, 0.5
"""Default window and hop of live sound."""


def listen_lengths(
    window_s: float | None, hop_s: float | None, trained_s: float, fixed: bool
) -> tuple[float, float]:
    """Returns the lengths of window and hop for live sound.

    What a step of the score is settled by lies within two windows, so a sound that starts or ends changes the
    score of a step that is settled within twice the window.

    Args:
        window_s: Window that was asked for; None: 1 s, or that of the model if it takes no other.
        hop_s: Hop that was asked for; None: half of the window, but at most 0.5 s.
        trained_s: Window that the model was trained for.
        fixed: Whether the model takes only windows of this length.
    """
    if window_s is None:
        window_s = trained_s if fixed else min(WINDOW_S, trained_s)
    return window_s, min(HOP_S, window_s / 2) if hop_s is None else hop_s


class Notice(NamedTuple):
    """The start or the end of an event.

    Attributes:
        kind: "start" or "end".
        event: The event; at its start with the end, peak and mean so far.
        at_s: Position in the stream up to which sound was needed to tell, in seconds.
    """

    kind: Literal["start", "end"]
    event: Event
    at_s: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the notice as a dict that JSON can represent; a start has no end."""
        facts = self.event.to_dict()
        if self.kind == "start":
            facts = {key: facts[key] for key in ("label", "start_s", "peak", "resolution_s")}
        return {"type": self.kind, **facts, "at_s": round(self.at_s, 3)}


class Step(NamedTuple):
    """A step of the grid of hops: its span in seconds and the scores of the windows over it, (class,)."""

    start_s: float
    end_s: float
    scores: Floats


class StepAverager:
    """Averages the scores of windows over steps of one hop, each weighted by its share of the step.

    Args:
        hop_s: Seconds from one window to the next; only the last one may be closer.
    """

    def __init__(self, hop_s: float) -> None:
        self._hop_s = hop_s
        self._settled = 0
        self._open: deque[tuple[Floats, np.float32]] = deque()  # weighted sum and weight of each step
        self._end_s = 0.0

    def push(self, start_s: float, end_s: float, scores: Floats) -> Step | None:
        """Adds a window; returns the step that it settles, none for a last window off the grid.

        Args:
            start_s: Start of the window in seconds, from that of the first window.
            end_s: Its end.
            scores: float32, shape (class,).
        """
        hop_s = self._hop_s
        first = max(self._settled, int((start_s + ROUNDING_S) / hop_s))
        last = int(np.ceil((end_s - ROUNDING_S) / hop_s))
        while self._settled + len(self._open) < last:
            self._open.append((np.zeros_like(scores), np.float32(0)))
        for step in range(first, last):
            total, weight = self._open[step - self._settled]
            covered_s = min((step + 1) * hop_s, end_s) - max(step * hop_s, start_s)
            share = np.float32(covered_s / hop_s)
            self._open[step - self._settled] = total + share * scores, weight + share
        self._end_s = end_s
        on_grid = abs(start_s - self._settled * hop_s) < ROUNDING_S
        return self._settle() if on_grid and self._open else None

    def finish(self) -> Iterator[Step]:
        """Yields the steps that are left; the last one ends with the last window."""
        while self._open:
            yield self._settle()

    def _settle(self) -> Step:
        total, weight = self._open.popleft()
        start_s = self._settled * self._hop_s
        self._settled += 1
        end_s = self._settled * self._hop_s if self._open else min(start_s + self._hop_s, self._end_s)
        return Step(start_s, end_s, total / max(weight, np.finfo(np.float32).tiny))


@dataclass
class _Tally:
    """Highest score, sum and number of scores."""

    peak: float = 0.0
    total: float = 0.0
    count: int = 0

    def add(self, peak: float, total: float, count: int = 1) -> None:
        self.peak, self.total, self.count = max(self.peak, peak), self.total + total, self.count + count


@dataclass
class _Sound:
    """What is known of one label: an event that is on or may go on, and the scores that follow it.

    A run is a sequence of steps of at least the off threshold; it is part of an event once a step of it has
    reached the on threshold.
    """

    run_start_s: float = 0.0
    is_inside: bool = False
    has_reached: bool = False
    start_s: float = 0.0
    end_s: float | None = None
    is_announced: bool = False
    event: _Tally = field(default_factory=_Tally)
    rest: _Tally = field(default_factory=_Tally)


class OnlineDetector:
    """Detects events step by step.

    An event is announced when a score has reached the on threshold and the event the minimum duration, and
    ended when the scores have been below the off threshold for longer than the merge gap.

    Args:
        labels: One per class.
        options: With a threshold that is not "auto".
        resolution_s: Length of sound that one score is computed from, in seconds.

    Raises:
        ModelError: If the options ask for smoothing or change points, or as :meth:`EventOptions.limits`.
    """

    def __init__(self, labels: Sequence[str], options: EventOptions, resolution_s: float) -> None:
        self._limits: Limits = options.limits(labels)
        if options.method != "hysteresis" or self._limits.smooth_s.any():
            raise ModelError("events of live sound are detected by hysteresis without smooth_s")
        self.labels, self._resolution_s = tuple(labels), resolution_s
        self._sounds: dict[int, _Sound] = {}

    @property
    def active(self) -> tuple[str, ...]:
        """Labels of the events that were announced and have not ended."""
        return tuple(self.labels[index] for index, sound in self._sounds.items() if sound.is_announced)

    def push(self, step: Step, at_s: float) -> list[Notice]:
        """Adds a step.

        Args:
            step: Follows the one before it.
            at_s: Position in the stream up to which sound was needed for it, in seconds.

        Returns:
            What it settles, in order of the classes.
        """
        inside = step.scores >= self._limits.off.astype(np.float32)
        notices = []
        for index in sorted({*np.flatnonzero(inside).tolist(), *self._sounds}):
            sound = self._sounds.setdefault(index, _Sound())
            score = float(step.scores[index])
            if inside[index]:
                is_new = self._go_on(sound, index, step, score)
                notices += [self._notice("start", index, at_s)] if is_new else []
            else:
                notices += self._pause(sound, index, step, score, at_s)
        return notices

    def finish(self, at_s: float) -> list[Notice]:
        """Ends the events that are on."""
        notices = [self._notice("end", index, at_s) for index in sorted(self._sounds) if self._is_on(index)]
        self._sounds.clear()
        return notices

    def _is_on(self, index: int) -> bool:
        return self._sounds[index].is_announced

    def _go_on(self, sound: _Sound, index: int, step: Step, score: float) -> bool:
        """A step of at least the off threshold; returns whether the event is to be announced."""
        if not sound.is_inside:
            sound.is_inside, sound.has_reached, sound.run_start_s = True, False, step.start_s
        sound.rest.add(score, score)
        sound.has_reached |= step.scores[index] >= np.float32(self._limits.on[index])
        if not sound.has_reached:
            return False
        if sound.end_s is None:
            sound.start_s = sound.run_start_s
        sound.event.add(sound.rest.peak, sound.rest.total, sound.rest.count)
        sound.rest, sound.end_s = _Tally(), step.end_s
        is_long = sound.end_s - sound.start_s >= self._limits.min_duration_s[index] - ROUNDING_S
        is_new = is_long and not sound.is_announced
        sound.is_announced |= is_new
        return bool(is_new)

    def _pause(self, sound: _Sound, index: int, step: Step, score: float, at_s: float) -> list[Notice]:
        """A step below the off threshold: the event ends if the gap is too long to be merged."""
        sound.is_inside = False
        if sound.end_s is not None:
            sound.rest.add(score, score)
            if step.end_s - sound.end_s <= self._limits.merge_gap_s[index] + ROUNDING_S:
                return []
        notices = [self._notice("end", index, at_s)] if sound.is_announced else []
        del self._sounds[index]
        return notices

    def _notice(self, kind: Literal["start", "end"], index: int, at_s: float) -> Notice:
        sound = self._sounds[index]
        assert sound.end_s is not None
        event = Event(
            label=self.labels[index],
            start_s=sound.start_s,
            end_s=sound.end_s,
            peak=sound.event.peak,
            mean=sound.event.total / sound.event.count,
            resolution_s=self._resolution_s,
        )
        return Notice(kind, event, at_s)
