"""The field's metrics, in NumPy.

Conventions: targets and scores are (clip, class); targets are 0 or 1. A class without a positive clip has no
average precision and no AUROC (NaN) and is left out of macro means. Single functions, no state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def average_precision(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """Area under precision over recall, by steps, for each class; equal scores share one step.

    Returns:
        float64, shape (class,); NaN for classes without a positive clip.
    """
    truth, values = _tables(targets, scores)
    return np.array([_average_precision(truth[:, c], values[:, c]) for c in range(truth.shape[1])])


def _average_precision(truth: Floats, scores: Floats) -> float:
    positives = truth.sum()
    if positives == 0:
        return float("nan")
    hits, chosen = _counts_by_threshold(truth, scores)
    gained = np.diff(hits, prepend=0)
    return float(np.sum(gained / positives * hits / chosen))


def auroc(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """Area under the receiver operating characteristic, for each class.

    Returns:
        float64, shape (class,); NaN for classes that all or no clips belong to.
    """
    truth, values = _tables(targets, scores)
    return np.array([_auroc(truth[:, c], values[:, c]) for c in range(truth.shape[1])])


def _auroc(truth: Floats, scores: Floats) -> float:
    positives = truth.sum()
    negatives = len(truth) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    hits, chosen = _counts_by_threshold(truth, scores)
    true_rate = np.concatenate([[0], hits / positives])
    false_rate = np.concatenate([[0], (chosen - hits) / negatives])
    return float(np.sum(np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2))


def _counts_by_threshold(truth: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Positives among, and number of, the clips at or above each distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_score = np.append(np.nonzero(np.diff(ranked))[0], len(ranked) - 1)
    return np.cumsum(truth[order])[last_of_score], last_of_score + 1.0


def macro(values: ArrayLike) -> float:
    """Mean over the classes that have a value."""
    numbers = np.asarray(values, np.float64)
    return float(np.nanmean(numbers)) if np.isfinite(numbers).any() else float("nan")


def accuracy(targets: ArrayLike, scores: ArrayLike) -> float:
    """Micro accuracy: the share of clips whose highest score is at a class of theirs, in [0, 1]."""
    truth, values = _tables(targets, scores)
    return float(np.mean(truth[np.arange(len(truth)), values.argmax(1)] > 0))


def binary_log_loss(targets: ArrayLike, scores: ArrayLike) -> float:
    """Mean over clips and classes of minus the log of the score given to the truth; in [0, 1], nats."""
    truth, values = _tables(targets, scores)
    clipped = np.clip(values, 1e-7, 1 - 1e-7)
    return float(-np.mean(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)))


def log_loss(targets: ArrayLike, scores: ArrayLike) -> float:
    """Mean over clips of minus the log of the true class's share of all scores; one class a clip, nats."""
    truth, values = _tables(targets, scores)
    clipped = np.clip(values, 1e-7, None)
    shares = clipped / clipped.sum(1, keepdims=True)
    return float(-np.mean(np.log(shares[truth > 0])))


def confusion(targets: ArrayLike, scores: ArrayLike) -> NDArray[np.int64]:
    """How many clips of each class (row) score highest at each class (column); one class a clip.

    A clip without a class stands in no row.
    """
    truth, values = _tables(targets, scores)
    table = np.zeros((truth.shape[1],) * 2, np.int64)
    classed = truth.any(1)
    np.add.at(table, (truth[classed].argmax(1), values[classed].argmax(1)), 1)
    return table


def recall(targets: ArrayLike, scores: ArrayLike, threshold: float) -> Floats:
    """For each class, the share of its clips whose score reaches the threshold; NaN where it has none."""
    truth, values = _tables(targets, scores)
    found = ((values >= threshold) & (truth > 0)).sum(0)
    positives = truth.sum(0)
    return np.where(positives > 0, found / np.maximum(positives, 1), np.nan)


def quiet_threshold(scores: ArrayLike, share: float) -> float:
    """The lowest threshold that at most a share of clips without labels reach.

    Args:
        scores: Of clips in which nothing is to be heard, (clip, class).
        share: In [0, 1).

    Returns:
        A number just above the scores that may not pass.
    """
    highest = np.sort(np.asarray(scores, np.float64).max(1))[::-1]
    allowed = int(np.floor(share * len(highest)))
    return float(np.nextafter(highest[allowed], 2.0)) if allowed < len(highest) else 0.0


def _tables(targets: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    truth, values = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 2 or truth.shape != values.shape or not len(truth):
        raise ValueError(
            f"targets {truth.shape} and scores {values.shape} must be equal tables (clip, class)"
        )
    return truth, values
