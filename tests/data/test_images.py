"""Images come in the shape and on the scale of log-mels, cut anew for each seed."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from earmark.data.images import ImageDataset, image_features, read_image
from earmark.data.manifest import Clip
from earmark.errors import DataError, MissingExtraError, ModelError
from earmark.evaluation.network_predictions import predict_windows
from earmark.features.front_end import FrontEnd
from earmark.features.presets import FSDKAGGLE
from earmark.models import create_model

FRONT_END = FrontEnd(n_mels=32)
FRAMES = 64


@pytest.fixture
def draw(tmp_path):
    def draw(pixels, name="image.png"):
        Image.fromarray(np.asarray(pixels, np.uint8)).save(tmp_path / name)
        return tmp_path / name

    return draw


def test_black_is_silence_and_white_an_energy_of_one(draw):
    pixels = np.zeros((32, 64))
    pixels[:, 32:] = 255
    features = read_image(draw(pixels), FRONT_END, FRAMES)
    assert (features.shape, features.dtype) == ((32, FRAMES), np.float32)
    np.testing.assert_allclose(features[:, :30], FRONT_END.silence, atol=1e-6)
    np.testing.assert_allclose(features[:, 34:], 4.5 / 5, atol=1e-6)


def test_the_top_row_is_the_first_band(draw):
    features = read_image(draw(np.repeat(np.arange(0, 256, 8)[:, None], 64, 1)), FRONT_END, FRAMES)
    assert (np.diff(features[:, 0]) > 0).all()


def test_colours_become_grey(draw):
    pixels = np.zeros((32, 64, 3))
    pixels[..., 1] = 200
    grey = read_image(draw(pixels), FRONT_END, FRAMES)
    assert grey.shape == (32, FRAMES)
    share = (grey[0, 0] - FRONT_END.silence) / (FRONT_END.mask_value - FRONT_END.silence)
    assert share == pytest.approx(0.587 * 200 / 255, abs=0.01)


@pytest.mark.parametrize("shape", [(64, 64), (32, 200)])
def test_evaluation_uses_the_centre_crop(draw, shape):
    pixels = np.zeros(shape)
    height, width = min(shape[0], shape[1] // 2), min(shape[1], shape[0] * 2)
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    pixels[top : top + height, left : left + width] = 255
    features = read_image(draw(pixels), FRONT_END, FRAMES)
    np.testing.assert_allclose(features, FRONT_END.mask_value, atol=1e-6)


def test_a_random_crop_follows_its_seed(draw):
    path = draw(np.repeat(np.arange(200)[None], 100, 0))
    cuts = [read_image(path, FRONT_END, FRAMES, seed) for seed in range(40)]
    np.testing.assert_array_equal(cuts[3], read_image(path, FRONT_END, FRAMES, 3))
    assert len({cut.tobytes() for cut in cuts}) == 40
    mirrored = sum(bool(cut[0, 0] > cut[0, -1]) for cut in cuts)
    assert 10 < mirrored < 30
    assert {cut.shape for cut in cuts} == {(32, FRAMES)}


def test_a_data_set_of_images_is_like_one_of_clips(draw):
    clips = [Clip(draw(np.full((40, 50), 80 * i), f"{i}.png"), (f"n{i}",)) for i in range(2)]
    data = ImageDataset(clips, ("n0", "n1"), front_end=FRONT_END, frames=FRAMES)
    features, wanted = data[1, 5]
    assert len(data) == 2
    assert features.shape == (32, FRAMES)
    assert features.dtype == torch.float32
    assert wanted.tolist() == [0, 1]
    evaluated = dict(image_features(clips, FRONT_END, FRAMES))
    np.testing.assert_allclose(evaluated[1], features, atol=1e-5)


def test_images_are_evaluated_without_a_front_end(draw):
    clips = [Clip(draw(np.full((40, 50), 120 * i), f"{i}.png"), (f"n{i}",)) for i in range(3)]
    network = create_model("mn01", num_classes=2)
    features = image_features(clips, FRONT_END, FRAMES)
    scores = predict_windows(network, nn.Identity(), features, "single_label", batch_size=2)
    assert scores.shape == (3, 2)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)


def test_an_image_that_cannot_be_read_can_be_left_out(draw, tmp_path):
    clips = [Clip(draw(np.zeros((40, 50)), "0.png"), ("n0",)), Clip(tmp_path / "none.png", ("n0",))]
    data = ImageDataset(clips, ("n0",), front_end=FRONT_END, frames=FRAMES, tolerant=True)
    features, wanted = data[1, 0]
    assert features.shape == data[0, 0][0].shape
    assert features.isnan().all()
    assert wanted.tolist() == [1]
    assert "none.png" in data.reason(1)
    with pytest.raises(DataError):
        ImageDataset(clips, ("n0",), front_end=FRONT_END, frames=FRAMES)[1, 0]
    left_out: dict[int, str] = {}
    assert list(dict(image_features(clips, FRONT_END, FRAMES, left_out.__setitem__))) == [0]
    assert "none.png" in left_out[1]


def test_not_an_image(tmp_path, draw):
    (tmp_path / "text.png").write_text("image")
    for name in ("text.png", "none.png"):
        with pytest.raises(DataError, match=rf"{name}: cannot be read as an image"):
            read_image(tmp_path / name, FRONT_END, FRAMES)
    path = draw(np.random.default_rng(0).integers(0, 256, (200, 200)))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError):
        read_image(path, FRONT_END, FRAMES)


def test_a_front_end_without_a_floor_is_refused(draw):
    with pytest.raises(ModelError):
        read_image(draw(np.zeros((4, 4))), FSDKAGGLE, FRAMES)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"earmark\[image\]"):
        read_image(tmp_path / "a.png", FRONT_END, FRAMES)
