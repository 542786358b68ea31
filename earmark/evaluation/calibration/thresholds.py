"""From which score on a class counts as heard: a threshold of each class for a precision, recall or F1.

Conventions: targets are (clip, class), 0, 1, or NaN where nobody knows, which counts nowhere. A threshold
lies halfway between the lowest score that reaches it and the next one below.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.errors import DataError

Floats = NDArray[np.float64]
Measure = Literal["precision", "recall", "f1"]


class Target(NamedTuple):
    """What thresholds are to bring about; as text ``precision=0.9``, ``recall=0.8`` or ``f1``.

    Attributes:
        measure: Which one.
        least: At least this much of it, in (0, 1]; of F1 there is to be as much as can be.
    """

    measure: Measure
    least: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads a target.

        Raises:
            DataError: If it is none; the message says what is one.
        """
        name, _, number = text.partition("=")
        try:
            least = float(number) if number else 1.0
        except ValueError:
            least = 0.0
        for measure in get_args(Measure):
            if name == measure and bool(number) == (measure != "f1") and 0 < least <= 1:
                return cls(measure, least)
        raise DataError(f"{text!r} is no target for thresholds: give precision=0.9, recall=0.8 or f1")

    def __str__(self) -> str:
        return self.measure if self.measure == "f1" else f"{self.measure}={self.least:g}"


class Thresholds(NamedTuple):
    """Thresholds of all classes.

    Attributes:
        values: In [0, 1], shape (class,).
        missed: Whether a class cannot reach the target at any threshold, shape (class,); its threshold is
            then the one that comes nearest.
    """

    values: Floats
    missed: NDArray[np.bool_]


def thresholds_for(target: Target, targets: ArrayLike, scores: ArrayLike, lowest: float = 0.0) -> Thresholds:
    """Chooses the threshold of each class by itself.

    For a precision, the lowest at which at least that share of the clips that reach it belong to the class,
    so that most of the class is found; for a recall, the highest that at least that share of the class's
    clips reach; for F1, the one where it is highest, and of several the highest threshold.

    Args:
        target: What is wanted.
        targets: (clip, class); each class has a positive clip.
        scores: In [0, 1], (clip, class).
        lowest: No threshold is below this.
    """
    truth, values = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    known = ~np.isnan(truth)
    found = [_threshold(target, truth[known[:, c], c], values[known[:, c], c]) for c in range(truth.shape[1])]
    limits = np.array([max(lowest, value) for value, _ in found])
    return Thresholds(limits, np.array([missed for _, missed in found]))


def _threshold(target: Target, truth: Floats, scores: Floats) -> tuple[float, bool]:
    """The threshold of one class, and whether it misses the target."""
    levels, place = np.unique(-scores, return_inverse=True)
    levels = -levels  # each score once, the highest first
    hits = np.cumsum(np.bincount(place, truth, len(levels)))
    chosen = np.cumsum(np.bincount(place, minlength=len(levels)))
    if target.measure == "recall":
        reached = hits >= target.least * truth.sum() - 1e-9
        best = int(reached.argmax())
    elif target.measure == "precision":
        precision = hits / chosen
        reached = precision >= target.least - 1e-9
        # Where none is good enough: the best, and of equally good ones the one that finds most.
        good = np.flatnonzero(reached if reached.any() else precision == precision.max())
        best = int(good[-1])
    else:
        reached = np.ones(len(levels), bool)
        best = int((hits / (chosen + truth.sum())).argmax())
    below = levels[best + 1] if best + 1 < len(levels) else 0.0
    return float((levels[best] + below) / 2), not reached.any()
