"""An event, and the scores over time that events are detected in.

Conventions: a step is one row of scores; step k covers ``start_s + k * step_s`` up to the next step, the last
one up to ``end_s``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError

Floats = NDArray[np.float32]

ROUNDING_S = 1e-6
"""Times closer than this are the same: they are sums of floating-point numbers."""


@dataclass(frozen=True)
class Event:
    """A sound with a start and an end.

    Args:
        label: What sounds.
        start_s: Start in seconds from the start of the recording.
        end_s: End in seconds, above ``start_s`` and at most the duration of the recording.
        peak: Highest score within the event, in [0, 1].
        mean: Mean score over the event, in [0, 1].
        resolution_s: Length of sound that one score is computed from, in seconds: start and end are known no
            more precisely than this.
    """

    label: str
    start_s: float
    end_s: float
    peak: float
    mean: float
    resolution_s: float

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.end_s - self.start_s

    def to_dict(self) -> dict[str, Any]:
        """Returns the event as a dict that JSON can represent, times rounded to milliseconds."""
        return {
            "label": self.label,
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "peak": round(self.peak, 4),
            "mean": round(self.mean, 4),
            "resolution_s": round(self.resolution_s, 3),
        }


class Recording(Protocol):
    """What is known of a recording; a :class:`earmark.Result` is one."""

    @property
    def path(self) -> str | None:
        """Path, if it was a file."""

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def calibrated(self) -> bool:
        """Whether scores are probabilities."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Faults that did not prevent tagging, one line each."""


@dataclass(frozen=True)
class RecordingEvents:
    """The events of one recording, for writers.

    Args:
        recording: What is known of it.
        events: In order of start.
        recorded_at: When the recording starts, with a time zone; None if that is not known.
    """

    recording: Recording
    events: Sequence[Event]
    recorded_at: datetime | None = None

    def time_at(self, position_s: float) -> str | None:
        """The time of a position in ISO 8601 with milliseconds and the offset from UTC, if it is known."""
        if self.recorded_at is None:
            return None
        zone = self.recorded_at.tzinfo  # hours are counted in UTC: clocks may change during the recording
        time = (self.recorded_at.astimezone(UTC) + timedelta(seconds=position_s)).astimezone(zone)
        return time.isoformat(timespec="milliseconds")

    def to_dict(self) -> dict[str, Any]:
        """Returns the events as a dict that JSON can represent."""
        known = self.recording
        return {
            "path": known.path,
            "duration_s": round(known.duration_s, 4),
            "sample_rate": known.sample_rate,
            "model": known.model,
            "calibrated": known.calibrated,
            "recorded_at": self.time_at(0),
            "events": [event.to_dict() for event in self.events],
            "warnings": list(known.warnings),
        }


@dataclass(frozen=True, eq=False)
class ScoreSeries:
    """Scores over time.

    Args:
        labels: One per class.
        scores: In [0, 1], shape (step, class), at least one step.
        step_s: Seconds from one step to the next.
        resolution_s: Length of sound that one score is computed from, in seconds.
        start_s: Start of the first step in seconds.
        end_s: End of the last step in seconds, which may be shorter than the others; None: as long as these.

    Raises:
        ModelError: If the shape does not fit the labels, or step or end is not possible.
    """

    labels: tuple[str, ...]
    scores: Floats
    step_s: float
    resolution_s: float
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or not len(self.scores) or self.scores.shape[1] != len(self.labels):
            raise ModelError(
                f"scores must have the shape (step, {len(self.labels)}) with at least one step, got "
                f"{self.scores.shape}"
            )
        if not self.step_s > 0:
            raise ModelError(f"step_s must be above 0, got {self.step_s:g}")
        if self.end_s is not None and not self.end_s > self.start_s + (len(self.scores) - 1) * self.step_s:
            raise ModelError(f"end_s must be behind the start of the last step, got {self.end_s:g}")

    @cached_property
    def edges_s(self) -> NDArray[np.float64]:
        """Limits of the steps in seconds, shape (step + 1,)."""
        edges = self.start_s + np.arange(len(self.scores) + 1, dtype=np.float64) * self.step_s
        if self.end_s is not None:
            edges[-1] = self.end_s
        return np.asarray(edges, np.float64)
