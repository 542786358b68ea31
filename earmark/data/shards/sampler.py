"""The order in which clips of shards are read: near in the file, far apart in what they are.

Conventions: an order follows from its generator or (seed, epoch, rank) alone, never from the number of
workers that read. A clip in a file of its own is a shard of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip

Whole = NDArray[np.int64]


def shard_codes(clips: Sequence[Clip]) -> Whole:
    """A number for each clip that clips of the same file share: (clip,)."""
    codes: dict[str, int] = {}
    found = np.empty(len(clips), np.int64)
    for row, clip in enumerate(clips):
        own = str(clip.path) if clip.member is not None else f"{clip.path}\0{row}"
        found[row] = codes.setdefault(own, len(codes))
    return found


def near_order(shards: Whole, within: int, generator: np.random.Generator) -> Whole:
    """An order that takes the shards in random order, and mixes clips with those around them.

    Args:
        shards: Of each clip, (clip,).
        within: How far apart in that order two clips may change places; 0: not at all.
        generator: Of all draws.

    Returns:
        Positions of the clips, each once, (clip,).
    """
    codes, place = np.unique(shards, return_inverse=True)
    by_shard = np.argsort(generator.permutation(len(codes))[place], kind="stable")
    moved = np.arange(len(shards)) + generator.uniform(0, within, len(shards))
    return np.asarray(by_shard[np.argsort(moved, kind="stable")])


class ShardSampler:
    """Batches of an epoch for a rank of several, shard by shard, from any step on.

    Each rank has its own stretch of the shuffled shards, all of the same number of batches; so at most one
    shard is read by two of them. Serves as the ``batch_sampler`` of a loader of
    :class:`~earmark.data.dataset.ClipDataset`.

    Args:
        shards: Of each clip, see :func:`shard_codes`.
        batch_size: Clips a batch of this rank; an incomplete last batch is left out.
        within: As for :func:`near_order`.
        seed: Of all epochs.
        rank: Of this process, from 0.
        ranks: How many there are.
    """

    def __init__(
        self,
        shards: Whole,
        batch_size: int,
        *,
        within: int = 10_000,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.shards, self.batch_size, self.within = shards, batch_size, within
        self.seed, self.rank, self.ranks = seed, rank, ranks
        self.epoch = self.step = 0

    def go_to(self, epoch: int, step: int = 0) -> None:
        """Lets the next pass be that of an epoch, from one of its steps on: all there is of a state."""
        self.epoch, self.step = epoch, step

    @property
    def steps(self) -> int:
        """Batches of a whole epoch, the same for every rank."""
        return len(self.shards) // (self.batch_size * self.ranks)

    def __len__(self) -> int:
        return self.steps - self.step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Keys of a dataset: position of the clip, and the seed of its cut."""
        generator = np.random.default_rng([self.seed, self.epoch])
        stretch = self.steps * self.batch_size
        own = slice(self.rank * stretch, (self.rank + 1) * stretch)
        files = near_order(self.shards, 0, generator)[own]
        cuts = generator.integers(0, 2**31, len(self.shards))[own]
        mixing = np.random.default_rng([self.seed, self.epoch, self.rank])
        moved = np.argsort(np.arange(stretch) + mixing.uniform(0, self.within, stretch), kind="stable")
        for step in range(self.step, self.steps):
            batch = moved[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(int(files[place]), int(cuts[place])) for place in batch]
