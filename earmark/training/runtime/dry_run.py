"""A dry run: the cost of the network, the clips, the steps and the duration of a recipe.

Conventions: a few steps of the training are run in a temporary folder, so whatever would end a run at its
start is found here.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from earmark.evaluation.complexity.network_cost import Cost, measure
from earmark.models.registry import create_model
from earmark.training.config.recipe import Recipe
from earmark.training.splits import Split, split_clips, steps_per_epoch
from earmark.training.trainer import train_network

STEPS = 4
"""Steps that are run; the first is a warm-up and not timed."""
_LABELS_SHOWN = 24


@dataclass(frozen=True)
class DryRun:
    """The size and duration of a recipe.

    Args:
        recipe: With every default.
        cost: Of the network, for one window.
        splits: One per run, by the evaluated fold; None: the run on all clips.
        seconds_per_step: As measured, averaged over the training.
    """

    recipe: Recipe
    cost: Cost
    splits: Mapping[int | None, Split]
    seconds_per_step: float

    def summary(self) -> str:
        """A few lines of text."""
        return "\n".join([self._cost(), *self._clips(), *self._steps()])

    def _cost(self) -> str:
        cost, recipe = self.cost, self.recipe
        return (
            f"{recipe.model.architecture}: {cost.parameters / 1e6:.3f} M parameters; a window of "
            f"{recipe.window_s:g} s takes {cost.macs / 1e6:.4g} M multiply-accumulate operations and up to "
            f"{cost.peak_memory_kb:g} kB of feature maps in 16 bits"
        )

    def _clips(self) -> list[str]:
        split = list(self.splits.values())[-1]
        shown = ", ".join(split.labels[:_LABELS_SHOWN])
        more = len(split.labels) - _LABELS_SHOWN
        lines = [f"{len(split.labels)} labels: {shown}" + (f" and {more} more" if more > 0 else "")]
        for source, group in zip(self.recipe.data.sources, split.groups, strict=True):
            folds = sorted(Counter(clip.fold for clip in group).items())
            by_fold = ", ".join(f"fold {fold}: {count}" for fold, count in folds)
            lines.append(f"{source.title}: {len(group)} training clips ({by_fold or 'none'})")
        return lines

    def _steps(self) -> list[str]:
        epochs, lines, seconds = self.recipe.optimizer.epochs, [], 0.0
        for fold, split in self.splits.items():
            steps = steps_per_epoch(self.recipe, split)
            took = epochs * steps * self.seconds_per_step
            seconds += took
            name = "all clips" if fold is None else f"without fold {fold}"
            evaluated = f", {len(split.evaluated)} evaluation clips" if split.evaluated else ""
            lines.append(
                f"{name}: {sum(map(len, split.groups))} training clips{evaluated}; {steps} steps per epoch, "
                f"{epochs * steps} in {epochs} epochs, about {_duration(took)}"
            )
        return [
            *lines,
            f"{self.seconds_per_step:.3g} s per step: about {_duration(seconds)} in total, "
            "without evaluation",
        ]


def dry_run(recipe: Recipe, fold: int | None = None) -> DryRun:
    """Computes the size of a recipe, and runs a few of its steps.

    Args:
        recipe: The recipe.
        fold: The run of this fold only; None: all runs of the cross-validation.

    Raises:
        EarmarkError: As :func:`earmark.training.trainer.train_network`.
    """
    folds = recipe.runs if fold is None else (fold,)
    splits = {one: split_clips(recipe, one) for one in folds}
    with torch.device("meta"):
        labels = splits[folds[-1]].labels
        network = create_model(recipe.model.architecture, num_classes=len(labels), **recipe.model.arguments)
    front_end = recipe.front_end
    cost = measure(network, front_end.n_mels, front_end.num_frames(recipe.window_length))
    return DryRun(recipe, cost, splits, _seconds_per_step(recipe, folds[-1]))


def _seconds_per_step(recipe: Recipe, fold: int | None) -> float:
    augment = recipe.augment
    if not augment.crop_s or augment.crop_epoch_fraction == 1:
        return _timed(recipe, fold)
    whole = recipe.model_copy(update={"augment": augment.model_copy(update={"crop_s": 0.0})})
    return augment.crop_epoch_fraction * _timed(recipe, fold) + (1 - augment.crop_epoch_fraction) * _timed(
        whole, fold
    )


class _EnoughError(Exception):
    """Enough steps were timed."""


def _timed(recipe: Recipe, fold: int | None) -> float:
    """Median duration of a step, in seconds."""
    # Fitting a probe would take far longer than the steps.
    teachers = tuple(teacher.model_copy(update={"probe_weight": 0.0}) for teacher in recipe.teacher)
    recipe = recipe.model_copy(update={"teacher": teachers})
    moments, steps = [time.monotonic()], [0]

    def progress(facts: Mapping[str, Any]) -> None:
        if "step" in facts:
            moments.append(time.monotonic())
            steps.append((facts["epoch"] - 1) * facts["steps"] + facts["step"])
        if len(moments) > STEPS:
            raise _EnoughError

    with tempfile.TemporaryDirectory() as folder, suppress(_EnoughError):
        data = recipe.data.model_copy(update={"cache_folder": Path(folder) / "clips"})
        train_network(recipe.model_copy(update={"data": data}), Path(folder) / "run", fold, progress)
    # On a GPU, many steps are reported at once.
    spans = [
        (later - earlier) / (to - since)
        for (earlier, later), (since, to) in zip(pairwise(moments), pairwise(steps), strict=True)
    ]
    return median(spans[1:] or spans)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
