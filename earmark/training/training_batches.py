"""Training batches of a run: sampling, loading and augmentation.

Conventions: a batch is features (batch, mel, frame), or (2 batch, mel, frame) in contrastive pretraining,
labels (batch, class) and teacher targets (batch, column); every draw is a function of (seed, epoch, step).
The samplers of ``torch.utils.data`` cannot resume within an epoch or draw from several sources, so
:mod:`earmark.data.dataset` lists the batches of an epoch and
:mod:`~earmark.training.runtime.batch_loader` loads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, starmap
from typing import Any

from torch import Tensor, nn

from earmark.data.dataset import epoch_batches
from earmark.training.batch import Augmentation
from earmark.training.config.recipe import Recipe
from earmark.training.contrastive import CropPairs
from earmark.training.distill.teacher_targets import TeacherTargets
from earmark.training.losses import balanced_weights
from earmark.training.runtime.batch_loader import BatchLoader
from earmark.training.runtime.devices import Batch, Devices, Keys
from earmark.training.runtime.skipped_clips import SkippedClips
from earmark.training.splits import Split, epoch_draws, steps_per_epoch, training_dataset

Augmented = tuple[Tensor, Tensor, Tensor]
"""Features, labels and teacher targets."""


class TrainingBatches:
    """The training batches of a run.

    Args:
        recipe: Of the run.
        split: Its clips.
        front_end: In PyTorch, on the device.
        teacher_targets: Of the run.
        devices: Device and rank of this process.
        progress: Called for each clip that cannot be read.

    Raises:
        RecipeError: If the batch does not divide among the processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        split: Split,
        front_end: nn.Module,
        teacher_targets: TeacherTargets,
        devices: Devices,
        progress: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self.recipe, self.split, self.devices = recipe, split, devices
        self.teacher_targets = teacher_targets
        self.augmentation = Augmentation(recipe, front_end, devices.device)
        self.pairs = CropPairs(recipe, front_end, devices.device) if recipe.contrastive else None
        self.data = training_dataset(recipe, split)
        self.loader = BatchLoader(self.data, recipe.data.workers, devices.pin_memory)
        self.skipped = SkippedClips(self.loader, recipe.data.max_bad_fraction, progress)
        self.draws = epoch_draws(recipe, split)
        self.steps = steps_per_epoch(recipe, split)
        """Batches in an epoch."""
        self.batch_size = len(self.clip_keys(0)[0])
        """Clips in a batch, over all processes."""
        devices.require_divisible(self.batch_size)

    def class_weights(self) -> Tensor | None:
        """Weights (class,) of the loss, or None."""
        if self.recipe.loss.class_weights == "none":
            return None
        return self.devices.move(balanced_weights(self.data.targets.nan_to_num().sum(0)))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Augmented]:
        """The batches of an epoch, from a step on, on the device of this process."""
        seed = self.recipe.seed
        # No generator function: the loader draws from PyTorch's generator as soon as it is iterated.
        loaded = self._load(self.clip_keys(epoch)[first_step:])
        return (
            self.augment(batch, [seed, epoch, step], epoch)
            for step, batch in zip(count(first_step), loaded, strict=False)
        )

    def labelled_passes(self, passes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Labels and teacher targets of augmented batches of whole windows of the labelled clips."""
        settings = self.recipe.optimizer
        labelled = [
            draw if group and group[0].labelled else replace(draw, count=0)
            for group, draw in zip(self.split.groups, self.draws, strict=True)
        ]
        for number in range(passes):
            seed = (self.recipe.seed, number, 1)
            batches = list(epoch_batches(labelled, settings.batch_size, seed))
            self.devices.require_divisible(len(batches[0]))
            for step, batch in enumerate(self._load(batches)):
                _, labels, tables = self.augment(batch, [*seed, step], settings.epochs)
                yield self.devices.gather(labels), self.devices.gather(tables)

    def clip_keys(self, epoch: int) -> list[Keys]:
        """Position and crop seed of the clips in each global batch of an epoch."""
        recipe = self.recipe
        return list(epoch_batches(self.draws, recipe.optimizer.batch_size, (recipe.seed, epoch)))

    def _load(self, batches: Sequence[Keys]) -> Iterator[Batch]:
        """This process's rows of batches, on its device, with unreadable clips replaced."""
        own = [self.devices.own_rows(batch) for batch in batches]
        return self.devices.prefetch(starmap(self.skipped, zip(own, self.loader.load(own), strict=True)))

    def augment(self, batch: Batch, seed: Sequence[int], epoch: int) -> Augmented:
        """Features, labels and teacher targets of a batch on the device; draws follow from the seed."""
        keys, (waveforms, labels) = batch
        stored = self.devices.move(self.teacher_targets.stored([clip for clip, _ in keys]))
        generator = self.devices.generator(seed, len(keys))
        if self.pairs is not None:
            return self.pairs(waveforms, generator), labels, stored
        return self.augmentation(waveforms, labels, generator, epoch, stored, self.teacher_targets.computed)
