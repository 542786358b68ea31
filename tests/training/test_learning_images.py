"""A network learns from images in the place of log-mels, through the same loop."""

import numpy as np
import pytest
import toy

from earmark.models.checkpoint import load_checkpoint
from earmark.training.config.recipe import Recipe
from earmark.training.trainer import train_network as train

image = pytest.importorskip("PIL.Image", reason="needs the extra image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stripes that lie and stripes that stand: train and val."""
    made = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for name, axis in (("lying", 0), ("standing", 1)):
            (made / split / name).mkdir(parents=True)
            for number in range(count):
                wave = np.sin(np.arange(64) / generator.uniform(1, 3) + generator.uniform(0, 6))
                picture = np.broadcast_to(np.expand_dims(wave, 1 - axis), (64, 64)) * 100 + 128
                image.fromarray(picture.astype(np.uint8)).save(made / split / name / f"{number}.png")
    return made


@pytest.mark.slow
def test_it_learns_them_and_its_network_starts_a_training_on_sound(folder, clips, tmp_path):
    values = toy.toy_values(clips)
    values["data"] = {
        "sources": [
            {"corpus": "images", "folder": str(folder), "split": "train", "fold": 0},
            {"corpus": "images", "folder": str(folder), "split": "val", "fold": 1},
        ],
        "folds": [1],
    }
    values["augment"] = {"mixup_alpha": 0.2}
    values["task"] = "single_label"
    values["optimizer"] = {"learning_rate": 1e-2, "batch_size": 12, "epochs": 12}
    info = train(Recipe.model_validate(values), tmp_path / "images", 1)
    assert info.labels == ("lying", "standing")
    scores = np.load(tmp_path / "images" / "scores.npy")
    assert (scores.argmax(1) == np.repeat([0, 1], 8)).mean() > 0.9
    load_checkpoint(tmp_path / "images" / "last.safetensors")

    base = {"init_from": str(tmp_path / "images" / "last.safetensors"), "new_head": True}
    sound = toy.toy_recipe(clips, model=base, optimizer={"epochs": 1})
    assert train(sound, tmp_path / "sound", 1).labels == ("noise", "tone")
