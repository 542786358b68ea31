"""Evaluation of a network on the clips of its fold, and scores of any clips with a recipe's windows.

Conventions: scores are (clip, class); several processes share the clips, and the main process writes
``scores.npy``. A clip that cannot be read has NaN there, and takes part in no metric.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.data.clip_cache import CachedClips
from earmark.data.manifest import Clip, targets
from earmark.evaluation.evaluation import main_metrics
from earmark.evaluation.network_predictions import predict_windows
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import Task
from earmark.models.network import Network
from earmark.training.config.recipe import Recipe
from earmark.training.runtime.devices import Devices
from earmark.training.runtime.skipped_clips import UnreadableClips
from earmark.training.splits import Split, clip_cache, evaluation_windows, split_network

Scores = NDArray[np.float32]
Progress = Callable[[Mapping[str, Any]], object]


class FoldEvaluation:
    """Evaluates a network on the evaluation clips of a run.

    Args:
        recipe: Of the run.
        split: Its clips.
        devices: Device and rank of this process.
        folder: Run folder.
        progress: Called for each clip that cannot be read.
    """

    def __init__(
        self, recipe: Recipe, split: Split, devices: Devices, folder: Path, progress: Progress
    ) -> None:
        self.recipe, self.split, self.devices, self.folder = recipe, split, devices, folder
        limit = recipe.data.max_bad_fraction
        self._unreadable = UnreadableClips(len(split.evaluated), "evaluation clips", limit, progress)
        own = devices.own_items(split.evaluated)
        self._clips = CachedClips(own, recipe.front_end.sample_rate, clip_cache(recipe))

    def __call__(self, network: Network, best: float) -> dict[str, float]:
        """Computes metrics, and stores the scores if this epoch is kept.

        Args:
            network: In any mode; left in evaluation mode.
            best: Highest :func:`epoch_score` of the epochs before.

        Returns:
            Those of :func:`earmark.evaluation.evaluation.main_metrics`.

        Raises:
            AudioError: If more clips cannot be read than the recipe allows.
        """
        stored_scores = self._scores(network)
        scored = has_scores(stored_scores)
        truth, scores = targets(self.split.evaluated, self.split.labels)[scored], stored_scores[scored]
        found = main_metrics(truth, scores, self.recipe.task)
        kept = self.recipe.evaluation.keep == "last" or epoch_score(found, self.recipe.task) > best
        if kept and self.devices.is_main:
            stored = io.BytesIO()
            np.save(stored, stored_scores)
            write_atomically(self.folder / "scores.npy", stored.getvalue())
        return found

    def _scores(self, network: Network) -> Scores:
        clips = self._clips.clips
        own = np.zeros((0, len(self.split.labels)), np.float32)
        if clips:
            windows = evaluation_windows(self.recipe, self._clips, self._note)
            front_end, behind = split_network(self.recipe, network)
            front_end = front_end.to(self.devices.device)
            own = predict_windows(behind, front_end, windows, self.recipe.task, num_clips=len(clips))
        return self.devices.gather_items(own, len(self.split.evaluated))

    def _note(self, index: int, reason: str) -> None:
        self._unreadable.add(index, lambda _: reason)


def epoch_score(found: Mapping[str, Any], task: Task) -> float:
    """The score that the best epoch has the most of; minus infinity if it was not evaluated.

    Source: audax and sound-clf-pytorch keep the epoch with the best accuracy of networks with one class per
    clip, audax that with the best mAP of others. In contrastive pretraining it is the accuracy of
    the positives.

    Args:
        found: Metrics of an epoch.
        task: Of the network.
    """
    if "contrastive_accuracy" in found:
        return float(found["contrastive_accuracy"])
    exclusive = task == "single_label" and "accuracy" in found
    return float(found.get("accuracy" if exclusive else "map_macro", -math.inf))


def has_scores(scores: Scores) -> NDArray[np.bool_]:
    """Which clips of scores (clip, class) could be read, shape (clip,)."""
    return np.asarray(~np.isnan(scores).all(1))


def score_clips(
    recipe: Recipe, network: Network, clips: Sequence[Clip], progress: Progress = lambda facts: None
) -> Scores:
    """Scores (clip, class) of a network, with the windows and padding of a recipe.

    Args:
        recipe: Of the network.
        network: On the CPU.
        clips: To score.
        progress: Called for each clip that cannot be read, which has NaN.

    Raises:
        AudioError: If more clips cannot be read than the recipe allows.
    """
    front_end, behind = split_network(recipe, network)
    unreadable = UnreadableClips(len(clips), "negative clips", recipe.data.max_bad_fraction, progress)
    cached = CachedClips(clips, recipe.front_end.sample_rate, clip_cache(recipe))
    windows = evaluation_windows(recipe, cached, lambda index, why: unreadable.add(index, lambda _: why))
    return predict_windows(behind, front_end, windows, recipe.task, num_clips=len(clips))
