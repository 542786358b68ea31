"""Cross-validation: a network per fold, judged on clips it never heard, and one to ship, trained on all.

Conventions: the runs lie in ``folder/fold1``, ``folder/fold2``, ... and ``folder/all``; scores are pooled
over the folds, so each clip of the folds is judged once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip, read_manifest, select, targets
from earmark.errors import RecipeError
from earmark.evaluation import metrics
from earmark.evaluation.calibration.data import CalibrationData
from earmark.evaluation.calibration.fit import fit
from earmark.evaluation.calibration.calibrate import CalibrationResult, calibrate, calibration_folds, require_classes_in_folds
from earmark.evaluation.network_predictions import predict
from earmark.evaluation.calibration.thresholds import ThresholdTarget
from earmark.model_file.calibration import Calibration
from earmark.model_file.info import ModelInfo
from earmark.models.checkpoint import load_checkpoint
from earmark.models.network import Network
from earmark.training.config.recipe import Recipe
from earmark.training.config.section import fold_name
from earmark.training.distill.teacher_targets import require_teachers
from earmark.training.initialization import require_bases
from earmark.training.splits import clips_to_judge, hearing, split_clips
from earmark.training.trainer import Report, train

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Judgement:
    """What cross-validation found, and the network to ship.

    Args:
        network: Trained on all clips, or where only one fold is judged on the others.
        info: Its record, with threshold and metrics, without a card.
        labels: One per class.
        clips: Those judged, in the order of ``targets`` and ``scores``.
        targets: (clip, class).
        scores: Each from the network that did not train on the clip's fold, (clip, class); where the recipe
            says so calibrated, by what the clips of other folds say.
        quiet: Highest score of each clip without labels, from the network to ship, by group.
        calibrated: From scores to probabilities, fitted to all judged clips; None where none was asked for.
    """

    network: Network
    info: ModelInfo
    clips: tuple[Clip, ...]
    targets: Scores
    scores: Scores
    quiet: Mapping[str, Scores]
    calibrated: CalibrationResult | None = None


def run_folder(folder: Path, fold: int | None) -> Path:
    """Where the run of a fold lies; None: of the network trained on all clips."""
    return folder / fold_name(fold)


def cross_validate(recipe: Recipe, folder: Path, report: Report = lambda facts: None) -> Judgement:
    """Trains and judges every fold, trains on all clips if there are several, calibrates, chooses thresholds.

    Runs that are complete already are not repeated, so folds may be trained before, elsewhere or side by
    side.

    Args:
        recipe: Its ``data.folds`` says which folds are judged; none: nothing is.
        folder: Of the runs.
        report: Called with the facts of each step and epoch.

    Raises:
        EarmarkError: As :func:`earmark.training.trainer.train` does.
    """
    # Read first: a missing table or fold is to be found before hours of training.
    quiet_clips = _quiet_clips(recipe)
    require_teachers(recipe.teacher, recipe.runs)
    require_bases(recipe)
    clips = [clip for fold in recipe.data.folds for clip in split_clips(recipe, fold).judged]
    if recipe.evaluation.calibration is not None:
        labels = split_clips(recipe, recipe.runs[-1]).labels
        require_classes_in_folds(labels, targets(clips, labels), calibration_folds(clips))
    scores: list[Scores] = []
    for fold in recipe.runs:
        report({"fold": fold})
        train(recipe, run_folder(folder, fold), fold, report)
        if fold is not None:
            scores.append(np.load(run_folder(folder, fold) / "scores.npy", allow_pickle=False))
    last = recipe.runs[-1]
    kept = "last" if last is None else recipe.evaluation.keep
    network, info = load_checkpoint(run_folder(folder, last) / f"{kept}.safetensors")
    return _judgement(recipe, network, info, clips, scores, quiet_clips)


def _judgement(
    recipe: Recipe,
    network: Network,
    info: ModelInfo,
    clips: Sequence[Clip],
    scores: Sequence[Scores],
    quiet_clips: Sequence[Clip],
) -> Judgement:
    """Calibrates, chooses thresholds, and enters what was found into the record."""
    truth = targets(clips, info.labels) if clips else np.zeros((0, len(info.labels)), np.float32)
    answered = np.concatenate(scores) if scores else truth
    words = {"description": recipe.description, "license": recipe.license, "source": recipe.source}
    info = info.changed(**words)  # the recipe's, as it is now
    evidence = CalibrationData.from_clip_scores(info.labels, recipe.task, answered, truth)
    if recipe.evaluation.calibration is not None:
        info = info.changed(calibration=fit(recipe.evaluation.calibration, evidence))
    quiet = quiet_scores(recipe, network, quiet_clips, info.calibration)
    lowest = negative_threshold(recipe, quiet)
    info = info.changed(threshold=lowest)
    if info.calibration is None:
        info = info.changed(metrics=summary(info, clips, truth, answered))
        return Judgement(network, info, tuple(clips), truth, answered, quiet)
    found = _calibrated(recipe, evidence, clips, lowest or 0.0)
    info = found.apply_to(info)
    answered = found.metrics.scores
    info = info.changed(metrics=summary(info, clips, truth, answered) | {"calibration": found.summary})
    return Judgement(network, info, tuple(clips), truth, answered, quiet, found)


def _calibrated(recipe: Recipe, evidence: CalibrationData, clips: Sequence[Clip], lowest: float) -> CalibrationResult:
    """The calibration and thresholds of a recipe; no threshold lies below the one that keeps quiet."""
    target = None if recipe.evaluation.threshold_target is None else ThresholdTarget.parse(recipe.evaluation.threshold_target)
    folds_of_clips = calibration_folds(clips)
    found = calibrate(evidence, recipe.evaluation.calibration, target, folds=folds_of_clips, min_threshold=lowest)
    folds = ", ".join(map(str, recipe.data.folds))
    return found.with_source({"clips": len(clips), "folds": folds})


def score_clips(recipe: Recipe, network: Network, clips: Sequence[Clip]) -> Scores:
    """Scores of clips from a network, windows and padding as the recipe says: (clip, class)."""
    front_end, behind = hearing(recipe, network)
    return predict(behind, front_end, clips_to_judge(recipe, clips), recipe.task)


def _quiet_clips(recipe: Recipe) -> list[Clip]:
    clips = [clip for path in recipe.evaluation.negative_manifests for clip in read_manifest(path)]
    named = [clip.path for clip in clips if clip.labels]
    if named:
        raise RecipeError(f"{named[0]}: evaluation.negative_manifests must list clips without labels only")
    return select(clips, recipe.evaluation.negative_filter)


def quiet_scores(
    recipe: Recipe, network: Network, clips: Sequence[Clip], calibration: Calibration | None = None
) -> dict[str, Scores]:
    """Highest score of each clip without labels, by the column that the recipe's ``evaluation.negative_group`` names."""
    if not clips:
        return {}
    scores = score_clips(recipe, network, clips)
    if calibration is not None:
        scores = CalibrationData.from_clip_scores((), recipe.task, scores, scores).scores(calibration)
    highest = scores.max(1)
    groups = np.array([clip.extra.get(recipe.evaluation.negative_group, "") for clip in clips])
    return {str(group): highest[groups == group] for group in np.unique(groups)}


def negative_threshold(recipe: Recipe, quiet: Mapping[str, Scores]) -> float | None:
    """The lowest threshold, in steps of 0.01 and not below the recipe's, that keeps every group quiet."""
    if not quiet:
        return None
    needed = [metrics.negative_threshold(scores[:, None], recipe.evaluation.max_false_positive_rate) for scores in quiet.values()]
    return max(recipe.evaluation.min_threshold, min(1.0, float(np.ceil(max(needed) * 100) / 100)))


def summary(info: ModelInfo, clips: Sequence[Clip], truth: Scores, scores: Scores) -> dict[str, Any]:
    """The scores that a record carries."""
    if not clips:
        return {}
    precision = metrics.average_precision(truth, scores)
    found: dict[str, Any] = {
        "clips": len(clips),
        "folds": sorted({clip.fold for clip in clips}),
        "accuracy": metrics.accuracy(truth, scores),
        "map_macro": metrics.macro(precision),
        "log_loss": metrics.log_loss(truth, scores),
        "binary_log_loss": metrics.binary_log_loss(truth, scores),
    }
    if isinstance(info.threshold, int | float):  # what thresholds of each label bring is cross-fitted
        found["recall_at_threshold_macro"] = metrics.macro(metrics.recall(truth, scores, info.threshold))
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
