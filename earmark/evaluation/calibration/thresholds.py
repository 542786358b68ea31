"""Chooses the threshold of each class: for a precision, a recall or the best F1, or by a reference model.

Conventions: targets are (clip, class): 0, 1, or NaN where unknown, which is ignored. A threshold that is
chosen by targets lies halfway between the lowest score that reaches it and the next one below.
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


class AgreementThresholds(NamedTuple):
    """Thresholds of all classes, chosen by the scores of a reference model.

    Attributes:
        values: Multiples of 0.01, shape (class,).
        common: That of a class that no clip reaches.
        rule: How they were chosen, for :attr:`ModelInfo.threshold_rule`.
    """

    values: Floats
    common: float
    rule: str


def agreement_thresholds(
    scores: ArrayLike,
    reference_scores: ArrayLike,
    *,
    reference: str = "the reference model",
    reference_threshold: float = 0.2,
    min_precision: float = 0.9,
    limits: tuple[float, float] = (0.1, 0.6),
    prior_clips: float = 10.0,
) -> AgreementThresholds:
    """Chooses thresholds from which on a model agrees with a reference model, for clips without labels.

    A label's threshold is the lowest, in steps of 0.01, at which the reference model has the label too for at
    least ``min_precision`` of the clips that reach it. To those of each class, ``prior_clips`` clips with the
    precision of all classes together are added, so that few clips change little, and a class without any gets
    the common threshold. If none within the limits is good enough, it is the upper limit.

    Args:
        scores: Of the model, in [0, 1], shape (clip, class), on clips that it was not trained on.
        reference_scores: Of the reference model on the same clips, shape (clip, class).
        reference: Name of the reference model, for the rule.
        reference_threshold: Score from which the reference model has a label.
        min_precision: In (0, 1].
        limits: Lowest and highest threshold.
        prior_clips: Above 0.

    Raises:
        DataError: If there are no clips, or the shapes differ.
    """
    own, agreed = np.asarray(scores), np.asarray(reference_scores) >= reference_threshold
    if own.shape != agreed.shape or own.ndim != 2 or not own.size:
        raise DataError(
            f"scores and reference_scores must have the same shape (clip, class), got {own.shape} and "
            f"{agreed.shape}"
        )
    steps = np.arange(round(100 * limits[0]), round(100 * limits[1]) + 1) / 100
    reaching = np.array([(own >= step).sum(0) for step in steps])  # (step, class)
    right = np.array([((own >= step) & agreed).sum(0) for step in steps])
    together = (right.sum(1) + min_precision) / (reaching.sum(1) + 1)  # where none reaches: just good enough
    precision = (right + prior_clips * together[:, None]) / (reaching + prior_clips)

    def lowest(good: NDArray[np.bool_]) -> Floats:
        return np.asarray(np.where(good.any(0), steps[good.argmax(0)], steps[-1]), np.float64)

    common = float(lowest(together >= min_precision - 1e-9))
    rule = (
        f"the lowest from {limits[0]:g} to {limits[1]:g} at which {reference} agrees (its score is at least "
        f"{reference_threshold:g}) for {min_precision:.0%} of the clips that reach it, among {len(own)} that "
        f"were not trained on; each label counts {prior_clips:g} more with the precision of all labels"
    )
    return AgreementThresholds(lowest(precision >= min_precision - 1e-9), common, rule)


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
