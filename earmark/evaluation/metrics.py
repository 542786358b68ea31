"""The field's metrics, in NumPy.

Conventions: targets and scores are (clip, class); targets are 0, 1, or NaN where nobody knows, and what is
not known counts nowhere. A class without a positive clip has no average precision and no AUROC (NaN) and is
left out of macro means (over classes); micro: over clips, or over all pairs of clip and class. "One class a
clip": each clip that counts has exactly one. Single functions, no state.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_LEAST = 1e-7
"""Scores count as at least this in logarithms: a sure mistake costs much, not infinitely."""


def average_precision(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """Area under precision over recall, by steps, for each class; equal scores share one step.

    Returns:
        float64, shape (class,); NaN for classes without a positive clip.
    """
    return _by_class(_average_precision, targets, scores)


def micro_average_precision(targets: ArrayLike, scores: ArrayLike) -> float:
    """The same over all pairs of clip and class as if they were of one class; NaN without a positive one."""
    truth, values = _tables(targets, scores)
    return float(average_precision(truth.reshape(-1, 1), values.reshape(-1, 1))[0])


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
    return _by_class(_auroc, targets, scores)


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


def d_prime(auroc: float) -> float:
    """How far apart two normal distributions of unit width lie whose AUROC this is.

    Source: as the field has it, sqrt(2) times the normal quantile of the *mean* AUROC over classes; golden
    audax/transforms_metrics.npz.

    Args:
        auroc: In [0, 1].

    Returns:
        0 by chance, infinite where the AUROC is 0 or 1.
    """
    if not 0 < auroc < 1:
        return {0.0: -inf, 1.0: inf}.get(auroc, nan)
    return sqrt(2) * NormalDist().inv_cdf(auroc)


class LabelRanking(NamedTuple):
    """Label-weighted label-ranking average precision, as a whole and for each class.

    Attributes:
        lwlrap: Mean over all labels of all clips; NaN where there are none.
        by_class: Mean over the clips of each class, shape (class,); NaN for classes without a clip.
    """

    lwlrap: float
    by_class: Floats


def label_ranking(targets: ArrayLike, scores: ArrayLike) -> LabelRanking:
    """For each label of each clip, the share of right ones among the labels that rank no lower.

    Source: DCASE 2019 task 2; golden sound_clf/sound_clf.npz. Of equal scores, the class with the higher
    index ranks first. Classes that are not known of a clip rank nowhere.
    """
    truth, values = _tables(targets, scores)
    order = np.argsort(np.where(np.isnan(truth), -inf, values), 1, kind="stable")[:, ::-1]
    ranked = np.take_along_axis(np.nan_to_num(truth), order, 1)
    precision = np.empty_like(ranked)
    np.put_along_axis(precision, order, ranked.cumsum(1) / np.arange(1, ranked.shape[1] + 1), 1)
    labelled = truth > 0
    if not labelled.any():
        return LabelRanking(nan, np.full(truth.shape[1], nan))
    return LabelRanking(float(precision[labelled].mean()), _class_mean(precision, labelled))


def lwlrap(targets: ArrayLike, scores: ArrayLike) -> float:
    """Label-weighted label-ranking average precision; see :func:`label_ranking`."""
    return label_ranking(targets, scores).lwlrap


def map_at_k(targets: ArrayLike, scores: ArrayLike, k: int = 3) -> float:
    """Mean over clips of 1 / rank of the true class, 0 where it ranks behind k; one class a clip.

    Source: Kaggle's MAP@3 of FSDKaggle2018; golden sound_clf/sound_clf.npz. Of equal scores, the class with
    the lower index ranks first, as for accuracy, which is MAP@1.
    """
    truth, values = _tables(targets, scores)
    known = (truth > 0).any(1)
    order = np.argsort(-values[known], 1, kind="stable")[:, :k]
    hits = np.take_along_axis(truth[known], order, 1) > 0
    return _mean((hits / np.arange(1, hits.shape[1] + 1)).sum(1))


def macro(values: ArrayLike) -> float:
    """Mean over the classes that have a value."""
    numbers = np.asarray(values, np.float64)
    return float(np.nanmean(numbers)) if np.isfinite(numbers).any() else float("nan")


def accuracy(targets: ArrayLike, scores: ArrayLike) -> float:
    """Micro accuracy: the share of clips whose highest score is at a class of theirs, in [0, 1].

    A clip counts where it is known whether it belongs to the class of its highest score.
    """
    truth, values = _tables(targets, scores)
    named = truth[np.arange(len(truth)), values.argmax(1)]
    return _mean(named[~np.isnan(named)] > 0)


def class_accuracy(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """For each class, the share of its clips that score highest at it; its mean is the macro accuracy.

    Returns:
        float64, shape (class,); NaN for classes without a clip.
    """
    truth, values = _tables(targets, scores)
    named = values.argmax(1)[:, None] == np.arange(truth.shape[1])
    return _class_mean(named.astype(np.float64), truth > 0)


def binary_log_loss(targets: ArrayLike, scores: ArrayLike) -> float:
    """Mean over clips and classes of minus the log of the score given to the truth; in [0, 1], nats."""
    truth, values = _tables(targets, scores)
    clipped = np.clip(values, _LEAST, 1 - _LEAST)
    losses = -(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped))
    return _mean(losses[~np.isnan(truth)])


def log_loss(targets: ArrayLike, scores: ArrayLike) -> float:
    """Mean over clips of minus the log of the true class's share of all scores; one class a clip, nats."""
    truth, values = _tables(targets, scores)
    return _mean(-np.log(_shares(values)[truth > 0]))


def class_log_loss(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """The log loss over the clips of each class; its mean is the macro log loss.

    Source: DCASE 2021 task 1a; golden sp4asc/sp4asc_metrics.npz.

    Returns:
        float64, shape (class,), in nats; NaN for classes without a clip.
    """
    truth, values = _tables(targets, scores)
    return _class_mean(-np.log(_shares(values)), truth > 0)


def brier(targets: ArrayLike, scores: ArrayLike) -> float:
    """Mean over clips of the squared distances of all scores from the truth; one class a clip, in [0, 2].

    Source: Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.
    """
    truth, values = _tables(targets, scores)
    known = (truth > 0).any(1)
    return _mean(np.square(truth - values)[known].sum(1))


def binary_brier(targets: ArrayLike, scores: ArrayLike) -> float:
    """Mean over clips and classes of the squared distance of a score from the truth; in [0, 1]."""
    truth, values = _tables(targets, scores)
    return _mean(np.square(truth - values)[~np.isnan(truth)])


class Reliability(NamedTuple):
    """How right a model was where it was so sure, by bins of equal width over [0, 1].

    Attributes:
        confidence: Mean of the scores in each bin, shape (bin,); NaN where it is empty.
        accuracy: Share of them that were right; NaN where the bin is empty.
        clips: How many scores lie in each bin: one a clip, or one for each pair of clip and class.
    """

    confidence: Floats
    accuracy: Floats
    clips: NDArray[np.int64]


def reliability(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> Reliability:
    """Compares how sure a model was of the class it named with how often it was right; one class a clip.

    Source: Guo et al., arXiv:1706.04599. A clip's confidence is its highest score; bin i holds the
    confidences above i / bins up to (i + 1) / bins, the first also 0.

    Args:
        targets: (clip, class).
        scores: In [0, 1], (clip, class).
        bins: How many.
    """
    truth, values = _tables(targets, scores)
    named = truth[np.arange(len(truth)), values.argmax(1)]
    known = ~np.isnan(named)
    return _reliability(values.max(1)[known], named[known] > 0, bins)


def binary_reliability(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> Reliability:
    """Compares the scores of all pairs of clip and class with how often the class is heard; any labels.

    Args:
        targets: (clip, class).
        scores: In [0, 1], (clip, class).
        bins: How many, of equal width as for :func:`reliability`.
    """
    truth, values = _tables(targets, scores)
    known = ~np.isnan(truth)
    return _reliability(values[known], truth[known] > 0, bins)


def _reliability(confidence: Floats, right: NDArray[np.bool_], bins: int) -> Reliability:
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    clips = np.bincount(place, minlength=bins)
    means = [
        np.where(clips > 0, np.bincount(place, weights, bins) / np.maximum(clips, 1), nan)
        for weights in (confidence, right)
    ]
    return Reliability(means[0], means[1], clips)


def expected_calibration_error(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> float:
    """Mean over clips of the distance between confidence and accuracy of their bin; see :func:`reliability`.

    Returns:
        In [0, 1]; NaN where no clip counts.
    """
    return _calibration_error(reliability(targets, scores, bins))


def binary_expected_calibration_error(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> float:
    """The same over all pairs of clip and class; see :func:`binary_reliability`."""
    return _calibration_error(binary_reliability(targets, scores, bins))


def class_calibration_error(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> Floats:
    """The same over the clips of which it is known whether they belong to a class, for each class.

    Source: Kull et al., Beyond Temperature Scaling, arXiv:1910.12656; its mean is their classwise ECE.

    Returns:
        float64, shape (class,); NaN where of no clip it is known.
    """
    truth, values = _tables(targets, scores)
    columns = range(truth.shape[1])
    return np.array([binary_expected_calibration_error(truth[:, [c]], values[:, [c]], bins) for c in columns])


def _calibration_error(found: Reliability) -> float:
    if not found.clips.any():
        return nan
    distances = np.nan_to_num(np.abs(found.confidence - found.accuracy))
    return float(np.average(distances, weights=found.clips))


def confusion(targets: ArrayLike, scores: ArrayLike) -> NDArray[np.int64]:
    """How many clips of each class (row) score highest at each class (column); one class a clip.

    A clip without a class stands in no row.
    """
    truth, values = _tables(targets, scores)
    truth = np.nan_to_num(truth)
    table = np.zeros((truth.shape[1],) * 2, np.int64)
    classed = truth.any(1)
    np.add.at(table, (truth[classed].argmax(1), values[classed].argmax(1)), 1)
    return table


def recall(targets: ArrayLike, scores: ArrayLike, threshold: ArrayLike) -> Floats:
    """For each class, the share of its clips whose score reaches the threshold; NaN where it has none.

    Args:
        targets: (clip, class).
        scores: (clip, class).
        threshold: One for all, for each class (class,), or for each score (clip, class).
    """
    truth, values = _tables(targets, scores)
    return _class_mean((values >= np.asarray(threshold)).astype(np.float64), truth > 0)


def precision(targets: ArrayLike, scores: ArrayLike, threshold: ArrayLike) -> Floats:
    """For each class, the share of the clips that reach its threshold and belong to it; NaN where none do.

    Clips of which it is not known whether they belong to the class do not count. Arguments as for
    :func:`recall`.
    """
    truth, values = _tables(targets, scores)
    return _class_mean(np.nan_to_num(truth), (values >= np.asarray(threshold)) & ~np.isnan(truth))


def f1(targets: ArrayLike, scores: ArrayLike, threshold: ArrayLike) -> Floats:
    """For each class, the harmonic mean of precision and recall; 0 where nothing is found, NaN without clips.

    Arguments as for :func:`recall`.
    """
    truth, values = _tables(targets, scores)
    reached, positive = (values >= np.asarray(threshold)) & ~np.isnan(truth), truth > 0
    sizes = reached.sum(0) + positive.sum(0)
    return np.where(positive.any(0), 2 * (reached & positive).sum(0) / np.maximum(sizes, 1), nan)


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


def _by_class(metric: Callable[[Floats, Floats], float], targets: ArrayLike, scores: ArrayLike) -> Floats:
    """A metric of each class's clips of which it is known whether they belong to it: (class,)."""
    truth, values = _tables(targets, scores)
    known = ~np.isnan(truth)
    columns = range(truth.shape[1])
    return np.array([metric(truth[known[:, c], c], values[known[:, c], c]) for c in columns])


def _class_mean(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Mean of the chosen values of each class: (class,); NaN where there are none."""
    counts = chosen.sum(0)
    return np.where(counts > 0, np.where(chosen, values, 0).sum(0) / np.maximum(counts, 1), nan)


def _mean(values: ArrayLike) -> float:
    numbers = np.asarray(values, np.float64)
    return float(numbers.mean()) if numbers.size else nan


def _shares(values: Floats) -> Floats:
    clipped = np.clip(values, _LEAST, None)
    return np.asarray(clipped / clipped.sum(1, keepdims=True))


def _tables(targets: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    truth, values = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 2 or truth.shape != values.shape or not len(truth):
        raise ValueError(
            f"targets {truth.shape} and scores {values.shape} must be equal tables (clip, class)"
        )
    return truth, values
