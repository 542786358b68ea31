"""How events are detected: thresholds, durations, and the same for single labels.

Conventions: times are seconds, scores lie in [0, 1]. What a label has no value of its own for is that of all
labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError

Method = Literal["hysteresis", "change_points"]
OFF_BELOW_ON = 0.15
"""How far the off threshold lies below the on threshold, unless it is given."""
THRESHOLD = 0.5
"""On threshold of models that have no thresholds of their own."""


@dataclass(frozen=True)
class LabelOptions:
    """Settings of one label; None: as for all labels. See :class:`EventOptions`."""

    threshold: float | None = None
    off_threshold: float | None = None
    min_duration_s: float | None = None
    merge_gap_s: float | None = None
    smooth_s: float | None = None

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class EventOptions:
    """How events are detected.

    Args:
        threshold: A score of at least this starts an event: one for all labels, one per label, or "auto", the
            model's own thresholds (0.5 if it has none).
        off_threshold: A score below this ends it; None: 0.15 below ``threshold``, but at least half of it, so
            that events with low thresholds end too.
        min_duration_s: Shorter events are dropped, after merging.
        merge_gap_s: Events of a label that are at most this far apart become one.
        smooth_s: Length of the moving median that scores are smoothed with before detection; 0: none.
        method: "hysteresis", or "change_points": boxes between the changes of the score, kept if their mean
            score reaches the threshold.
        per_label: Settings of single labels.

    Raises:
        ModelError: If a value is out of range.
    """

    threshold: float | Sequence[float] | Literal["auto"] = "auto"
    off_threshold: float | None = None
    min_duration_s: float = 0.25
    merge_gap_s: float = 0.1
    smooth_s: float = 0.0
    method: Method = "hysteresis"
    per_label: Mapping[str, LabelOptions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ModelError(f"method must be one of {', '.join(get_args(Method))}, got {self.method!r}")
        if isinstance(self.threshold, str) and self.threshold != "auto":
            raise ModelError(f"threshold must be a number or 'auto', got {self.threshold!r}")
        _check(self)

    def resolved(self, thresholds: Sequence[float] | None) -> EventOptions:
        """Returns the options with a model's own thresholds in place of "auto".

        Args:
            thresholds: One per label; None if the model has none.
        """
        if self.threshold != "auto":
            return self
        return replace(self, threshold=THRESHOLD if thresholds is None else tuple(thresholds))

    def selected(self, indices: Sequence[int]) -> EventOptions:
        """Returns the options for some of the labels, by their positions."""
        if isinstance(self.threshold, (float, int, str)):
            return self
        return replace(self, threshold=tuple(self.threshold[index] for index in indices))

    def limits(self, labels: Sequence[str]) -> Limits:
        """Returns the settings of each label as arrays.

        Args:
            labels: One per class; settings of other labels have no effect.

        Raises:
            ModelError: If the threshold is still "auto", or the number of thresholds is not that of labels.
        """
        if isinstance(self.threshold, str):
            raise ModelError("threshold 'auto' needs the thresholds of a model: see EventOptions.resolved")
        on = np.array(self.threshold, np.float64)
        if on.ndim and on.shape != (len(labels),):
            raise ModelError(f"threshold must have one value per label ({len(labels)}), got {on.size}")
        on = self._by_label(labels, "threshold", np.broadcast_to(on, len(labels)))
        off = np.maximum(on - OFF_BELOW_ON, on / 2)
        if self.off_threshold is not None:
            off = np.full(len(labels), self.off_threshold)
        others = {
            name: self._by_label(labels, name, np.full(len(labels), getattr(self, name)))
            for name in ("min_duration_s", "merge_gap_s", "smooth_s")
        }
        return Limits(on, np.minimum(on, self._by_label(labels, "off_threshold", off)), **others)

    def _by_label(
        self, labels: Sequence[str], name: str, general: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        own = [getattr(self.per_label.get(label), name, None) for label in labels]
        return np.array(
            [each if one is None else one for one, each in zip(own, general.tolist(), strict=True)]
        )


class Limits(NamedTuple):
    """The settings of each label, shape (class,); the off threshold is at most the on threshold."""

    on: NDArray[np.float64]
    off: NDArray[np.float64]
    min_duration_s: NDArray[np.float64]
    merge_gap_s: NDArray[np.float64]
    smooth_s: NDArray[np.float64]


def _check(options: EventOptions | LabelOptions) -> None:
    for name in (one.name for one in fields(options)):
        value = getattr(options, name)
        if value is None or isinstance(value, (str, Mapping)):
            continue
        for number in value if isinstance(value, Sequence) else (value,):
            if not (math.isfinite(number) and number >= 0):
                raise ModelError(f"{name} must be at least 0, got {number:g}")
