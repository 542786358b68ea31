"""Chooses the threshold of each class for a precision, a recall, or the best F1.

Conventions: targets are (clip, class): 0, 1, or NaN where unknown, which is ignored. A threshold lies halfway
between the lowest score that reaches it and the next one below.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.errors import DataError

Floats = NDArray[np.float64]
Metric = Literal["precision", "recall", "f1"]


class ThresholdTarget(NamedTuple):
    """Target of thresholds; as text ``precision=0.9``, ``recall=0.8`` or ``f1``.

    Attributes:
        metric: "precision", "recall" or "f1".
        minimum: Lowest value of the metric, in (0, 1]; F1 is maximised instead.
    """

    metric: Metric
    minimum: float = 1.0

    @classmethod
    def parse(cls, text: str) -> ThresholdTarget:
        """Reads a target from text.

        Raises:
            DataError: If the text is not a target.
        """
        name, _, number = text.partition("=")
        try:
            minimum = float(number) if number else 1.0
        except ValueError:
            minimum = 0.0
        for metric in get_args(Metric):
            if name == metric and bool(number) == (metric != "f1") and 0 < minimum <= 1:
                return cls(metric, minimum)
        raise DataError(
            f"the target of thresholds must be like precision=0.9, recall=0.8 or f1, got {text!r}"
        )

    def __str__(self) -> str:
        return self.metric if self.metric == "f1" else f"{self.metric}={self.minimum:g}"


class Thresholds(NamedTuple):
    """Thresholds of all classes.

    Attributes:
        values: In [0, 1], shape (class,).
        missed: Whether a class does not reach the target at any threshold, shape (class,); its threshold is
            then the best one.
    """

    values: Floats
    missed: NDArray[np.bool_]


def choose_thresholds(
    target: ThresholdTarget, targets: ArrayLike, scores: ArrayLike, min_threshold: float = 0.0
) -> Thresholds:
    """Chooses the threshold of each class.

    For a precision, the lowest threshold with at least that precision, which has the highest recall; for a
    recall, the highest threshold with at least that recall; for F1, the (highest) threshold with the best F1.

    Args:
        target: Metric and minimum.
        targets: (clip, class); each class has a positive clip.
        scores: In [0, 1], (clip, class).
        min_threshold: Lower limit of the thresholds.
    """
    truth, values = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    known = ~np.isnan(truth)
    found = [_threshold(target, truth[known[:, c], c], values[known[:, c], c]) for c in range(truth.shape[1])]
    limits = np.array([max(min_threshold, value) for value, _ in found])
    return Thresholds(limits, np.array([missed for _, missed in found]))


def _threshold(target: ThresholdTarget, truth: Floats, scores: Floats) -> tuple[float, bool]:
    """The threshold of one class, and whether it misses the target."""
    levels, place = np.unique(-scores, return_inverse=True)
    levels = -levels  # each score once, the highest first
    hits = np.cumsum(np.bincount(place, truth, len(levels)))
    reached_by = np.cumsum(np.bincount(place, minlength=len(levels)))
    if target.metric == "recall":
        reached = hits >= target.minimum * truth.sum() - 1e-9
        best = int(reached.argmax())
    elif target.metric == "precision":
        precision = hits / reached_by
        reached = precision >= target.minimum - 1e-9
        # If no threshold is good enough: the best one, and of equally good ones the one with the best recall.
        good = np.flatnonzero(reached if reached.any() else precision == precision.max())
        best = int(good[-1])
    else:
        reached = np.ones(len(levels), bool)
        best = int((hits / (reached_by + truth.sum())).argmax())
    below = levels[best + 1] if best + 1 < len(levels) else 0.0
    return float((levels[best] + below) / 2), not reached.any()
