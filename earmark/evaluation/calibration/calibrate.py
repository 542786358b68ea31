"""Fits a calibration and thresholds, and measures both on clips that they were not fitted to.

Conventions: by default by cross-fitting: each fold of the clips is calibrated, and its thresholds chosen, by
all other folds, and the metrics are those of all folds together. The stored calibration is fitted to all
clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip
from earmark.data.splits import stratified_folds
from earmark.errors import DataError
from earmark.evaluation import metrics
from earmark.evaluation.calibration.data import CalibrationData, Floats, Scores, require_classes
from earmark.evaluation.calibration.fit import fit
from earmark.evaluation.calibration.thresholds import Thresholds, ThresholdTarget, choose_thresholds
from earmark.evaluation.evaluation import Values, is_single_label
from earmark.model_file.calibration import METHODS, Calibration, Method
from earmark.model_file.info import ModelInfo, Task

NUM_FOLDS = 5
"""Folds of clips that have none."""


def calibration_folds(clips: Sequence[Clip]) -> NDArray[np.int64]:
    """Fold of each clip for cross-fitting: its own where there are several, else one of five stratified ones.

    Raises:
        DataError: If there are fewer clips than folds.
    """
    folds = np.array([clip.fold for clip in clips])
    if len(np.unique(folds)) > 1:
        return folds
    return np.array([clip.fold for clip in stratified_folds(clips, NUM_FOLDS)])


@dataclass(frozen=True, eq=False)
class CalibrationMetrics:
    """Metrics before and after a calibration, on clips that it was not fitted to.

    Args:
        measured_on: A text that describes the clips.
        before: Metrics of the uncalibrated scores.
        after: Metrics of the calibrated scores.
        curves: Reliability curves, "before" and "after".
        scores: Calibrated, (clip, class).
        decisions: Precision, recall and F1 at the threshold of each class, by label, and their means over
            classes under ""; empty without a target.
    """

    measured_on: str
    before: Values
    after: Values
    curves: Mapping[str, metrics.Reliability]
    scores: Scores
    decisions: Mapping[str, Values] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """A calibration and thresholds that were fitted to all clips, and their metrics.

    Args:
        labels: One per class.
        calibration: From logits to probabilities.
        metrics: On clips that they were not fitted to.
        target: Of the thresholds.
        thresholds: Fitted to all clips; None without a target.
    """

    labels: tuple[str, ...]
    calibration: Calibration
    metrics: CalibrationMetrics
    target: ThresholdTarget | None = None
    thresholds: Thresholds | None = None

    @property
    def missed(self) -> tuple[str, ...]:
        """Labels that do not reach the target at any threshold."""
        missed = () if self.thresholds is None else self.thresholds.missed
        return tuple(label for label, wrong in zip(self.labels, missed, strict=False) if wrong)

    def with_source(self, origin: Mapping[str, object]) -> CalibrationResult:
        """The result, with a description of the clips in its calibration."""
        fitted_on = {**self.calibration.fitted_on, **origin}
        return replace(self, calibration=replace(self.calibration, fitted_on=fitted_on))

    def apply_to(self, info: ModelInfo) -> ModelInfo:
        """The model info with this calibration and, where there are any, its thresholds and their rule."""
        info = info.changed(calibration=self.calibration)
        if self.thresholds is None:
            return info
        rule = f"{self.target} of each label, on the clips that the calibration was fitted to"
        return info.changed(threshold=tuple(self.thresholds.values.tolist()), threshold_rule=rule)

    @property
    def summary(self) -> dict[str, object]:
        """The metrics that are stored in the model info."""
        found = self.metrics
        kept: dict[str, object] = {
            "measured_on": found.measured_on,
            "before": found.before,
            "after": found.after,
        }
        if self.target is not None:
            kept |= {"target": str(self.target), "at_thresholds": found.decisions[""]}
        return kept


def calibrate(
    data: CalibrationData,
    method: Method | None = None,
    target: ThresholdTarget | None = None,
    *,
    folds: NDArray[np.int64] | None = None,
    validation: CalibrationData | None = None,
    min_threshold: float = 0.0,
) -> CalibrationResult:
    """Fits a calibration and thresholds, and measures both.

    Args:
        data: Of held-out clips.
        method: Default: the first of the task.
        target: Of the thresholds; None: no thresholds.
        folds: Of the clips, for cross-fitting, see :func:`calibration_folds`; not used with ``validation``.
        validation: Of other clips, to measure on.
        min_threshold: Lower limit of the thresholds, in [0, 1].

    Raises:
        DataError: As :func:`~earmark.evaluation.calibration.fit.fit` does.
    """
    method = method or METHODS[data.task][0]
    calibration = fit(method, data)
    thresholds = None
    if target is not None:
        scores = data.scores(calibration)
        thresholds = choose_thresholds(target, data.targets, scores, min_threshold)
    if validation is not None:
        limits = None if thresholds is None else thresholds.values
        measured_on = f"{len(validation.targets)} clips that it was not fitted to"
        measured = _metrics(measured_on, validation, validation.scores(calibration), limits)
    else:
        assert folds is not None
        measured = _cross_fitted(method, target, data, folds, min_threshold)
    return CalibrationResult(data.labels, calibration, measured, target, thresholds)


def require_classes_in_folds(labels: Sequence[str], targets: Scores, folds: NDArray[np.int64]) -> None:
    """Checks that each fold can be calibrated by the others.

    Raises:
        DataError: Naming the classes that are missing, and the fold.
    """
    require_classes(labels, targets)
    for fold in np.unique(folds):
        try:
            require_classes(labels, targets[folds != fold])
        except DataError as error:
            raise DataError(f"without fold {fold}, {error}") from None


def _cross_fitted(
    method: Method,
    target: ThresholdTarget | None,
    data: CalibrationData,
    folds: NDArray[np.int64],
    min_threshold: float,
) -> CalibrationMetrics:
    require_classes_in_folds(data.labels, data.targets, folds)
    scores = np.zeros(data.targets.shape, np.float32)
    limits = np.zeros(data.targets.shape)
    for fold in np.unique(folds):
        own, others = data.select(folds == fold), data.select(folds != fold)
        fitted = fit(method, others)
        scores[folds == fold] = own.scores(fitted)
        if target is not None:
            chosen = choose_thresholds(target, others.targets, others.scores(fitted), min_threshold)
            limits[folds == fold] = chosen.values
    measured_on = f"{len(folds)} clips in {len(np.unique(folds))} folds, each calibrated by the others"
    return _metrics(measured_on, data, scores, None if target is None else limits)


def _metrics(
    measured_on: str, data: CalibrationData, scores: Scores, limits: Floats | None
) -> CalibrationMetrics:
    truth, raw = data.targets, data.scores()
    curve = metrics.binary_reliability if data.task == "multi_label" else metrics.reliability
    return CalibrationMetrics(
        measured_on=measured_on,
        before=_values(truth, raw, data.task),
        after=_values(truth, scores, data.task),
        curves={"before": curve(truth, raw), "after": curve(truth, scores)},
        scores=scores,
        decisions={} if limits is None else _decisions(data.labels, truth, scores, limits),
    )


def _values(truth: Scores, scores: Scores, task: Task) -> dict[str, float]:
    found = {"accuracy": metrics.accuracy(truth, scores)} if is_single_label(truth) else {}
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
