"""Clips as waveforms of one length with their targets, and the batches of an epoch.

Conventions: a waveform is mono float32 (time,) at the front-end's rate, exactly one window long: a random
piece of longer clips; shorter ones are padded behind, or at a random place. Draws follow from a seed and
NumPy alone, so that a run resumes at any step and is the same on several devices; torch's
``WeightedRandomSampler`` has a state to store, draws otherwise, and does not read shard by shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from earmark.audio import pad
from earmark.data.clip_cache import CachedClips, ClipCache
from earmark.data.manifest import Clip, targets
from earmark.data.shards.sampler import Integers, shuffled_by_shard
from earmark.errors import contained
from earmark.model_file.info import Padding

Batch = tuple[Tensor, Tensor]


class ClipDataset(Dataset[Batch]):
    """Waveforms and targets of clips.

    Args:
        clips: Clips to read.
        labels: One per class.
        sample_rate: Of the waveforms, in Hz.
        length: Of the waveforms, in samples.
        padding: Of shorter clips.
        cache: Folder of decoded clips; None: clips are decoded whenever they are read.
        tolerant: Return NaN for a clip that cannot be read.
        random_padding: Put shorter clips at a random place, with silence before and behind them.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[str],
        *,
        sample_rate: int,
        length: int,
        padding: Padding,
        cache: ClipCache | None = None,
        tolerant: bool = False,
        random_padding: bool = False,
    ) -> None:
        self.clips = list(clips)
        self.targets = torch.from_numpy(targets(clips, labels))
        self.sample_rate = sample_rate
        self.length = length
        self.padding: Padding = padding
        self.tolerant = tolerant
        self.random_padding = random_padding
        self._clips = CachedClips(self.clips, sample_rate, cache)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """A random piece of a clip.

        Args:
            key: Index of the clip, and the seed of the piece, or of the place of a shorter clip.

        Returns:
            Waveform (time,) and targets (class,).

        Raises:
            EarmarkError: If the clip cannot be read, unless ``tolerant``.
        """
        index, seed = key
        try:
            waveform = self._clips.read_piece(index, self.length, partial(_start, seed))
        except Exception as error:
            if not self.tolerant:
                raise contained(error, str(self.clips[index].path)) from None
            return self.unreadable(index)
        if self.random_padding and len(waveform) < self.length:
            before = _start(seed, self.length - len(waveform))
            waveform = np.concatenate([np.zeros(before, np.float32), waveform])
        return torch.from_numpy(pad(waveform, self.length, self.padding)), self.targets[index]

    def unreadable(self, index: int) -> Batch:
        """NaN and the targets of a clip, where it cannot be read."""
        return torch.full((self.length,), torch.nan), self.targets[index]

    def reason(self, index: int) -> str:
        """The reason why a clip cannot be read; it is read again."""
        try:
            self._clips.read(index)
        except Exception as error:
            return str(contained(error, str(self.clips[index].path)))
        return f"{self.clips[index].path}: {self.clips[index].id} could not be read before, but can be now"


def _start(seed: int, excess: int) -> int:
    """First sample of a random piece."""
    return int(np.random.default_rng(seed).integers(0, excess + 1))


@dataclass(frozen=True)
class ClipGroup:
    """A group of clips, and how an epoch samples it: without replacement.

    Args:
        size: Clips of the group.
        count: Clips of an epoch; None: all.
        weights: Sampling weights, (clip,), above 0; None: uniform.
        shards: Shard of each clip, (clip,), to read shard by shard; None: in any order.
        shuffle_distance: How far clips are shuffled within that order.
    """

    size: int
    count: int | None = None
    weights: NDArray[np.float64] | None = None
    shards: Integers | None = None
    shuffle_distance: int = 0

    def positions(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """The sampled clips, in random order."""
        if self.weights is None:
            return generator.permutation(self.size)[: self.count]
        count = self.size if self.count is None else min(self.count, self.size)
        chances = self.weights / self.weights.sum()
        return np.asarray(generator.choice(self.size, count, replace=False, p=chances))


def sampling_weights(table: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sampling weights that favour rare labels.

    Source: PaSST and EfficientAT: the sum, over a clip's labels, of 1000 / (100 + clips of that label);
    golden efficientat/hdf5. A clip without labels, whose weight there is 0, has the smallest weight of a
    label.

    Args:
        table: Targets, (clip, class); NaN (unknown) counts as 0.

    Returns:
        (clip,), above 0.
    """
    present = np.nan_to_num(table.astype(np.float64))
    rarity = 1000 / (100 + present.sum(0))
    weights = present @ rarity
    return np.asarray(np.where(weights > 0, weights, rarity.min()))


def epoch_batches(
    groups: Sequence[ClipGroup], batch_size: int, seed: Sequence[int]
) -> Iterator[list[tuple[int, int]]]:
    """The batches of one epoch.

    Args:
        groups: Groups of consecutive clips.
        batch_size: Clips per batch; an incomplete last batch is dropped unless it is the only one.
        seed: Of the epoch, for instance (run, epoch).

    Yields:
        Keys of :class:`ClipDataset`: index and seed of the piece.
    """
    generator = np.random.default_rng(list(seed))
    first, chosen = 0, []
    for group in groups:
        chosen.append(first + group.positions(generator))
        first += group.size
    order = _order(groups, np.concatenate(chosen), generator)
    keys = [
        (int(index), int(cut))
        for index, cut in zip(order, generator.integers(0, 2**31, len(order)), strict=True)
    ]
    whole = max(1, len(keys) // batch_size)
    for batch in range(whole):
        yield keys[batch * batch_size : (batch + 1) * batch_size]


def _order(groups: Sequence[ClipGroup], chosen: Integers, generator: np.random.Generator) -> Integers:
    """The sampled clips in any order, or shard by shard where every group has shards."""
    known = [group.shards for group in groups if group.shards is not None]
    if len(known) < len(groups):
        return generator.permutation(chosen)
    first, codes = 0, []
    for shards in known:
        codes.append(shards + first)
        first += int(shards.max(initial=-1)) + 1
    positions = np.sort(chosen)
    distance = max(group.shuffle_distance for group in groups)
    return np.asarray(positions[shuffled_by_shard(np.concatenate(codes)[positions], distance, generator)])
