"""Evaluation of a network on the clips of its fold, and scores of any clips with a recipe's windows.

Conventions: scores are (clip, class); several processes share the clips, and the main process writes
``scores.npy``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip, targets
from earmark.evaluation import metrics
from earmark.evaluation.network_predictions import predict_windows
from earmark.model_file.atomic import write_atomically
from earmark.models.network import Network
from earmark.training.config.recipe import Recipe
from earmark.training.runtime.devices import Devices
from earmark.training.splits import Split, evaluation_windows, split_network

Scores = NDArray[np.float32]


class FoldEvaluation:
    """Evaluates a network on the evaluation clips of a run.

    Args:
        recipe: Of the run.
        split: Its clips.
        devices: Device and rank of this process.
        folder: Run folder.
    """

    def __init__(self, recipe: Recipe, split: Split, devices: Devices, folder: Path) -> None:
        self.recipe, self.split, self.devices, self.folder = recipe, split, devices, folder
        self._cached: list[tuple[int, Scores]] | None = None

    def __call__(self, network: Network, best: float) -> dict[str, float]:
        """Computes metrics, and stores the scores if this epoch is kept.

        Args:
            network: In any mode; left in evaluation mode.
            best: Highest macro mAP of the epochs before.

        Returns:
            ``accuracy``, ``map_macro`` and ``log_loss``.
        """
        scores = self._scores(network)
        truth = targets(self.split.evaluated, self.split.labels)
        mean_ap = metrics.macro(metrics.average_precision(truth, scores))
        kept = self.recipe.evaluation.keep == "last" or mean_ap > best
        if kept and self.devices.is_main:
            stored = io.BytesIO()
            np.save(stored, scores)
            write_atomically(self.folder / "scores.npy", stored.getvalue())
        return {
            "accuracy": metrics.accuracy(truth, scores),
            "map_macro": mean_ap,
            "log_loss": metrics.log_loss(truth, scores),
        }

    def _scores(self, network: Network) -> Scores:
        clips = self.devices.own_items(self.split.evaluated)
        windows = self._cached or evaluation_windows(self.recipe, clips)
        if self.recipe.data.cache:
            windows = self._cached = list(windows)
        own = np.zeros((0, len(self.split.labels)), np.float32)
        if clips:
            front_end, behind = split_network(self.recipe, network)
            own = predict_windows(behind, front_end.to(self.devices.device), windows, self.recipe.task)
        return self.devices.gather_items(own, len(self.split.evaluated))


def score_clips(recipe: Recipe, network: Network, clips: Sequence[Clip]) -> Scores:
    """Scores (clip, class) of a network, with the windows and padding of a recipe."""
    front_end, behind = split_network(recipe, network)
    return predict_windows(behind, front_end, evaluation_windows(recipe, clips), recipe.task)
