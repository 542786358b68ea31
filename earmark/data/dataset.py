"""Clips of a manifest as waveforms of one length, with their targets.

Conventions: a waveform is mono float32 (time,) at the front-end's rate, exactly one window long: longer clips
are cut at a random place while training, shorter ones are filled up as the model's record says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from earmark.audio import pad
from earmark.data.manifest import Clip, targets
from earmark.data.reading import read_clip
from earmark.record import Padding

Batch = tuple[Tensor, Tensor]


class ClipDataset(Dataset[Batch]):
    """Waveforms and targets of clips, in memory after the first time where ``cache`` is set.

    Args:
        clips: What to read.
        labels: One per class.
        sample_rate: Of the waveforms, in Hz.
        length: Of the waveforms, in samples.
        padding: How shorter clips are filled up.
        cache: Keep the decoded clips in memory (16 bit).
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[str],
        *,
        sample_rate: int,
        length: int,
        padding: Padding,
        cache: bool = False,
    ) -> None:
        self.clips = list(clips)
        self.targets = torch.from_numpy(targets(clips, labels))
        self.sample_rate = sample_rate
        self.length = length
        self.padding: Padding = padding
        self._cache: dict[int, NDArray[np.int16]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """One clip, cut by a generator of its own.

        Args:
            key: Position of the clip, and the seed of the cut.

        Returns:
            Waveform (time,) and targets (class,).

        Raises:
            AudioError: If the clip cannot be read.
        """
        index, seed = key
        waveform = self._load(index)
        excess = len(waveform) - self.length
        if excess > 0:
            start = int(np.random.default_rng(seed).integers(0, excess + 1))
            waveform = waveform[start : start + self.length]
        return torch.from_numpy(pad(waveform, self.length, self.padding)), self.targets[index]

    def _load(self, index: int) -> NDArray[np.float32]:
        if self._cache is None:
            return read_clip(self.clips[index], self.sample_rate)
        if index not in self._cache:
            waveform = read_clip(self.clips[index], self.sample_rate)
            self._cache[index] = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
        return self._cache[index].astype(np.float32) / np.float32(32767)


@dataclass(frozen=True)
class Draw:
    """What an epoch takes of a group of clips: each once, or so many drawn from it without replacement.

    Args:
        size: Of the group.
        count: How many are drawn; None: all.
        weights: Of the draw, (clip,), above 0; None: all alike.
    """

    size: int
    count: int | None = None
    weights: NDArray[np.float64] | None = None

    def positions(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """The chosen clips, in random order."""
        if self.weights is None:
            return generator.permutation(self.size)[: self.count]
        count = self.size if self.count is None else min(self.count, self.size)
        chances = self.weights / self.weights.sum()
        return np.asarray(generator.choice(self.size, count, replace=False, p=chances))


def sampling_weights(table: NDArray[np.float32]) -> NDArray[np.float64]:
    """Weights that let an epoch hear rare labels more often.

    Source: PaSST and EfficientAT: the sum, over a clip's labels, of 1000 / (100 + clips of that label);
    golden efficientat/hdf5. A clip without labels, whose weight there is 0, has that of the commonest label.

    Args:
        table: Targets, (clip, class); NaN, unknown, counts as absent.

    Returns:
        (clip,), above 0.
    """
    present = np.nan_to_num(table.astype(np.float64))
    rarity = 1000 / (100 + present.sum(0))
    weights = present @ rarity
    return np.asarray(np.where(weights > 0, weights, rarity.min()))


def epoch_batches(
    groups: Sequence[Draw], batch_size: int, seed: Sequence[int]
) -> Iterator[list[tuple[int, int]]]:
    """The batches of one epoch.

    Args:
        groups: What it takes of each group of consecutive clips.
        batch_size: Clips a batch; an incomplete last batch is left out unless it is the only one.
        seed: Of the order, for instance (run, epoch).

    Yields:
        Keys of :class:`ClipDataset`: position and seed of the cut.
    """
    generator = np.random.default_rng(list(seed))
    first, chosen = 0, []
    for group in groups:
        chosen.append(first + group.positions(generator))
        first += group.size
    order = generator.permutation(np.concatenate(chosen))
    keys = [
        (int(index), int(cut))
        for index, cut in zip(order, generator.integers(0, 2**31, len(order)), strict=True)
    ]
    whole = max(1, len(keys) // batch_size)
    for batch in range(whole):
        yield keys[batch * batch_size : (batch + 1) * batch_size]
