"""Tables of targets and scores: validation, and means that leave out what has no value.

Conventions: tables are (clip, class); targets are 0, 1, or NaN where unknown.
"""

from __future__ import annotations

from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def tables(targets: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Targets and scores as float64 tables (clip, class).

    Raises:
        ValueError: If they are not tables of the same shape with at least one clip.
    """
    truth, values = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 2 or truth.shape != values.shape or not len(truth):
        raise ValueError(
            f"targets {truth.shape} and scores {values.shape} must have the same shape (clip, class)"
        )
    return truth, values


def macro(values: ArrayLike) -> float:
    """Mean over the classes that have a value; NaN where none has one."""
    numbers = np.asarray(values, np.float64)
    return float(np.nanmean(numbers)) if np.isfinite(numbers).any() else float("nan")


def mean(values: ArrayLike) -> float:
    """Mean of all values; NaN where there are none."""
    numbers = np.asarray(values, np.float64)
    return float(numbers.mean()) if numbers.size else nan


def class_mean(values: Floats, selected: NDArray[np.bool_]) -> Floats:
    """Mean of the selected values of each class, (class,); NaN where none are selected."""
    counts = selected.sum(0)
    return np.where(counts > 0, np.where(selected, values, 0).sum(0) / np.maximum(counts, 1), nan)
