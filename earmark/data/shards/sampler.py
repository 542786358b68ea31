"""Samplers that read shard by shard and shuffle clips within a distance.

Conventions: an order follows from its generator or (seed, epoch, rank) alone, not from the number of workers,
so that a run resumes at any step without stored state. A clip in a file of its own is a shard of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip

Integers = NDArray[np.int64]


def shard_codes(clips: Sequence[Clip]) -> Integers:
    """Shard of each clip, (clip,): an index of its file."""
    codes: dict[str, int] = {}
    found = np.empty(len(clips), np.int64)
    for row, clip in enumerate(clips):
        own = str(clip.path) if clip.member is not None else f"{clip.path}\0{row}"
        found[row] = codes.setdefault(own, len(codes))
    return found


def shuffled_by_shard(shards: Integers, distance: int, generator: np.random.Generator) -> Integers:
    """Shuffles shards, and clips within a distance.

    Args:
        shards: Shard of each clip, (clip,).
        distance: How far apart, in the order of the shards, two clips may change places; 0: not at all.
        generator: Source of randomness.

    Returns:
        Indices of the clips, each once, (clip,).
    """
    codes, place = np.unique(shards, return_inverse=True)
    by_shard = np.argsort(generator.permutation(len(codes))[place], kind="stable")
    moved = np.arange(len(shards)) + generator.uniform(0, distance, len(shards))
    return np.asarray(by_shard[np.argsort(moved, kind="stable")])


class ShardSampler:
    """Batches of an epoch for one of several ranks, shard by shard, from any step on.

    Each rank has its own part of the shuffled shards, with the same number of batches, so that two ranks
    share at most one shard. Use it as ``batch_sampler`` of a loader of
    :class:`~earmark.data.dataset.ClipDataset`.

    Args:
        shards: Of each clip, see :func:`shard_codes`.
        batch_size: Clips per batch of this rank; an incomplete last batch is dropped.
        distance: As for :func:`shuffled_by_shard`.
        seed: Of all epochs.
        rank: Of this process, from 0.
        ranks: Number of ranks.
    """

    def __init__(
        self,
        shards: Integers,
        batch_size: int,
        *,
        distance: int = 10_000,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.shards, self.batch_size, self.distance = shards, batch_size, distance
        self.seed, self.rank, self.ranks = seed, rank, ranks
        self.epoch = self.step = 0

    def go_to(self, epoch: int, step: int = 0) -> None:
        """Sets epoch and first step of the next pass, the whole state of the sampler."""
        self.epoch, self.step = epoch, step

    @property
    def steps(self) -> int:
        """Batches of an epoch, the same for every rank."""
        return len(self.shards) // (self.batch_size * self.ranks)

    def __len__(self) -> int:
        return self.steps - self.step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Keys of a dataset: index of the clip, and the seed of its piece."""
        generator = np.random.default_rng([self.seed, self.epoch])
        stretch = self.steps * self.batch_size
        own = slice(self.rank * stretch, (self.rank + 1) * stretch)
        files = shuffled_by_shard(self.shards, 0, generator)[own]
        cuts = generator.integers(0, 2**31, len(self.shards))[own]
        mixing = np.random.default_rng([self.seed, self.epoch, self.rank])
        moved = np.argsort(np.arange(stretch) + mixing.uniform(0, self.distance, stretch), kind="stable")
        for step in range(self.step, self.steps):
            batch = moved[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(int(files[place]), int(cuts[place])) for place in batch]
