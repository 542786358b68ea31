"""Scores of clips are those of their windows, put together as the tagger does."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from toy import FRONT_END

from earmark.data.manifest import Clip
from earmark.evaluation.network_predictions import clip_windows, cut_windows, predict_windows
from earmark.inference.load import load
from earmark.models.log_mel import TorchLogMel

RATE, LENGTH = 8000, 4000


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    written = []
    for number, samples in enumerate((1500, 4000, 4001, 10_000, 12_000)):
        path = folder / f"{number}.wav"
        soundfile.write(
            path, 0.2 * generator.standard_normal(samples).astype(np.float32), RATE, subtype="FLOAT"
        )
        written.append(path)
    return written


def as_clips(paths) -> list[Clip]:
    return [Clip(path, ()) for path in paths]


def read(path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def test_all_windows_include_the_padded_tail(paths):
    windows = list(clip_windows(as_clips(paths), RATE, LENGTH, "repeat"))
    assert [index for index, _ in windows] == [0, 1, 2, 2, 3, 3, 3, 4, 4, 4]
    assert {(window.shape, window.dtype) for _, window in windows} == {((LENGTH,), np.dtype(np.float32))}
    np.testing.assert_array_equal(windows[1][1], read(paths[1]))
    np.testing.assert_array_equal(np.concatenate([window for _, window in windows[-3:]]), read(paths[4]))


@pytest.mark.parametrize("padding", ["repeat", "zero"])
def test_only_a_clip_shorter_than_a_window_is_padded(paths, padding):
    windows = [window for _, window in clip_windows(as_clips(paths), RATE, LENGTH, padding)]
    short = read(paths[0])
    rest = np.resize(short, LENGTH)[1500:] if padding == "repeat" else np.zeros(2500)
    np.testing.assert_array_equal(windows[0], np.concatenate([short, rest]))
    np.testing.assert_array_equal(windows[3], read(paths[2])[-LENGTH:])


def test_whole_clips(paths):
    windows = list(clip_windows(as_clips(paths), RATE, LENGTH, "repeat", windows="whole", min_samples=2000))
    assert [index for index, _ in windows] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(windows[0][1], np.resize(read(paths[0]), 2000))
    for path, (_, window) in zip(paths[1:], windows[1:], strict=True):
        np.testing.assert_array_equal(window, read(path))
    assert len(next(clip_windows(as_clips(paths), RATE, LENGTH, "repeat", windows="whole"))[1]) == 1500


def test_centre_windows(paths):
    windows = list(clip_windows(as_clips(paths), RATE, LENGTH, "zero", windows="center"))
    assert [(index, len(window)) for index, window in windows] == [(index, LENGTH) for index in range(5)]
    np.testing.assert_array_equal(windows[0][1], np.pad(read(paths[0]), (0, 2500)))
    np.testing.assert_array_equal(windows[1][1], read(paths[1]))
    np.testing.assert_array_equal(windows[2][1], read(paths[2])[:4000])
    np.testing.assert_array_equal(windows[3][1], read(paths[3])[3000:7000])


def test_pieces_are_those_of_the_reference():
    """sound-clf-pytorch's clips of 7, 10, 23 and 31 frames in pieces of 10."""
    golden = np.load(Path(__file__).parents[1] / "golden" / "sound_clf_metrics.npz")
    pieces = [len(cut_windows(np.ones(frames, np.float32), 10, "zero")) for frames in (7, 10, 23, 31)]
    assert pieces == golden["split/raw_n_splits"].tolist()


class Loudness(torch.nn.Module):
    """Its logits are the means of the first two bands."""

    def forward(self, log_mel):
        self.batches = [*getattr(self, "batches", []), len(log_mel)]
        assert not self.training
        return SimpleNamespace(logits=log_mel[:, :2].mean(-1))


def windows_of(counts):
    generator = np.random.default_rng(1)
    return [
        (clip, (10 ** -generator.uniform(0, 2) * generator.standard_normal(LENGTH)).astype(np.float32))
        for clip, count in enumerate(counts)
        for _ in range(count)
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_windows_become_the_scores_of_their_clip(task, batch_size):
    counts, log_mel, network = (1, 4, 2), TorchLogMel(FRONT_END), Loudness().train()
    windows = windows_of(counts)
    scores = predict_windows(network, log_mel, iter(windows), task, batch_size)
    assert sum(network.batches) == 7
    assert max(network.batches) == min(batch_size, 7)
    logits = log_mel(torch.from_numpy(np.stack([window for _, window in windows])))[:, :2].mean(-1)
    predicted = (torch.sigmoid(logits) if task == "multi_label" else torch.softmax(logits, -1)).numpy()
    wanted = [
        part.max(0) if task == "multi_label" else part.mean(0)
        for part in np.split(predicted, np.cumsum(counts)[:-1])
    ]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-6)
    assert np.ptp(scores) > 0.05


def test_windows_of_one_length_share_a_pass():
    log_mel, network = TorchLogMel(FRONT_END), Loudness()
    lengths = (4000, 4000, 4000, 3000, 5000, 5000)
    generator = np.random.default_rng(2)
    windows = [
        (clip, generator.standard_normal(length).astype(np.float32)) for clip, length in enumerate(lengths)
    ]
    scores = predict_windows(network, log_mel, iter(windows), "multi_label", 2)
    assert network.batches == [2, 1, 1, 2]
    for (_, window), predicted in zip(windows, scores, strict=True):
        logits = log_mel(torch.from_numpy(window)[None])[:, :2].mean(-1)
        np.testing.assert_allclose(predicted, torch.sigmoid(logits)[0].numpy(), rtol=0, atol=1e-6)


def test_predictions_are_the_taggers(exported, paths):
    network, model_file = exported
    windows = clip_windows(as_clips(paths), RATE, LENGTH, "repeat")
    scores = predict_windows(network, TorchLogMel(FRONT_END), windows, "multi_label")
    tagger = load(model_file, threads=1)
    for path, wanted in zip(paths, scores, strict=True):
        np.testing.assert_allclose(tagger.tag(path).scores, wanted, rtol=0, atol=1e-4)
    assert np.ptp(scores) > 0.05
