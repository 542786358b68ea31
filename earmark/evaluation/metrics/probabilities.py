"""Metrics of scores as probabilities: log loss, Brier score, reliability and calibration error.

Conventions: as for :mod:`earmark.evaluation.metrics`. ``binary_`` metrics take each pair of clip and class as
a decision of its own, for labels that may co-occur; the others are for single-label clips.
"""

from __future__ import annotations

from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.evaluation.metrics.tables import Floats, class_mean, mean, tables

_MIN_SCORE = 1e-7
"""Lower limit of scores in logarithms, so that a certain mistake has a finite loss."""


def binary_log_loss(targets: ArrayLike, scores: ArrayLike) -> float:
    """Binary cross-entropy of scores in [0, 1], mean over pairs of clip and class, in nats."""
    truth, values = tables(targets, scores)
    clipped = np.clip(values, _MIN_SCORE, 1 - _MIN_SCORE)
    losses = -(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped))
    return mean(losses[~np.isnan(truth)])


def log_loss(targets: ArrayLike, scores: ArrayLike) -> float:
    """Cross-entropy of scores normalised to sum 1, mean over clips, in nats; single label."""
    truth, values = tables(targets, scores)
    return mean(-np.log(_shares(values)[truth > 0]))


def class_log_loss(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """Log loss over the clips of each class; its mean is the macro log loss.

    Source: DCASE 2021 task 1a; golden sp4asc/sp4asc_metrics.npz.

    Returns:
        float64, shape (class,), in nats; NaN for classes without a clip.
    """
    truth, values = tables(targets, scores)
    return class_mean(-np.log(_shares(values)), truth > 0)


def _shares(values: Floats) -> Floats:
    clipped = np.clip(values, _MIN_SCORE, None)
    return np.asarray(clipped / clipped.sum(1, keepdims=True))


def brier(targets: ArrayLike, scores: ArrayLike) -> float:
    """Brier score: mean over clips of the squared error summed over classes, in [0, 2]; single label.

    Source: Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.
    """
    truth, values = tables(targets, scores)
    known = (truth > 0).any(1)
    return mean(np.square(truth - values)[known].sum(1))


def binary_brier(targets: ArrayLike, scores: ArrayLike) -> float:
    """Binary Brier score: mean squared error over pairs of clip and class, in [0, 1]."""
    truth, values = tables(targets, scores)
    return mean(np.square(truth - values)[~np.isnan(truth)])


class Reliability(NamedTuple):
    """Reliability curve: confidence and accuracy in bins of equal width over [0, 1].

    Attributes:
        confidence: Mean of the scores in each bin, shape (bin,); NaN where it is empty.
        accuracy: Share of correct ones in each bin; NaN where it is empty.
        clips: Number of scores in each bin: one a clip, or one for each pair of clip and class.
    """

    confidence: Floats
    accuracy: Floats
    clips: NDArray[np.int64]


def reliability(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> Reliability:
    """Reliability of the highest score of each clip; single label.

    Source: Guo et al., arXiv:1706.04599. A clip's confidence is its highest score; bin i holds the
    confidences above i / bins up to (i + 1) / bins, the first also 0.

    Args:
        targets: (clip, class).
        scores: In [0, 1], (clip, class).
        bins: Number of bins.
    """
    truth, values = tables(targets, scores)
    predicted = truth[np.arange(len(truth)), values.argmax(1)]
    known = ~np.isnan(predicted)
    return _reliability(values.max(1)[known], predicted[known] > 0, bins)


def binary_reliability(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> Reliability:
    """Reliability of the scores of all pairs of clip and class.

    Args:
        targets: (clip, class).
        scores: In [0, 1], (clip, class).
        bins: Number of bins, as for :func:`reliability`.
    """
    truth, values = tables(targets, scores)
    known = ~np.isnan(truth)
    return _reliability(values[known], truth[known] > 0, bins)


def _reliability(confidence: Floats, right: NDArray[np.bool_], bins: int) -> Reliability:
    bin_index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    clips = np.bincount(bin_index, minlength=bins)
    means = [
        np.where(clips > 0, np.bincount(bin_index, weights, bins) / np.maximum(clips, 1), nan)
        for weights in (confidence, right)
    ]
    return Reliability(means[0], means[1], clips)


def expected_calibration_error(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> float:
    """Mean over clips of the distance between confidence and accuracy of their bin; single label.

    Returns:
        In [0, 1]; NaN where no target is known.
    """
    return _calibration_error(reliability(targets, scores, bins))


def binary_expected_calibration_error(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error over all pairs of clip and class; see :func:`binary_reliability`."""
    return _calibration_error(binary_reliability(targets, scores, bins))


def class_calibration_error(targets: ArrayLike, scores: ArrayLike, bins: int = 15) -> Floats:
    """Binary expected calibration error of each class.

    Source: Kull et al., Beyond Temperature Scaling, arXiv:1910.12656; its mean is their classwise ECE.

    Returns:
        float64, shape (class,); NaN where no target of the class is known.
    """
    truth, values = tables(targets, scores)
    columns = range(truth.shape[1])
    return np.array([binary_expected_calibration_error(truth[:, [c]], values[:, [c]], bins) for c in columns])


def _calibration_error(curve: Reliability) -> float:
    if not curve.clips.any():
        return nan
    distances = np.nan_to_num(np.abs(curve.confidence - curve.accuracy))
    return float(np.average(distances, weights=curve.clips))
