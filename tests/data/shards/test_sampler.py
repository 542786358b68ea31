"""The order of reading follows from its seed and stays near in the files."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from earmark.data.dataset import ClipGroup, epoch_batches
from earmark.data.manifest import Clip
from earmark.data.shards.sampler import shard_codes, shuffled_by_shard

SHARDS = np.repeat(np.arange(20), 50)


def flat(batches) -> list[int]:
    return [index for batch in batches for index, _ in batch]


def test_shard_codes():
    clips = [
        Clip(Path(name), (), member=member) for name, member in (("a.tar", 0), ("b.tar", 0), ("a.tar", 1))
    ]
    assert shard_codes([*clips, Clip(Path("c.wav"), ()), Clip(Path("c.wav"), ())]).tolist() == [0, 1, 0, 2, 3]


def test_shards_are_shuffled_and_clips_mixed_within_limits():
    order = shuffled_by_shard(SHARDS, 0, np.random.default_rng(0))
    assert sorted(order) == list(range(1000))
    runs = [int(SHARDS[order[first]]) for first in range(0, 1000, 50)]
    assert runs != sorted(runs)
    assert all(len(set(SHARDS[order[first : first + 50]])) == 1 for first in range(0, 1000, 50))
    place = np.argsort(order)
    mixed = shuffled_by_shard(SHARDS, 120, np.random.default_rng(0))
    moved = np.abs(place[mixed] - np.arange(1000))
    assert 20 < moved.mean() < 60
    assert moved.max() <= 120
    assert len(set(SHARDS[mixed[:100]])) >= 3


def test_epoch_batches_read_shard_by_shard():
    seeds = [(0, 1), (0, 1), (0, 2)]
    near = [
        list(epoch_batches([ClipGroup(1000, shards=SHARDS, shuffle_distance=60)], 10, seed)) for seed in seeds
    ]
    assert near[0] == near[1] != near[2]
    assert sorted(flat(near[0])) == list(range(1000))
    open_at_once = [len(set(SHARDS[flat(near[0])[first : first + 60]])) for first in range(0, 940, 10)]
    assert max(open_at_once) <= 5
    far = list(epoch_batches([ClipGroup(1000)], 10, (0, 1)))
    assert len(set(SHARDS[flat(far)[:60]])) > 15


def test_epoch_batches_mix_packs_and_files():
    files = ClipGroup(200, shards=np.arange(200), shuffle_distance=30)
    draws = [ClipGroup(1000, 100, shards=SHARDS, shuffle_distance=30), files]
    order = flat(epoch_batches(draws, 10, (0, 0)))
    assert len(set(order)) == 300
    assert sum(index >= 1000 for index in order) == 200
    assert sum((a >= 1000) != (b >= 1000) for a, b in pairwise(order)) > 10
