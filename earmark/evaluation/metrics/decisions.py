"""Metrics of decisions: the class of the highest score, and scores that reach a threshold.

Conventions: as for :mod:`earmark.evaluation.metrics`.
"""

from __future__ import annotations

from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.evaluation.metrics.tables import Floats, class_mean, mean, tables


def accuracy(targets: ArrayLike, scores: ArrayLike) -> float:
    """Micro accuracy: the share of clips whose highest-scoring class is one of theirs, in [0, 1].

    A clip whose target of that class is unknown is ignored.
    """
    truth, values = tables(targets, scores)
    predicted = truth[np.arange(len(truth)), values.argmax(1)]
    return mean(predicted[~np.isnan(predicted)] > 0)


def class_accuracy(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """Recall of the highest-scoring class, for each class; its mean is the macro accuracy.

    Returns:
        float64, shape (class,); NaN for classes without a clip.
    """
    truth, values = tables(targets, scores)
    predicted = values.argmax(1)[:, None] == np.arange(truth.shape[1])
    return class_mean(predicted.astype(np.float64), truth > 0)


def confusion(targets: ArrayLike, scores: ArrayLike) -> NDArray[np.int64]:
    """Confusion matrix: clips of each class (row) by their highest-scoring class (column); single label.

    Clips without a class are ignored.
    """
    truth, values = tables(targets, scores)
    truth = np.nan_to_num(truth)
    table = np.zeros((truth.shape[1],) * 2, np.int64)
    classed = truth.any(1)
    np.add.at(table, (truth[classed].argmax(1), values[classed].argmax(1)), 1)
    return table


def recall(targets: ArrayLike, scores: ArrayLike, threshold: ArrayLike) -> Floats:
    """Recall of each class: the share of its clips whose score reaches the threshold; NaN without clips.

    Args:
        targets: (clip, class).
        scores: (clip, class).
        threshold: One for all, for each class (class,), or for each score (clip, class).
    """
    truth, values = tables(targets, scores)
    return class_mean((values >= np.asarray(threshold)).astype(np.float64), truth > 0)


def precision(targets: ArrayLike, scores: ArrayLike, threshold: ArrayLike) -> Floats:
    """Precision of each class: the share of clips reaching its threshold that belong to it; NaN if none do.

    Arguments as for :func:`recall`.
    """
    truth, values = tables(targets, scores)
    return class_mean(np.nan_to_num(truth), (values >= np.asarray(threshold)) & ~np.isnan(truth))


def f1(targets: ArrayLike, scores: ArrayLike, threshold: ArrayLike) -> Floats:
    """F1 of each class: the harmonic mean of precision and recall; NaN without clips.

    Arguments as for :func:`recall`.
    """
    truth, values = tables(targets, scores)
    reached, positive = (values >= np.asarray(threshold)) & ~np.isnan(truth), truth > 0
    sizes = reached.sum(0) + positive.sum(0)
    return np.where(positive.any(0), 2 * (reached & positive).sum(0) / np.maximum(sizes, 1), nan)


def negative_threshold(scores: ArrayLike, share: float) -> float:
    """The lowest threshold that at most a given share of negative clips reaches.

    Args:
        scores: Of clips that belong to no class, (clip, class).
        share: Of clips that may reach it at any class, in [0, 1).

    Returns:
        A number just above the highest score that must not reach it.
    """
    highest = np.sort(np.asarray(scores, np.float64).max(1))[::-1]
    allowed = int(np.floor(share * len(highest)))
    return float(np.nextafter(highest[allowed], 2.0)) if allowed < len(highest) else 0.0
