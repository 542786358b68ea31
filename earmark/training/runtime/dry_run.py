"""What a recipe comes to before it is trained: its network's cost, its clips, its steps, and how long.

Conventions: some steps of the very training really run, in a folder that is removed again, so whatever would
stop a run at its start is found here.
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
from earmark.training.trainer import train

STEPS = 4
"""So many really run; the first, which warms everything up, is not timed."""
_LABELS_SHOWN = 24


@dataclass(frozen=True)
class Plan:
    """What a recipe comes to.

    Args:
        recipe: As it was resolved.
        cost: Of the network, for one window.
        splits: One per run, by the fold that it is judged on; None: judged on none.
        seconds_per_step: As measured, over the whole training.
    """

    recipe: Recipe
    cost: Cost
    splits: Mapping[int | None, Split]
    seconds_per_step: float

    def summary(self) -> str:
        """All of it for people, in a few lines."""
        return "\n".join([self._cost_in_words(), *self._clips_in_words(), *self._steps_in_words()])

    def _cost_in_words(self) -> str:
        cost, recipe = self.cost, self.recipe
        return (
            f"{recipe.model.architecture}: {cost.parameters / 1e6:.3f} M parameters; a window of "
            f"{recipe.window_s:g} s takes {cost.macs / 1e6:.4g} M multiply-grad_accum_steps operations and up to "
            f"{cost.peak_memory_kb:g} kB of feature maps in 16 bits"
        )

    def _clips_in_words(self) -> list[str]:
        split = list(self.splits.values())[-1]
        shown = ", ".join(split.labels[:_LABELS_SHOWN])
        more = len(split.labels) - _LABELS_SHOWN
        lines = [f"{len(split.labels)} labels: {shown}" + (f" and {more} more" if more > 0 else "")]
        for source, group in zip(self.recipe.data.sources, split.groups, strict=True):
            folds = sorted(Counter(clip.fold for clip in group).items())
            by_fold = ", ".join(f"fold {fold}: {count}" for fold, count in folds)
            lines.append(f"{source.title}: {len(group)} clips to train on ({by_fold or 'none'})")
        return lines

    def _steps_in_words(self) -> list[str]:
        epochs, lines, seconds = self.recipe.optimizer.epochs, [], 0.0
        for fold, split in self.splits.items():
            steps = steps_per_epoch(self.recipe, split)
            took = epochs * steps * self.seconds_per_step
            seconds += took
            name = "all clips" if fold is None else f"without fold {fold}"
            judged = f", {len(split.judged)} to judge by" if split.judged else ""
            lines.append(
                f"{name}: {sum(map(len, split.groups))} clips to train on{judged}; {steps} steps an epoch, "
                f"{epochs * steps} in {epochs} epochs, about {_in_words(took)}"
            )
        return [
            *lines,
            f"{self.seconds_per_step:.3g} s a step: about {_in_words(seconds)} in all, judging not counted",
        ]


def plan(recipe: Recipe, fold: int | None = None) -> Plan:
    """Works out what a recipe comes to, and runs a few of its steps.

    Args:
        recipe: What would be done.
        fold: Plan for the run of this fold only; None: for all that cross-validation takes.

    Raises:
        EarmarkError: As :func:`earmark.training.trainer.train` does.
    """
    folds = recipe.runs if fold is None else (fold,)
    splits = {one: split_clips(recipe, one) for one in folds}
    with torch.device("meta"):
        labels = splits[folds[-1]].labels
        network = create_model(recipe.model.architecture, num_classes=len(labels), **recipe.model.arguments)
    front_end = recipe.front_end
    cost = measure(network, front_end.n_mels, front_end.num_frames(recipe.window_length))
    return Plan(recipe, cost, splits, _seconds_per_step(recipe, folds[-1]))


def _seconds_per_step(recipe: Recipe, fold: int | None) -> float:
    augment = recipe.augment
    if not augment.crop_s or augment.crop_epoch_fraction == 1:
        return _timed(recipe, fold)
    whole = recipe.model_copy(update={"augment": augment.model_copy(update={"crop_s": 0.0})})
    return augment.crop_epoch_fraction * _timed(recipe, fold) + (1 - augment.crop_epoch_fraction) * _timed(whole, fold)


class _EnoughError(Exception):
    """So many steps ran as were to be timed."""


def _timed(recipe: Recipe, fold: int | None) -> float:
    """Median of the steps that ran, in seconds."""
    # A probe would take far longer to fit than the steps.
    teachers = tuple(teacher.model_copy(update={"probe_weight": 0.0}) for teacher in recipe.teacher)
    recipe = recipe.model_copy(update={"teacher": teachers})
    moments, steps = [time.monotonic()], [0]

    def report(facts: Mapping[str, Any]) -> None:
        if "step" in facts:
            moments.append(time.monotonic())
            steps.append((facts["epoch"] - 1) * facts["steps"] + facts["step"])
        if len(moments) > STEPS:
            raise _EnoughError

    with tempfile.TemporaryDirectory() as folder, suppress(_EnoughError):
        train(recipe, Path(folder), fold, report)
    # A GPU tells of many steps at once.
    spans = [
        (later - earlier) / (to - since)
        for (earlier, later), (since, to) in zip(pairwise(moments), pairwise(steps), strict=True)
    ]
    return median(spans[1:] or spans)


def _in_words(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
