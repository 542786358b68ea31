"""Metrics of how well scores rank clips and labels: average precision, AUROC, d', lwlrap, MAP@k.

Conventions: as for :mod:`earmark.evaluation.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from earmark.evaluation.metrics.tables import Floats, class_mean, mean, tables


def average_precision(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """Area under the precision-recall curve of each class, in steps; equal scores share one step.

    Source: the definition of scikit-learn's ``average_precision_score``; golden metrics_toy.npz.

    Returns:
        float64, shape (class,); NaN for classes without a positive clip.
    """
    return _by_class(_average_precision, targets, scores)


def micro_average_precision(targets: ArrayLike, scores: ArrayLike) -> float:
    """Average precision over all pairs of clip and class; NaN without a positive one."""
    truth, values = tables(targets, scores)
    return float(average_precision(truth.reshape(-1, 1), values.reshape(-1, 1))[0])


def _average_precision(truth: Floats, scores: Floats) -> float:
    positives = truth.sum()
    if positives == 0:
        return float("nan")
    hits, reached = _counts_by_threshold(truth, scores)
    true_positives = np.diff(hits, prepend=0)
    return float(np.sum(true_positives / positives * hits / reached))


def auroc(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """Area under the receiver operating characteristic of each class; golden metrics_toy.npz.

    Returns:
        float64, shape (class,); NaN for classes without a positive or without a negative clip.
    """
    return _by_class(_auroc, targets, scores)


def _auroc(truth: Floats, scores: Floats) -> float:
    positives = truth.sum()
    negatives = len(truth) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    hits, reached = _counts_by_threshold(truth, scores)
    true_rate = np.concatenate([[0], hits / positives])
    false_rate = np.concatenate([[0], (reached - hits) / negatives])
    return float(np.sum(np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2))


def _counts_by_threshold(truth: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Positives among, and number of, the clips at or above each distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_score = np.append(np.nonzero(np.diff(ranked))[0], len(ranked) - 1)
    return np.cumsum(truth[order])[last_of_score], last_of_score + 1.0


def _by_class(metric: Callable[[Floats, Floats], float], targets: ArrayLike, scores: ArrayLike) -> Floats:
    """A metric of each class's clips of which it is known whether they belong to it: (class,)."""
    truth, values = tables(targets, scores)
    known = ~np.isnan(truth)
    columns = range(truth.shape[1])
    return np.array([metric(truth[known[:, c], c], values[known[:, c], c]) for c in columns])


def d_prime(auroc: float) -> float:
    """D' = sqrt(2) * Phi^-1(AUROC), by convention of the mean AUROC over classes.

    Source: golden audax/transforms_metrics.npz.

    Args:
        auroc: In [0, 1].

    Returns:
        0 at chance, infinite where the AUROC is 0 or 1.
    """
    if not 0 < auroc < 1:
        return {0.0: -inf, 1.0: inf}.get(auroc, nan)
    return sqrt(2) * NormalDist().inv_cdf(auroc)


class LabelRanking(NamedTuple):
    """Label-weighted label-ranking average precision, overall and for each class.

    Attributes:
        lwlrap: Mean over all labels of all clips; NaN where there are none.
        by_class: Mean over the clips of each class, shape (class,); NaN for classes without a clip.
    """

    lwlrap: float
    by_class: Floats


def label_ranking(targets: ArrayLike, scores: ArrayLike) -> LabelRanking:
    """Label-ranking precision: for each label of each clip, the precision of the labels that rank no lower.

    Source: DCASE 2019 task 2; golden sound_clf/sound_clf.npz. Of equal scores, the class with the higher
    index ranks first. Unknown classes of a clip are not ranked.
    """
    truth, values = tables(targets, scores)
    order = np.argsort(np.where(np.isnan(truth), -inf, values), 1, kind="stable")[:, ::-1]
    ranked = np.take_along_axis(np.nan_to_num(truth), order, 1)
    precision = np.empty_like(ranked)
    np.put_along_axis(precision, order, ranked.cumsum(1) / np.arange(1, ranked.shape[1] + 1), 1)
    labelled = truth > 0
    if not labelled.any():
        return LabelRanking(nan, np.full(truth.shape[1], nan))
    return LabelRanking(float(precision[labelled].mean()), class_mean(precision, labelled))


def lwlrap(targets: ArrayLike, scores: ArrayLike) -> float:
    """Label-weighted label-ranking average precision; see :func:`label_ranking`."""
    return label_ranking(targets, scores).lwlrap


def map_at_k(targets: ArrayLike, scores: ArrayLike, k: int = 3) -> float:
    """Mean over clips of 1 / rank of the true class, 0 where it ranks behind k; single label.

    Source: Kaggle's MAP@3 of FSDKaggle2018; golden sound_clf/sound_clf.npz. Of equal scores, the class with
    the lower index ranks first, as for accuracy, which is MAP@1.
    """
    truth, values = tables(targets, scores)
    known = (truth > 0).any(1)
    order = np.argsort(-values[known], 1, kind="stable")[:, :k]
    hits = np.take_along_axis(truth[known], order, 1) > 0
    return mean((hits / np.arange(1, hits.shape[1] + 1)).sum(1))
