"""A learned front-end is trained, evaluated, saved and exported with its network."""

from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from pydantic import ValidationError

import earmark
from earmark.export.export import export_model
from earmark.features.learned import LearnedFrontEnd
from earmark.models.checkpoint import load_checkpoint
from earmark.training.config.recipe import Recipe
from earmark.training.fold_evaluation import score_clips
from earmark.training.splits import split_clips
from earmark.training.trainer import train_network as train

FRONT_END = {"sample_rate": 8000, "n_mels": 32, "win_length": 129, "hop_length": 80, "f_max": 3500}


def recipe_of(clips, kind: str, **tables) -> Recipe:
    values = toy.toy_values(clips, **{"augment": {"f_max_range": 0, "mask_s": 0.1}} | tables)
    values["front_end"] = {"kind": kind} | FRONT_END
    return Recipe.model_validate(values)


@pytest.fixture(scope="module", params=["leaf", pytest.param("sincnet", marks=pytest.mark.slow)])
def trained(request, clips, tmp_path_factory) -> tuple[str, Recipe, Path]:
    """The kind of a front-end, a recipe with it, and the folder of a run."""
    recipe, folder = recipe_of(clips, request.param), tmp_path_factory.mktemp("run")
    train(recipe, folder, 1)
    return request.param, recipe, folder


def test_it_trains_with_its_network_and_is_kept(trained):
    kind, recipe, folder = trained
    assert recipe.front_end == LearnedFrontEnd(kind, f_min=60 if kind == "leaf" else 50, **FRONT_END)
    network, info = load_checkpoint(folder / "last.safetensors")
    assert info.front_end == recipe.front_end
    fresh = type(network.features)(recipe.front_end).state_dict()
    for name, value in network.features.state_dict().items():
        assert not torch.equal(value, fresh[name]), f"{name} did not train"
    scores = score_clips(recipe, network, split_clips(recipe, 1).evaluated)
    np.testing.assert_allclose(np.load(folder / "scores.npy"), scores, atol=1e-5)


@pytest.mark.slow
def test_the_model_file_needs_nothing_else(trained, tmp_path):
    _, recipe, folder = trained
    export_model(*load_checkpoint(folder / "last.safetensors"), tmp_path / "toy.onnx")
    tagger, scores = earmark.load(tmp_path / "toy.onnx", threads=1), np.load(folder / "scores.npy")
    for clip, expected in zip(split_clips(recipe, 1).evaluated[:4], scores, strict=False):
        np.testing.assert_allclose(tagger.tag(clip.path).scores, expected, atol=1e-4)


@pytest.mark.parametrize("setting", ["equalize_db", "f_min_range", "f_max_range"])
def test_what_only_a_log_mel_has_is_not_varied(clips, setting):
    with pytest.raises(ValidationError):
        recipe_of(clips, "leaf", augment={"f_max_range": 0, setting: 3})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "mel"}, "kind must be leaf or sincnet"),
        ({"kind": ["leaf"]}, "kind must be leaf"),
        ({"kind": "leaf", "f_low": 3}, "unknown key 'f_low'; allowed here: kind, sample_rate"),
        ({"kind": "leaf", "hop_length": 0}, "hop_length"),
    ],
)
def test_a_front_end_that_cannot_be_is_refused(clips, values, message):
    recipe = toy.toy_values(clips, augment={"f_max_range": 0})
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(recipe | {"front_end": values})
