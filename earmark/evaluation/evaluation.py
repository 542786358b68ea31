"""All metrics of predictions: overall, by class and by group.

Conventions: a metric without a value is left out, never NaN. Where each clip has exactly one label, the
single-label metrics are there too (accuracy, log loss, MAP@3, calibration, confusion), whatever the model's
task is. Names say macro (mean over classes) or micro (over clips, or pairs of clip and class).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip, targets
from earmark.errors import DataError
from earmark.evaluation import metrics
from earmark.evaluation.predictions import Predictions
from earmark.model_file.info import ModelInfo, Task, Threshold

Floats = NDArray[np.float32]
Values = Mapping[str, float]
"""Metrics by name; "clips" is the number of clips."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of a model on a dataset.

    Args:
        labels: One per class.
        predictions: Of the model.
        targets: Shape (clip, class); NaN where unknown.
        overall: Metrics over all clips.
        by_class: Label -> metrics, of classes that have a clip.
        by_group: Value of a column -> metrics over its clips.
        confusion: Rows are the true class, columns the predicted one, shape (class, class); None where clips
            do not have one label each.
        reliability: Reliability curve of the highest scores; None likewise.
        info: Of the model, where it is known.
        origin: Files, settings and versions that the numbers can be traced to.
    """

    labels: tuple[str, ...]
    predictions: Predictions
    targets: Floats
    overall: Values
    by_class: Mapping[str, Values]
    by_group: Mapping[str, Values]
    confusion: NDArray[np.int64] | None
    reliability: metrics.Reliability | None
    info: ModelInfo | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)


def evaluate_predictions(
    predictions: Predictions,
    labels: Sequence[str],
    task: Task,
    *,
    group_by: str | None = None,
    threshold: Threshold | None = None,
) -> Evaluation:
    """Computes all metrics of predictions.

    Args:
        predictions: Of the model.
        labels: One per class.
        task: Of the model; decides which metrics its scores have.
        group_by: Also by group: a column of the manifest, or "fold".
        threshold: Lowest score of a tag, for all labels or for each; None: there is none.

    Raises:
        DataError: If a clip has a label that is none of these, or there is no such column.
    """
    truth, scores = targets(predictions.clips, labels), predictions.scores
    single = is_single_label(truth)

    def measured(rows: NDArray[np.bool_]) -> Values:
        return _overall(truth[rows], scores[rows], task, single, threshold)

    groups = np.array(groups_of(predictions.clips, group_by))
    return Evaluation(
        labels=tuple(labels),
        predictions=predictions,
        targets=truth,
        overall=measured(np.ones(len(truth), bool)),
        by_class=_by_class(truth, scores, labels, single, threshold),
        by_group={str(name): measured(groups == name) for name in np.unique(groups)} if group_by else {},
        confusion=metrics.confusion(truth, scores) if single else None,
        reliability=metrics.reliability(truth, scores) if single else None,
    )


def groups_of(clips: Iterable[Clip], column: str | None) -> list[str]:
    """The group of each clip.

    Args:
        clips: Of a manifest.
        column: Of the manifest, or "fold"; None: all clips are one group.

    Raises:
        DataError: If there is no such column.
    """
    found = []
    for clip in clips:
        columns = {"fold": str(clip.fold), **clip.extra}
        if column is not None and column not in columns:
            raise DataError(
                f"the manifest has no column {column!r} to group by: its columns are {', '.join(columns)}"
            )
        found.append(columns[column] if column is not None else "")
    return found


def is_single_label(truth: Floats) -> bool:
    """Whether each clip with known targets has exactly one class, and no unknown target."""
    known = truth[~np.isnan(truth).all(1)]
    return bool(len(known)) and bool(((known > 0).sum(1) == 1).all() and not np.isnan(known).any())


def main_metrics(truth: Floats, scores: Floats, task: Task) -> dict[str, float]:
    """The metrics that training logs and model cards state.

    Source: EfficientAT logs mAP, AUROC and binary cross-entropy of networks whose labels may co-occur.

    Args:
        truth: Targets, (clip, class); NaN where unknown.
        scores: (clip, class).
        task: Of the model.

    Returns:
        ``accuracy`` and ``log_loss`` of clips with one label each, ``map_macro``, and ``auroc_macro`` and
        ``binary_log_loss`` of models whose labels may co-occur.
    """
    found = {}
    if is_single_label(truth):
        found["accuracy"] = metrics.accuracy(truth, scores)
        found["log_loss"] = metrics.log_loss(truth, scores)
    found["map_macro"] = metrics.macro(metrics.average_precision(truth, scores))
    if task == "multi_label":
        found["auroc_macro"] = metrics.macro(metrics.auroc(truth, scores))
        found["binary_log_loss"] = metrics.binary_log_loss(truth, scores)
    return _finite(found)


def _overall(truth: Floats, scores: Floats, task: Task, single: bool, threshold: Threshold | None) -> Values:
    if not len(truth):
        return {"clips": 0}
    found: dict[str, float] = {"clips": len(truth)}
    if single:
        found["accuracy"] = metrics.accuracy(truth, scores)
        found["accuracy_macro"] = metrics.macro(metrics.class_accuracy(truth, scores))
        found["map_at_3"] = metrics.map_at_k(truth, scores, 3)
        found["log_loss"] = metrics.log_loss(truth, scores)
        found["log_loss_macro"] = metrics.macro(metrics.class_log_loss(truth, scores))
        found["brier"] = metrics.brier(truth, scores)
        found["expected_calibration_error"] = metrics.expected_calibration_error(truth, scores)
    auroc = metrics.macro(metrics.auroc(truth, scores))
    found["map_macro"] = metrics.macro(metrics.average_precision(truth, scores))
    found["map_micro"] = metrics.micro_average_precision(truth, scores)
    found["auroc_macro"] = auroc
    found["d_prime"] = metrics.d_prime(auroc)
    found["lwlrap"] = metrics.lwlrap(truth, scores)
    if task == "multi_label":
        found["binary_log_loss"] = metrics.binary_log_loss(truth, scores)
        found["binary_brier"] = metrics.binary_brier(truth, scores)
        error = metrics.binary_expected_calibration_error(truth, scores)
        found["binary_expected_calibration_error"] = error
    if threshold is not None:
        found["recall_at_threshold_macro"] = metrics.macro(metrics.recall(truth, scores, threshold))
    return {**_finite(found), "clips": len(truth)}


def _by_class(
    truth: Floats, scores: Floats, labels: Sequence[str], single: bool, threshold: Threshold | None
) -> dict[str, Values]:
    if not len(truth):
        return {}
    columns: dict[str, NDArray[np.float64]] = {"clips": (truth > 0).sum(0).astype(np.float64)}
    if single:
        columns["accuracy"] = metrics.class_accuracy(truth, scores)
        columns["log_loss"] = metrics.class_log_loss(truth, scores)
    columns["average_precision"] = metrics.average_precision(truth, scores)
    columns["auroc"] = metrics.auroc(truth, scores)
    columns["lwlrap"] = metrics.label_ranking(truth, scores).by_class
    if threshold is not None:
        columns["recall_at_threshold"] = metrics.recall(truth, scores, threshold)
    return {
        label: {
            **_finite({name: float(values[index]) for name, values in columns.items()}),
            "clips": int(columns["clips"][index]),
        }
        for index, label in enumerate(labels)
        if columns["clips"][index]
    }


def _finite(values: Values) -> dict[str, float]:
    """The metrics that have a value."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
