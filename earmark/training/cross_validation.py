"""Cross-validation: one network per fold, evaluated on the fold, and a final network trained on all clips.

Conventions: the runs are in ``folder/fold1``, ``folder/fold2``, ... and ``folder/all``; scores are pooled
over the folds, so each clip of the folds is evaluated once. scikit-learn's splitters are not used: folds come
with the clips, since pieces of one recording belong together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earmark.data.manifest import Clip, read_manifest, select, targets
from earmark.errors import RecipeError
from earmark.evaluation import metrics
from earmark.evaluation.calibration.calibrate import (
    CalibrationResult,
    calibrate,
    calibration_folds,
    require_classes_in_folds,
)
from earmark.evaluation.calibration.data import CalibrationData
from earmark.evaluation.calibration.fit import fit
from earmark.evaluation.calibration.thresholds import ThresholdTarget
from earmark.evaluation.evaluation import main_metrics
from earmark.model_file.calibration import Calibration
from earmark.model_file.info import ModelInfo
from earmark.models.checkpoint import load_checkpoint
from earmark.models.network import Network
from earmark.training.config.recipe import Recipe
from earmark.training.config.section import fold_name
from earmark.training.distill.teacher_targets import require_teachers
from earmark.training.fold_evaluation import Scores, has_scores, score_clips
from earmark.training.initialization import require_initial_weights
from earmark.training.splits import split_clips
from earmark.training.trainer import Progress, train_network


@dataclass(frozen=True)
class CrossValidation:
    """The final network and the pooled scores.

    Args:
        network: Trained on all clips, or for a single fold on the other clips.
        info: Its model info, with threshold and metrics, without a model card.
        clips: Evaluation clips, in the order of ``targets`` and ``scores``.
        targets: (clip, class).
        scores: Of the network that did not train on the clip's fold, (clip, class); calibrated, if the recipe
            sets ``evaluation.calibration``, on the clips of other folds.
        negatives: Highest score of each negative clip, from the final network, by group.
        calibration: Fitted to all evaluation clips; None if not asked for.
    """

    network: Network
    info: ModelInfo
    clips: tuple[Clip, ...]
    targets: Scores
    scores: Scores
    negatives: Mapping[str, Scores]
    calibration: CalibrationResult | None = None


def run_folder(folder: Path, fold: int | None) -> Path:
    """The folder of a fold's run; None: of the run on all clips."""
    return folder / fold_name(fold)


def cross_validate(recipe: Recipe, folder: Path, progress: Progress = lambda facts: None) -> CrossValidation:
    """Trains and evaluates every fold, trains the final network, calibrates and chooses thresholds.

    Complete runs are not repeated, so folds may be trained earlier, elsewhere or in parallel.

    Args:
        recipe: Its ``data.folds`` are evaluated.
        folder: Of the runs.
        progress: Called with the facts of each step and each epoch.

    Raises:
        EarmarkError: As :func:`earmark.training.trainer.train_network`.
    """
    # First: whatever is missing is found before hours of training.
    negatives = _negative_clips(recipe)
    require_teachers(recipe.teacher, recipe.runs)
    require_initial_weights(recipe)
    scored_folds = recipe.data.folds if recipe.contrastive is None else ()
    clips = [clip for fold in scored_folds for clip in split_clips(recipe, fold).evaluated]
    if recipe.evaluation.calibration is not None:
        labels = split_clips(recipe, recipe.runs[-1]).labels
        require_classes_in_folds(labels, targets(clips, labels), calibration_folds(clips))
    scores: list[Scores] = []
    for fold in recipe.runs:
        progress({"fold": fold})
        train_network(recipe, run_folder(folder, fold), fold, progress)
        if fold in scored_folds:
            scores.append(np.load(run_folder(folder, fold) / "scores.npy", allow_pickle=False))
    final = recipe.runs[-1]
    kept = "last" if final is None else recipe.evaluation.keep
    network, info = load_checkpoint(run_folder(folder, final) / f"{kept}.safetensors")
    return _evaluate(recipe, network, info, clips, scores, negatives, progress)


def _evaluate(
    recipe: Recipe,
    network: Network,
    info: ModelInfo,
    clips: Sequence[Clip],
    fold_scores: Sequence[Scores],
    negative_clips: Sequence[Clip],
    progress: Progress,
) -> CrossValidation:
    """Calibrates, chooses thresholds, and adds metrics to the model info."""
    scores = np.concatenate([np.zeros((0, len(info.labels)), np.float32), *fold_scores])
    scores, clips = _scored(scores, clips)
    truth = targets(clips, info.labels)
    descriptions = {"description": recipe.description, "license": recipe.license, "source": recipe.source}
    info = info.changed(**descriptions)  # may have changed since the training
    data = CalibrationData.from_clip_scores(info.labels, recipe.task, scores, truth)
    method = recipe.evaluation.calibration
    if method is not None:
        info = info.changed(calibration=fit(method, data))
    negatives = negative_scores(recipe, network, negative_clips, info.calibration, progress)
    threshold = negative_threshold(recipe, negatives)
    if threshold is not None:
        rule = (
            f"at most {recipe.evaluation.max_false_positive_rate:.1%} of each kind of clip without any label"
        )
        info = info.changed(threshold=threshold, threshold_rule=rule)
    if method is None:
        info = info.changed(metrics=summary(info, clips, truth, scores))
        return CrossValidation(network, info, tuple(clips), truth, scores, negatives)
    result = _calibrate(recipe, data, clips, threshold or 0.0)
    info = result.apply_to(info)
    scores = result.metrics.scores
    info = info.changed(metrics=summary(info, clips, truth, scores) | {"calibration": result.summary})
    return CrossValidation(network, info, tuple(clips), truth, scores, negatives, result)


def _scored(scores: Scores, clips: Sequence[Clip]) -> tuple[Scores, list[Clip]]:
    """The clips that could be read, and their scores."""
    kept = has_scores(scores)
    return scores[kept], [clip for clip, scored in zip(clips, kept, strict=True) if scored]


def _calibrate(
    recipe: Recipe, data: CalibrationData, clips: Sequence[Clip], min_threshold: float
) -> CalibrationResult:
    """Calibration and thresholds, none below the threshold of the negative clips."""
    assert recipe.evaluation.calibration is not None
    wanted = recipe.evaluation.threshold_target
    target = None if wanted is None else ThresholdTarget.parse(wanted)
    clip_folds = calibration_folds(clips)
    result = calibrate(
        data, recipe.evaluation.calibration, target, folds=clip_folds, min_threshold=min_threshold
    )
    folds = ", ".join(map(str, recipe.data.folds))
    return result.with_source({"clips": len(clips), "folds": folds})


def _negative_clips(recipe: Recipe) -> list[Clip]:
    clips = [clip for path in recipe.evaluation.negative_manifests for clip in read_manifest(path)]
    labelled = [clip.path for clip in clips if clip.labels]
    if labelled:
        raise RecipeError(f"{labelled[0]}: evaluation.negative_manifests must list clips without labels only")
    return select(clips, recipe.evaluation.negative_filter)


def negative_scores(
    recipe: Recipe,
    network: Network,
    clips: Sequence[Clip],
    calibration: Calibration | None = None,
    progress: Progress = lambda facts: None,
) -> dict[str, Scores]:
    """Highest score of each negative clip that can be read, by the column ``evaluation.negative_group``."""
    if not clips:
        return {}
    scores = score_clips(recipe, network, clips, progress)
    scores, clips = _scored(scores, clips)
    if calibration is not None:
        scores = CalibrationData.from_clip_scores((), recipe.task, scores, scores).scores(calibration)
    highest = scores.max(1)
    groups = np.array([clip.extra.get(recipe.evaluation.negative_group, "") for clip in clips])
    return {str(group): highest[groups == group] for group in np.unique(groups)}


def negative_threshold(recipe: Recipe, negatives: Mapping[str, Scores]) -> float | None:
    """The lowest threshold, in steps of 0.01, that keeps the false positive rate of every group."""
    if not negatives:
        return None
    settings = recipe.evaluation
    needed = [
        metrics.negative_threshold(scores[:, None], settings.max_false_positive_rate)
        for scores in negatives.values()
    ]
    return max(settings.min_threshold, min(1.0, float(np.ceil(max(needed) * 100) / 100)))


def summary(info: ModelInfo, clips: Sequence[Clip], truth: Scores, scores: Scores) -> dict[str, Any]:
    """The metrics of a model info."""
    if not clips:
        return {}
    values: dict[str, Any] = {
        "clips": len(clips),
        "folds": sorted({clip.fold for clip in clips}),
        **main_metrics(truth, scores, info.task),
    }
    if isinstance(info.threshold, int | float):  # thresholds per label are evaluated by the calibration
        values["recall_at_threshold_macro"] = metrics.macro(metrics.recall(truth, scores, info.threshold))
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
