"""Evaluates a fit by cross-validation: scores of clips by classifiers that were fitted without their sources.

Conventions: a class with one source cannot be tested; its clips are always fitted to and have no scores.
Calibrations and thresholds are measured on folds that they were not fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earmark.custom.classifier import Fitter
from earmark.custom.folds import grouped_folds, num_folds
from earmark.custom.table import Floats, Table, clip_scores
from earmark.errors import DataError
from earmark.evaluation.calibration import fit as calibration
from earmark.evaluation.calibration.data import CalibrationData
from earmark.evaluation.calibration.thresholds import ThresholdTarget, choose_thresholds
from earmark.model_file.calibration import Calibration, Method, Platt, uncalibrated_scores

CALIBRATION_FOLDS = 5
MIN_POSITIVES = 20
"""Clips that each class needs for a sigmoid of its own."""


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Scores of clips that the classifier was not fitted to.

    Attributes:
        clips: Indices of the clips that were tested.
        logits: Of each of them, the logits of its windows, (window, class).
        scores: Calibrated scores, (clip, class), the calibration fitted to other folds.
        folds: Fold of each tested clip.
        num_folds: Number of folds.
        calibration: Fitted to all tested clips; None if that was not possible.
        thresholds: Of each class, for the wanted precision.
    """

    clips: NDArray[np.int64]
    logits: list[Floats]
    scores: Floats
    folds: NDArray[np.int64]
    num_folds: int
    calibration: Calibration | None
    thresholds: tuple[float, ...]


def cross_validate(
    table: Table,
    fitter: Fitter,
    wanted_folds: int | None,
    precision: float,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> CrossValidation | None:
    """Cross-validates a fit.

    Args:
        table: Features and targets.
        fitter: Fits a classifier to some clips.
        wanted_folds: Number of folds; None: by the amount of data.
        precision: Wanted precision of the thresholds.
        progress: Called with the number of folds done and of all.

    Returns:
        None if no class has two sources.
    """
    count = num_folds(table.targets, table.groups, wanted_folds)
    if count < 2:
        return None
    folds = grouped_folds(table.targets, table.groups, count)
    windows = table.windows()
    logits: dict[int, Floats] = {}
    present = [int(fold) for fold in np.unique(folds) if fold]
    for done, fold in enumerate(present):
        progress(done, len(present))
        classifier = fitter(table, folds != fold)
        for clip in np.flatnonzero(folds == fold):
            logits[int(clip)] = classifier.logits(windows[clip])
    clips = np.array(sorted(logits), np.int64)
    return _evaluated(table, clips, [logits[int(clip)] for clip in clips], folds[clips], count, precision)


def _evaluated(
    table: Table,
    clips: NDArray[np.int64],
    logits: list[Floats],
    folds: NDArray[np.int64],
    count: int,
    precision: float,
) -> CrossValidation:
    truth = table.targets[clips]
    final = _calibration(table, logits, truth)
    scores = np.zeros_like(truth)
    parts = folds % min(CALIBRATION_FOLDS, count)
    for part in np.unique(parts):
        inside, outside = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
        own = _calibration(table, [logits[number] for number in outside], truth[outside])
        scores[inside] = clip_scores([logits[number] for number in inside], table.task, own or final)
    thresholds = _thresholds(table, logits, truth, final, precision)
    return CrossValidation(clips, logits, scores, folds, count, final, thresholds)


def _calibration(table: Table, logits: Sequence[Floats], truth: Floats) -> Calibration | None:
    """Fits a calibration to the classes that were tested; None where it is not possible."""
    tested = np.asarray((truth > 0).any(0))
    if not tested.any():
        return None
    method: Method = "temperature"
    if table.task == "multi_label":
        enough = tested.all() and (truth > 0).sum(0).min() >= MIN_POSITIVES
        method = "platt" if enough else "shared"
    labels = tuple(label for label, known in zip(table.labels, tested, strict=True) if known)
    windows = tuple(uncalibrated_scores(own[:, tested], table.task) for own in logits)
    with suppress(DataError):
        found = calibration.fit(method, CalibrationData(labels, table.task, windows, truth[:, tested]))
        if isinstance(found, Platt) and method == "shared":  # one sigmoid, also for what was not tested
            found = Platt(found.slope[:1] * len(tested), found.intercept[:1] * len(tested))
        return replace(found, fitted_on={"clips": len(logits), "scores": "cross-validated"})
    return None


def _thresholds(
    table: Table, logits: Sequence[Floats], truth: Floats, final: Calibration | None, precision: float
) -> tuple[float, ...]:
    """Thresholds for a precision among the tested clips and, for exclusive classes, as many unknown sounds.

    An unknown sound is a clip of a class whose own logit is left out: what the classifier would make of it
    if it did not know that class.
    """
    scores = clip_scores(logits, table.task, final)
    if table.task == "single_label" and len(table.labels) > 2:
        unknown = [np.where(row > 0, np.float32(-1e3), own) for row, own in zip(truth, logits, strict=True)]
        scores = np.concatenate([scores, clip_scores(unknown, table.task, final)])
        truth = np.concatenate([truth, np.zeros_like(truth)])
    tested = (truth > 0).any(0)
    values = np.zeros(len(table.labels))
    values[tested] = choose_thresholds(
        ThresholdTarget("precision", precision), truth[:, tested], scores[:, tested]
    ).values
    values[~tested] = np.median(values[tested])
    return tuple(round(float(value), 4) for value in values)


def bootstrap_interval(
    values: NDArray[np.float64], groups: NDArray[np.int64], seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """95 % interval of a mean over clips, by drawing groups with replacement.

    Args:
        values: Of each clip, (clip,).
        groups: Group of each clip.
        seed: Of the draws.
        draws: Number of draws.
    """
    _, owner = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(owner, values), np.bincount(owner)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
