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
from earmark.evaluate import metrics
from earmark.evaluate.predict import predict
from earmark.models.checkpoint import load_checkpoint
from earmark.models.network import Network
from earmark.record import Record
from earmark.train.loop import Report, train
from earmark.train.recipe import Recipe
from earmark.train.sources import clips_to_judge, hearing, split_clips
from earmark.train.teacher import require_teachers

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Judgement:
    """What cross-validation found, and the network to ship.

    Args:
        network: Trained on all clips.
        record: Its record, with threshold and metrics, without a card.
        labels: One per class.
        clips: Those judged, in the order of ``targets`` and ``scores``.
        targets: (clip, class).
        scores: Each from the network that did not train on the clip's fold, (clip, class).
        quiet: Highest score of each clip without labels, from the network to ship, by group.
    """

    network: Network
    record: Record
    clips: tuple[Clip, ...]
    targets: Scores
    scores: Scores
    quiet: Mapping[str, Scores]


def run_folder(folder: Path, fold: int | None) -> Path:
    """Where the run of a fold lies; None: of the network trained on all clips."""
    return folder / ("all" if fold is None else f"fold{fold}")


def cross_validate(recipe: Recipe, folder: Path, report: Report = lambda facts: None) -> Judgement:
    """Trains and judges every fold, trains on all clips, and chooses the threshold.

    Runs that are complete already are not repeated, so folds may be trained before, elsewhere or side by
    side.

    Args:
        recipe: Its ``data.folds`` says which folds are judged; none: nothing is.
        folder: Of the runs.
        report: Called with the facts of each step and epoch.

    Raises:
        EarmarkError: As :func:`earmark.train.loop.train` does.
    """
    # Read first: a missing table or fold is to be found before hours of training.
    quiet_clips = _quiet_clips(recipe)
    require_teachers(recipe.teacher, (*recipe.data.folds, None))
    clips = [clip for fold in recipe.data.folds for clip in split_clips(recipe, fold).judged]
    scores: list[Scores] = []
    for fold in recipe.data.folds:
        report({"fold": fold})
        train(recipe, run_folder(folder, fold), fold, report)
        scores.append(np.load(run_folder(folder, fold) / "scores.npy", allow_pickle=False))
    report({"fold": None})
    train(recipe, run_folder(folder, None), None, report)
    network, record = load_checkpoint(run_folder(folder, None) / "last.safetensors")
    quiet = quiet_scores(recipe, network, quiet_clips)
    truth = targets(clips, record.labels) if clips else np.zeros((0, len(record.labels)), np.float32)
    answered = np.concatenate(scores) if scores else truth
    words = {"description": recipe.description, "license": recipe.license, "source": recipe.source}
    record = record.changed(threshold=quiet_threshold(recipe, quiet), **words)  # the recipe's, as it is now
    record = record.changed(metrics=summary(record, clips, truth, answered))
    return Judgement(network, record, tuple(clips), truth, answered, quiet)


def score_clips(recipe: Recipe, network: Network, clips: Sequence[Clip]) -> Scores:
    """Scores of clips from a network, windows and padding as the recipe says: (clip, class)."""
    front_end, behind = hearing(recipe, network)
    return predict(behind, front_end, clips_to_judge(recipe, clips), recipe.task)


def _quiet_clips(recipe: Recipe) -> list[Clip]:
    clips = [clip for path in recipe.judge.quiet_manifests for clip in read_manifest(path)]
    named = [clip.path for clip in clips if clip.labels]
    if named:
        raise RecipeError(f"{named[0]}: judge.quiet_manifests must list clips without labels only")
    return select(clips, recipe.judge.quiet_on)


def quiet_scores(recipe: Recipe, network: Network, clips: Sequence[Clip]) -> dict[str, Scores]:
    """Highest score of each clip without labels, by the column that the recipe's ``judge.quiet_by`` names."""
    if not clips:
        return {}
    highest = score_clips(recipe, network, clips).max(1)
    groups = np.array([clip.extra.get(recipe.judge.quiet_by, "") for clip in clips])
    return {str(group): highest[groups == group] for group in np.unique(groups)}


def quiet_threshold(recipe: Recipe, quiet: Mapping[str, Scores]) -> float | None:
    """The lowest threshold, in steps of 0.01 and not below the recipe's, that keeps every group quiet."""
    if not quiet:
        return None
    needed = [metrics.quiet_threshold(scores[:, None], recipe.judge.quiet_share) for scores in quiet.values()]
    return max(recipe.judge.lowest_threshold, min(1.0, float(np.ceil(max(needed) * 100) / 100)))


def summary(record: Record, clips: Sequence[Clip], truth: Scores, scores: Scores) -> dict[str, Any]:
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
    if record.threshold is not None:
        found["recall_at_threshold_macro"] = metrics.macro(metrics.recall(truth, scores, record.threshold))
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
