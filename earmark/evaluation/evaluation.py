"""Judges a model: every metric that its task and the clips have, over all, by class and by group.

Conventions: a metric without a value is left out, never NaN. Where each clip has exactly one label, the
metrics of one class a clip are there too (accuracy, log loss, MAP@3, calibration, confusion), whatever the
model's task is. Names say macro (mean over classes) or micro (over clips, or pairs of clip and class).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip, targets
from earmark.errors import DataError
from earmark.evaluation import metrics
from earmark.evaluation.predictions import Answers, Way, answer, require_labels
from earmark.inference.tagger import Tagger
from earmark.model_file.info import Task, Threshold

Floats = NDArray[np.float32]
Values = Mapping[str, float]
"""Metrics by name; "clips" is how many there are."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model does.

    Args:
        labels: One per class.
        answers: What the model said.
        targets: What is true, shape (clip, class); NaN where nobody knows.
        overall: Metrics over all clips.
        by_class: Label -> metrics, of classes that a clip has.
        by_group: Value of a column -> metrics over its clips.
        confusion: Rows are the truth, columns the highest score, shape (class, class); None where clips have
            not one label each.
        reliability: How right the model was where it was so sure; None likewise.
    """

    labels: tuple[str, ...]
    answers: Answers
    targets: Floats
    overall: Values
    by_class: Mapping[str, Values]
    by_group: Mapping[str, Values]
    confusion: NDArray[np.int64] | None
    reliability: metrics.Reliability | None


def evaluate(
    tagger: Tagger,
    clips: Sequence[Clip],
    *,
    way: Way = "tagger",
    by: str | None = None,
    before: Callable[[Clip], object] = lambda clip: None,
    complain: Callable[[str], object] = lambda reason: None,
) -> Evaluation:
    """Hears clips and judges what was said of them.

    Args:
        tagger: Around the model.
        clips: Of a manifest.
        way: As for :func:`~earmark.evaluation.predictions.answer`.
        by: Also by group: a column of the manifest, or "fold".
        before: As for ``answer``.
        complain: As for ``answer``.

    Raises:
        DataError: If a label is not the model's, or there is no such column; before anything is heard.
        ModelError: If the way cannot be gone with this model.
    """
    require_labels(clips, tagger.labels)
    groups_of(clips, by)
    heard = answer(tagger, clips, way, before=before, complain=complain)
    return judge(heard, tagger.labels, tagger.info.task, by=by, threshold=tagger.info.threshold)


def judge(
    answers: Answers,
    labels: Sequence[str],
    task: Task,
    *,
    by: str | None = None,
    threshold: Threshold | None = None,
) -> Evaluation:
    """Judges scores that are there already.

    Args:
        answers: Of the model; of no clip, there is nothing to say.
        labels: One per class.
        task: The model's; says what its scores are.
        by: Also by group: a column of the manifest, or "fold".
        threshold: Score from which a tag counts as heard, or one for each label; None: there is none.

    Raises:
        DataError: If a clip has a label that is none of these, or there is no such column.
    """
    truth, scores = targets(answers.clips, labels), answers.scores
    exclusive = one_class_a_clip(truth)

    def measured(rows: NDArray[np.bool_]) -> Values:
        return _overall(truth[rows], scores[rows], task, exclusive, threshold)

    groups = np.array(groups_of(answers.clips, by))
    return Evaluation(
        labels=tuple(labels),
        answers=answers,
        targets=truth,
        overall=measured(np.ones(len(truth), bool)),
        by_class=_by_class(truth, scores, labels, exclusive, threshold),
        by_group={str(name): measured(groups == name) for name in np.unique(groups)} if by else {},
        confusion=metrics.confusion(truth, scores) if exclusive else None,
        reliability=metrics.reliability(truth, scores) if exclusive else None,
    )


def groups_of(clips: Iterable[Clip], by: str | None) -> list[str]:
    """The group of each clip.

    Args:
        clips: Of a manifest.
        by: A column of the manifest, or "fold"; None: all are of one group.

    Raises:
        DataError: If there is no such column.
    """
    found = []
    for clip in clips:
        columns = {"fold": str(clip.fold), **clip.extra}
        if by is not None and by not in columns:
            raise DataError(f"the manifest has no column {by!r} to group by; it has {', '.join(columns)}")
        found.append(columns[by] if by is not None else "")
    return found


def one_class_a_clip(truth: Floats) -> bool:
    """Whether each clip of which something is known has exactly one class, and nothing unknown."""
    known = truth[~np.isnan(truth).all(1)]
    return bool(len(known)) and bool(((known > 0).sum(1) == 1).all() and not np.isnan(known).any())


def _overall(
    truth: Floats, scores: Floats, task: Task, exclusive: bool, threshold: Threshold | None
) -> Values:
    if not len(truth):
        return {"clips": 0}
    found: dict[str, float] = {"clips": len(truth)}
    if exclusive:
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
    return _finite(found)


def _by_class(
    truth: Floats, scores: Floats, labels: Sequence[str], exclusive: bool, threshold: Threshold | None
) -> dict[str, Values]:
    if not len(truth):
        return {}
    columns: dict[str, NDArray[np.float64]] = {"clips": (truth > 0).sum(0).astype(np.float64)}
    if exclusive:
        columns["accuracy"] = metrics.class_accuracy(truth, scores)
        columns["log_loss"] = metrics.class_log_loss(truth, scores)
    columns["average_precision"] = metrics.average_precision(truth, scores)
    columns["auroc"] = metrics.auroc(truth, scores)
    columns["lwlrap"] = metrics.label_ranking(truth, scores).by_class
    if threshold is not None:
        columns["recall_at_threshold"] = metrics.recall(truth, scores, threshold)
    return {
        label: _finite({name: float(values[index]) for name, values in columns.items()})
        for index, label in enumerate(labels)
        if columns["clips"][index]
    }


def _finite(values: Values) -> dict[str, float]:
    """Those that have a value; the number of clips as a whole number."""
    kept = {name: value for name, value in values.items() if math.isfinite(value)}
    return kept | {"clips": int(kept["clips"])}
