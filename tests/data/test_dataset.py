"""Clips become waveforms of one length, and an epoch's order comes from its seed alone."""

import json
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from earmark.data.dataset import ClipDataset, ClipGroup, epoch_batches, sampling_weights
from earmark.data.manifest import Clip
from earmark.errors import AudioError, DataError

RATE = 8000
SECONDS = {"short": 0.2, "exact": 0.5, "long": 1.3}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for name, seconds in SECONDS.items():
        samples = generator.uniform(-0.9, 0.9, round(seconds * RATE)).astype(np.float32)
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    return [Clip(folder / f"{name}.wav", (name,)) for name in SECONDS]


def dataset(clips, **options) -> ClipDataset:
    return ClipDataset(
        clips, tuple(SECONDS), **({"sample_rate": RATE, "length": 4000, "padding": "repeat"} | options)
    )


def samples_of(clip) -> torch.Tensor:
    return torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0])


def test_every_clip_is_one_window_long_with_its_targets(clips):
    data = dataset(clips)
    assert len(data) == 3
    for index in range(3):
        waveform, targets = data[index, 0]
        assert (waveform.shape, waveform.dtype) == ((4000,), torch.float32)
        assert targets.tolist() == np.eye(3)[index].tolist()


@pytest.mark.parametrize("padding", ["repeat", "zero"])
def test_a_short_clip_is_padded(clips, padding):
    samples = samples_of(clips[0])
    waveform, _ = dataset(clips, padding=padding)[0, 0]
    rest = samples.repeat(3)[: 4000 - 1600] if padding == "repeat" else torch.zeros(2400)
    torch.testing.assert_close(waveform, torch.cat([samples, rest]), rtol=0, atol=0)


def test_the_place_of_a_short_clip_follows_its_seed(clips):
    data, samples = dataset(clips, padding="zero", random_padding=True), samples_of(clips[0])
    starts = []
    for seed in range(200):
        waveform, _ = data[0, seed]
        start = int(waveform.nonzero()[0])
        assert waveform.shape == (4000,)
        assert torch.equal(waveform[start : start + 1600], samples)
        assert not waveform[:start].any()
        assert not waveform[start + 1600 :].any()
        assert torch.equal(data[0, seed][0], waveform)
        starts.append(start)
    assert 0 <= min(starts) < 200
    assert 2200 < max(starts) <= 2400
    assert torch.equal(data[1, 5][0], samples_of(clips[1]))


def test_a_clip_of_a_window_is_left_as_it_is(clips):
    assert torch.equal(dataset(clips)[1, 5][0], samples_of(clips[1]))


def test_the_piece_of_a_long_clip_follows_its_seed(clips):
    data, samples = dataset(clips), samples_of(clips[2])
    starts = []
    for seed in range(200):
        waveform, _ = data[2, seed]
        start = int((samples == waveform[0]).nonzero()[0])
        assert torch.equal(waveform, samples[start : start + 4000])
        assert torch.equal(data[2, seed][0], waveform)
        starts.append(start)
    assert 0 <= min(starts) < 400
    assert len(samples) - 4000 - 400 < max(starts) <= len(samples) - 4000


def test_another_rate_is_resampled(clips):
    waveform, _ = dataset(clips, sample_rate=16000, length=8000)[1, 0]
    assert waveform.shape == (8000,)
    assert waveform[::2].sub(samples_of(clips[1])).abs().mean() < 0.2


def test_an_unknown_label_and_a_missing_file_are_refused(clips, tmp_path):
    with pytest.raises(DataError):
        ClipDataset(clips, ("long",), sample_rate=RATE, length=4000, padding="zero")
    with pytest.raises(AudioError, match=r"none\.wav"):
        dataset([Clip(tmp_path / "none.wav", ())])[0, 0]


class TestEpochs:
    def test_every_clip_once(self):
        keys = [key for batch in epoch_batches([ClipGroup(10), ClipGroup(6)], 4, (0, 0)) for key in batch]
        assert sorted(index for index, _ in keys) == list(range(16))

    def test_the_seed_alone_decides(self):
        epochs = [
            list(epoch_batches([ClipGroup(10), ClipGroup(6, 4)], 4, seed))
            for seed in ((0, 0), (0, 0), (0, 1), (1, 0))
        ]
        assert epochs[0] == epochs[1]
        assert epochs[0] != epochs[2]
        assert epochs[0] != epochs[3]

    def test_the_count_of_a_group(self):
        seen = Counter()
        for epoch in range(60):
            keys = [
                index
                for batch in epoch_batches([ClipGroup(4), ClipGroup(50, 8), ClipGroup(2, 5)], 7, (0, epoch))
                for index, _ in batch
            ]
            assert len(set(keys)) == len(keys) == 14
            seen.update(keys)
        assert sum(seen[index] > 0 for index in range(4, 54)) == 50
        assert all(index < 56 for index in seen)

    def test_groups_are_mixed(self):
        first = next(epoch_batches([ClipGroup(50), ClipGroup(50)], 20, (0, 0)))
        assert 3 < sum(index < 50 for index, _ in first) < 17

    @pytest.mark.parametrize(("clips", "sizes"), [(8, [4, 4]), (11, [4, 4]), (4, [4]), (3, [3]), (1, [1])])
    def test_an_incomplete_batch_is_dropped_unless_it_is_the_only_one(self, clips, sizes):
        assert [len(batch) for batch in epoch_batches([ClipGroup(clips)], 4, (0,))] == sizes

    def test_cuts_differ_from_clip_to_clip(self):
        keys = [key for batch in epoch_batches([ClipGroup(100)], 10, (0, 0)) for key in batch]
        assert len({cut for _, cut in keys}) > 95
        assert all(type(index) is int and type(cut) is int for index, cut in keys)


class TestBalance:
    def test_rare_labels_are_sampled_more_often(self):
        table = np.zeros((400, 2), np.float32)
        table[:380, 0] = table[380:, 1] = 1
        weights = sampling_weights(table)
        assert weights[0] == pytest.approx(1000 / 480)
        assert weights[-1] == pytest.approx(1000 / 120)
        drawn = [ClipGroup(400, 40, weights).positions(np.random.default_rng(seed)) for seed in range(50)]
        assert all(len(set(positions)) == 40 for positions in drawn)
        share = np.mean([(positions >= 380).mean() for positions in drawn])
        assert 0.13 < share < 0.21  # of 20 clips of 400; four times their weight is 0.17 of all

    def test_labels_add_up_and_a_clip_without_one_can_be_drawn(self):
        table = np.array([[1, 1], [1, 0], [0, 0], [np.nan, np.nan]], np.float32)
        rarity = 1000 / np.array([102, 101])
        wanted = [rarity.sum(), rarity[0], rarity[0], rarity[0]]
        np.testing.assert_allclose(sampling_weights(table), wanted)

    def test_the_weights_are_those_of_efficientat(self, shared):
        index = json.loads((shared / "golden/efficientat/hdf5/index.json").read_text())
        trained = index["labels"][: len(index["train_items"])]
        table = np.zeros((len(trained), 527), np.float32)
        for row, present in enumerate(trained):
            table[row, present] = 1
        np.testing.assert_allclose(sampling_weights(table), index["sampling"]["weights_sum"], rtol=1e-6)
