"""Orders of clips that read shard by shard and shuffle within a distance.

Conventions: an order follows from its generator alone, not from the number of workers, so that a run resumes
at any step without stored state. A clip in a file of its own is a shard of one.
"""

from __future__ import annotations

from collections.abc import Sequence

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
