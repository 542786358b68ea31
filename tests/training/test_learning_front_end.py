"""A front-end that learns is trained, judged, kept and exported with its network."""

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


@pytest.mark.parametrize("kind", ["leaf", pytest.param("sincnet", marks=pytest.mark.slow)])
def test_it_trains_with_its_network_and_the_model_file_needs_nothing_else(clips, tmp_path, kind):
    recipe = recipe_of(clips, kind)
    assert recipe.front_end == LearnedFrontEnd(kind, f_min=60 if kind == "leaf" else 50, **FRONT_END)
    info = train(recipe, tmp_path / "run", 1)
    network, kept = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert kept == info
    assert info.front_end == recipe.front_end
    fresh = type(network.features)(recipe.front_end).state_dict()
    for name, value in network.features.state_dict().items():
        assert not torch.equal(value, fresh[name]), f"{name} did not train"
    judged = split_clips(recipe, 1).evaluated
    scores = score_clips(recipe, network, judged)
    np.testing.assert_allclose(np.load(tmp_path / "run" / "scores.npy"), scores, atol=1e-5)
    export_model(network, info, tmp_path / "toy.onnx")
    tagger = earmark.load(tmp_path / "toy.onnx", threads=1)
    for clip, wanted in zip(judged[:4], scores, strict=False):
        np.testing.assert_allclose(tagger.tag(clip.path).scores, wanted, atol=1e-4)


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
