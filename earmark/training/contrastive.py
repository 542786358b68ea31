"""Contrastive pretraining: a network learns from clips without labels, by telling their crops apart.

Two crops of a clip are its *anchor* and its *positive*; the other clips of the batch are the negatives. The
network's classification head is not trained, and the head of this module is dropped after training.

Conventions: rows of a batch alternate: anchor and positive of the first clip, then of the second, ..., so
features are (2 batch, mel, frame) and embeddings (2 batch, channel).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.data import augment
from earmark.data.dataset import ClipGroup, epoch_batches
from earmark.models.network import Network
from earmark.training.batch import Augmentation
from earmark.training.config.contrastive import Contrastive
from earmark.training.config.recipe import Recipe
from earmark.training.runtime.batch_loader import BatchLoader
from earmark.training.runtime.devices import Devices
from earmark.training.runtime.skipped_clips import SkippedClips
from earmark.training.splits import Split, clip_dataset, split_network


class ContrastiveHead(nn.Module):
    """Projects embeddings, and compares each anchor with the positives of a batch.

    Source: COLA (Saeed et al., arXiv:2010.10915): linear layer, layer norm, tanh and a bilinear similarity;
    SimCLR (Chen et al., arXiv:2002.05709): cosine similarity over a temperature. Both as in audax, whose
    SimCLR projects by one linear layer.

    Args:
        settings: The table ``contrastive`` of a recipe.
        embedding_size: Channels of the embeddings.
    """

    def __init__(self, settings: Contrastive, embedding_size: int) -> None:
        super().__init__()
        self.settings, size = settings, settings.projection_size
        self.projection = nn.Linear(embedding_size, size, bias=False)
        if settings.kind == "cola":
            self.norm = nn.LayerNorm(size)
            self.bilinear = nn.Linear(size, size, bias=False)

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Compares the rows of a batch.

        Args:
            embeddings: (2 batch, channel).

        Returns:
            Similarities (row, candidate) and the position of each row's positive among them, (row,). COLA
            has a row for each anchor, and all positives as candidates; SimCLR a row for each crop, and all
            crops as candidates, itself at minus infinity.
        """
        projected = self.projection(embeddings)
        rows = torch.arange(len(embeddings), device=embeddings.device)
        if self.settings.kind == "cola":
            projected = torch.tanh(self.norm(projected))
            anchors, positives = projected[0::2], projected[1::2]
            return anchors @ self.bilinear(positives).T, rows[: len(anchors)]
        projected = functional.normalize(projected, dim=-1)
        similarities = projected @ projected.T / self.settings.temperature
        # The partner of an even row is the next one, of an odd row the one before.
        return similarities.masked_fill(rows[:, None] == rows, -math.inf), rows ^ 1


def contrastive_loss(similarities: Tensor, positives: Tensor) -> Tensor:
    """Cross-entropy of each row's similarities against its positive, a mean over rows.

    Source: COLA, equation 2; for SimCLR the NT-Xent loss, equation 1.
    """
    return functional.cross_entropy(similarities, positives)


class CropPairs:
    """Features of an anchor and a positive for each clip of a batch.

    Args:
        recipe: Its ``contrastive.crop_s``, and ``augment``, which applies to the positives.
        front_end: In PyTorch, on the device.
        device: Of the waveforms.
    """

    def __init__(self, recipe: Recipe, front_end: nn.Module, device: torch.device | str = "cpu") -> None:
        assert recipe.contrastive is not None
        self.front_end = front_end
        self.length = round(recipe.contrastive.crop_s * recipe.front_end.sample_rate)
        self.augmentation = Augmentation(recipe, front_end, device)

    def __call__(self, waveforms: Tensor, generator: np.random.Generator, augmented: bool = True) -> Tensor:
        """Crops twice at random.

        Args:
            waveforms: (batch, time), at least as long as a crop.
            generator: Of all draws.
            augmented: Whether to augment the positives.

        Returns:
            (2 batch, mel, frame).
        """
        anchors = self.front_end(self._crop(waveforms, generator))
        positives = self._crop(waveforms, generator)
        if augmented:
            unlabelled = waveforms.new_full((len(waveforms), 1), torch.nan)
            features, _, _ = self.augmentation(positives, unlabelled, generator)
        else:
            features = self.front_end(positives)
        return torch.stack([anchors, features], 1).flatten(0, 1)

    def _crop(self, waveforms: Tensor, generator: np.random.Generator) -> Tensor:
        return augment.crop(waveforms, self.length, generator, candidates=1)


class ContrastiveEvaluation:
    """Evaluates a network and its contrastive head on the evaluation clips of a run.

    The crops and the batches are the same in every epoch, and nothing is augmented. Each process evaluates
    all clips.

    Args:
        recipe: Of the run.
        split: Its clips.
        head: Compares embeddings.
        devices: Device and rank of this process.
        progress: Called for each clip that cannot be read.
    """

    def __init__(
        self,
        recipe: Recipe,
        split: Split,
        head: nn.Module,
        devices: Devices,
        progress: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self.recipe, self.head, self.devices = recipe, head, devices
        data = clip_dataset(recipe, split.evaluated, split.labels)
        self.loader = BatchLoader(data, recipe.data.workers, devices.pin_memory)
        self.skipped = SkippedClips(self.loader, recipe.data.max_bad_fraction, progress)

    @torch.no_grad()
    def __call__(self, network: Network, best: float) -> dict[str, float]:
        """Computes the loss, and how often the positive is the most similar candidate.

        Args:
            network: In any mode; left in evaluation mode.
            best: Not used: no scores are stored.

        Returns:
            ``contrastive_loss`` and ``contrastive_accuracy``, means over batches.

        Raises:
            AudioError: If more clips cannot be read than the recipe allows.
        """
        front_end, behind = split_network(self.recipe, network.eval())
        pairs = CropPairs(self.recipe, front_end.to(self.devices.device))
        group, size = ClipGroup(len(self.loader)), self.recipe.optimizer.batch_size
        batches = list(epoch_batches([group], size, (self.recipe.seed,)))
        found = []
        for step, (keys, clips) in enumerate(zip(batches, self.loader.load(batches), strict=True)):
            _, (waveforms, _) = self.skipped(keys, clips)
            generator = np.random.default_rng([self.recipe.seed, step])
            features = pairs(self.devices.move(waveforms), generator, augmented=False)
            similarities, positives = self.head(behind(features).embedding.float())
            correct = (similarities.argmax(-1) == positives).float().mean()
            found.append((float(contrastive_loss(similarities, positives)), float(correct)))
        loss, accuracy = np.mean(found, 0)
        return {"contrastive_loss": float(loss), "contrastive_accuracy": float(accuracy)}
