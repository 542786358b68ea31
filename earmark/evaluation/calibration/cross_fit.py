"""Measures what a calibration and thresholds bring, on clips that they were not fitted to.

Conventions: by default clips are cross-fitted: each part of them is calibrated, and its thresholds chosen, by
all other parts, and what comes of that is measured together. What is stored in a record is fitted to all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip
from earmark.data.splits import deal
from earmark.errors import DataError
from earmark.evaluation import metrics
from earmark.evaluation.calibration.fit import Evidence, fit, require_classes
from earmark.evaluation.calibration.thresholds import Target, Thresholds, thresholds_for
from earmark.evaluation.evaluation import Values, one_class_a_clip
from earmark.model_file.calibration import METHODS, Calibration, Method
from earmark.model_file.info import ModelInfo, Task

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]

PARTS = 5
"""Clips without folds are cross-fitted in so many parts."""


def parts_of(clips: Sequence[Clip]) -> NDArray[np.int64]:
    """Which part of a cross-fit each clip is in: its fold where there are several, else one of five alike.

    Raises:
        DataError: If there are fewer clips than parts.
    """
    folds = np.array([clip.fold for clip in clips])
    if len(np.unique(folds)) > 1:
        return folds
    return np.array([clip.fold for clip in deal(clips, PARTS)])


@dataclass(frozen=True, eq=False)
class Measured:
    """What a calibration brings on clips that it was not fitted to.

    Args:
        judged: Which clips, in words.
        before: Metrics of the model's own scores.
        after: The same of the calibrated ones.
        curves: Reliability of both.
        scores: Calibrated, (clip, class).
        decisions: Precision, recall and F1 at the threshold of each class, by label, and their means over
            classes under ""; none where no target was given.
    """

    judged: str
    before: Values
    after: Values
    curves: Mapping[str, metrics.Reliability]
    scores: Scores
    decisions: Mapping[str, Values] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A calibration that was fitted to all clips, and what it is worth.

    Args:
        labels: One per class.
        calibration: From logits to probabilities.
        measured: On clips that it was not fitted to.
        target: Of the thresholds.
        thresholds: Fitted to all clips; None where no target was given.
    """

    labels: tuple[str, ...]
    calibration: Calibration
    measured: Measured
    target: Target | None = None
    thresholds: Thresholds | None = None

    @property
    def missed(self) -> tuple[str, ...]:
        """Labels that reach the target at no threshold."""
        missed = () if self.thresholds is None else self.thresholds.missed
        return tuple(label for label, wrong in zip(self.labels, missed, strict=False) if wrong)

    def said_of(self, origin: Mapping[str, object]) -> Calibrated:
        """The same, whose calibration says which clips it was fitted to."""
        fitted_on = {**self.calibration.fitted_on, **origin}
        return replace(self, calibration=replace(self.calibration, fitted_on=fitted_on))

    def applied_to(self, info: ModelInfo) -> ModelInfo:
        """A record with this calibration and, where there are some, its thresholds."""
        own = self.thresholds
        threshold = info.threshold if own is None else tuple(own.values.tolist())
        return info.changed(calibration=self.calibration, threshold=threshold)

    @property
    def summary(self) -> dict[str, object]:
        """What a record keeps of it."""
        found = self.measured
        kept: dict[str, object] = {"judged": found.judged, "before": found.before, "after": found.after}
        if self.target is not None:
            kept |= {"target": str(self.target), "at_thresholds": found.decisions[""]}
        return kept


def calibrate(
    evidence: Evidence,
    method: Method | None = None,
    target: Target | None = None,
    *,
    parts: NDArray[np.int64] | None = None,
    judged: Evidence | None = None,
    lowest: float = 0.0,
) -> Calibrated:
    """Fits a calibration and thresholds, and measures both.

    Args:
        evidence: Of held-out clips.
        method: By default the first of its task.
        target: Of the thresholds; None: there are none.
        parts: For cross-fitting, see :func:`parts_of`; left out where there are clips to judge by.
        judged: Of other clips, to measure by.
        lowest: No threshold lies below this.

    Raises:
        DataError: As :func:`~earmark.evaluation.calibration.fit.fit` does.
    """
    method = method or METHODS[evidence.task][0]
    calibration = fit(method, evidence)
    thresholds = None
    if target is not None:
        thresholds = thresholds_for(target, evidence.targets, evidence.scores(calibration), lowest)
    if judged is not None:
        limits = None if thresholds is None else thresholds.values
        words = f"{len(judged.targets)} clips that it was not fitted to"
        measured = _measured(words, judged, judged.scores(calibration), limits)
    else:
        assert parts is not None
        measured = _cross_fitted(method, target, evidence, parts, lowest)
    return Calibrated(evidence.labels, calibration, measured, target, thresholds)


def require_parts(labels: Sequence[str], targets: Scores, parts: NDArray[np.int64]) -> None:
    """Refuses clips of which a part cannot be calibrated by the others.

    Raises:
        DataError: Naming the classes that are missing, and where.
    """
    require_classes(labels, targets)
    for part in np.unique(parts):
        try:
            require_classes(labels, targets[parts != part])
        except DataError as error:
            raise DataError(f"where part {part} is left out to be judged, {error}") from None


def _cross_fitted(
    method: Method, target: Target | None, evidence: Evidence, parts: NDArray[np.int64], lowest: float
) -> Measured:
    require_parts(evidence.labels, evidence.targets, parts)
    scores = np.zeros(evidence.targets.shape, np.float32)
    limits = np.zeros(evidence.targets.shape)
    for part in np.unique(parts):
        own, others = evidence.chosen(parts == part), evidence.chosen(parts != part)
        fitted = fit(method, others)
        scores[parts == part] = own.scores(fitted)
        if target is not None:
            limits[parts == part] = thresholds_for(
                target, others.targets, others.scores(fitted), lowest
            ).values
    words = f"{len(parts)} clips in {len(np.unique(parts))} parts, each by a fit to the others"
    return _measured(words, evidence, scores, None if target is None else limits)


def _measured(judged: str, evidence: Evidence, scores: Scores, limits: Floats | None) -> Measured:
    truth, raw = evidence.targets, evidence.scores()
    curve = metrics.binary_reliability if evidence.task == "multi_label" else metrics.reliability
    return Measured(
        judged=judged,
        before=_values(truth, raw, evidence.task),
        after=_values(truth, scores, evidence.task),
        curves={"before": curve(truth, raw), "after": curve(truth, scores)},
        scores=scores,
        decisions={} if limits is None else _decisions(evidence.labels, truth, scores, limits),
    )


def _values(truth: Scores, scores: Scores, task: Task) -> dict[str, float]:
    found = {"accuracy": metrics.accuracy(truth, scores)} if one_class_a_clip(truth) else {}
    found["map_macro"] = metrics.macro(metrics.average_precision(truth, scores))
    if task == "single_label":
        found["log_loss"] = metrics.log_loss(truth, scores)
        found["brier"] = metrics.brier(truth, scores)
        found["expected_calibration_error"] = metrics.expected_calibration_error(truth, scores)
        return found
    found["binary_log_loss"] = metrics.binary_log_loss(truth, scores)
    found["binary_brier"] = metrics.binary_brier(truth, scores)
    error = metrics.binary_expected_calibration_error(truth, scores)
    found["binary_expected_calibration_error"] = error
    found["class_calibration_error_macro"] = metrics.macro(metrics.class_calibration_error(truth, scores))
    return found


def _decisions(labels: Sequence[str], truth: Scores, scores: Scores, limits: Floats) -> dict[str, Values]:
    columns = {
        "precision": metrics.precision(truth, scores, limits),
        "recall": metrics.recall(truth, scores, limits),
        "f1": metrics.f1(truth, scores, limits),
    }
    rows = {"": {name: metrics.macro(values) for name, values in columns.items()}}
    for c, label in enumerate(labels):
        rows[label] = {name: float(values[c]) for name, values in columns.items()}
    return {
        label: {n: value for n, value in own.items() if math.isfinite(value)} for label, own in rows.items()
    }
