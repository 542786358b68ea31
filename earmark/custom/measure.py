"""Numbers of a cross-validation.

Conventions: as for :mod:`earmark.evaluation.metrics`; a number that cannot be measured is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.custom.cross_validation import CrossValidation, bootstrap_interval
from earmark.custom.example import Example
from earmark.custom.report import WrongClip
from earmark.custom.table import Floats, Table
from earmark.evaluation import metrics

MAX_WRONG = 100
Numbers = dict[str, float]


def measure(table: Table, found: CrossValidation) -> tuple[Numbers, dict[str, Numbers]]:
    """Measures all clips together, and each class.

    Args:
        table: Features and targets.
        found: Scores of the clips that were tested.

    Returns:
        Metrics, and those of each label.
    """
    truth, scores = table.targets[found.clips], found.scores
    groups = table.groups[found.clips]
    classed = (truth > 0).any(1)
    overall: Numbers = {
        "clips": len(truth),
        "map_macro": metrics.macro(metrics.average_precision(truth, scores)),
    }
    if _single(truth[classed]):
        right = (truth[classed, scores[classed].argmax(1)] > 0).astype(np.float64)
        low, high = bootstrap_interval(right, groups[classed])
        overall |= {"accuracy": float(right.mean()), "low": low, "high": high}
    if table.task == "single_label":
        overall["log_loss"] = metrics.log_loss(truth, scores)
        overall["expected_calibration_error"] = metrics.expected_calibration_error(truth, scores)
    else:
        overall["log_loss"] = metrics.binary_log_loss(truth, scores)
        overall["expected_calibration_error"] = metrics.binary_expected_calibration_error(truth, scores)
    return {name: round(float(value), 4) for name, value in overall.items()}, _by_class(table, found)


def _single(truth: Floats) -> bool:
    """Whether there are several classes, and each clip is of exactly one."""
    return bool(len(truth)) and truth.shape[1] > 1 and bool((truth.sum(1) == 1).all())


def _by_class(table: Table, found: CrossValidation) -> dict[str, Numbers]:
    truth, scores = table.targets[found.clips], found.scores
    if table.task == "single_label":  # the class of the highest score
        limits: NDArray[Any] = scores.max(1, keepdims=True)
    else:
        limits = np.array(found.thresholds)
    columns = {
        "precision": metrics.precision(truth, scores, limits),
        "recall": metrics.recall(truth, scores, limits),
        "average_precision": metrics.average_precision(truth, scores),
        "threshold": np.array(found.thresholds),
    }
    tested = np.asarray((truth > 0).any(0))
    numbers: dict[str, Numbers] = {}
    for index, label in enumerate(table.labels):
        own: Numbers = {"clips": int((table.targets[:, index] > 0).sum())}
        for name, values in columns.items():
            if np.isfinite(values[index]) and (tested[index] or name == "threshold"):
                own[name] = round(float(values[index]), 4)
        numbers[label] = own
    return numbers


def confusion(table: Table, found: CrossValidation) -> tuple[tuple[int, ...], ...] | None:
    """Clips of each class by their highest-scoring class; None if a clip has several labels."""
    truth = table.targets[found.clips]
    classed = (truth > 0).any(1)
    if not _single(truth[classed]):
        return None
    return tuple(map(tuple, metrics.confusion(truth[classed], found.scores[classed]).tolist()))


def false_alarms_per_hour(
    table: Table, found: CrossValidation, durations_s: NDArray[np.float64]
) -> float | None:
    """Labels that reach their thresholds on clips of background, per hour; None without any."""
    background = ~(table.targets[found.clips] > 0).any(1)
    hours = float(durations_s[found.clips][background].sum()) / 3600
    if not hours:
        return None
    alarms = int((found.scores[background] >= np.array(found.thresholds)).sum())
    return round(alarms / hours, 3)


def wrong_clips(table: Table, found: CrossValidation, examples: Sequence[Example]) -> tuple[WrongClip, ...]:
    """Clips whose highest score is that of another label, or background that reaches a threshold."""
    truth = table.targets[found.clips]
    wrong = []
    for clip, own, scores in zip(found.clips, truth, found.scores, strict=True):
        best = int(scores.argmax())
        background = not own.any()
        mistaken = scores[best] >= found.thresholds[best] if background else own[best] == 0
        if mistaken:
            least = 0.0 if background else float(scores[own > 0].min())
            wrong.append(WrongClip(examples[clip], table.labels[best], float(scores[best]), least))
    wrong.sort(key=lambda one: one.own_score - one.score)
    return tuple(wrong[:MAX_WRONG])
