"""What a run starts with: a network that fits the recipe, groups of weights, a moving average."""

import json
from pathlib import Path

import pytest
import torch
import toy
from pydantic import ValidationError
from torch import nn

from earmark.errors import EarmarkError, RecipeError
from earmark.models import create_model
from earmark.models.checkpoint import load_checkpoint
from earmark.models.layers import DropPath
from earmark.models.weights import head_tensor_names
from earmark.training.config.recipe import Recipe
from earmark.training.cross_validation import cross_validate
from earmark.training.initialization import (
    apply_checkpointing,
    initial_network,
    moving_average,
    parameter_groups,
    set_temperature,
    set_training_mode,
)
from earmark.training.trainer import train_network as train

LABELS = ("noise", "tone")
MN01 = {"architecture": "mn01", "arguments": {"norm_momentum": 0.3}}


@pytest.fixture(scope="module")
def base(clips, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("base")
    train(toy.toy_recipe(clips, model=MN01, optimizer={"epochs": 1}), folder, 1)
    return str(folder / "last.safetensors")


def recipe_from(base, clips, **tables) -> Recipe:
    values = toy.toy_values(clips, **tables)
    values["model"] = {**MN01, **tables.get("model", {}), "init_from": base}
    return Recipe.model_validate(values)


def test_equal_settings_need_no_warning(clips, base):
    warnings = []
    initial_network(recipe_from(base, clips), LABELS, warnings.append)
    assert warnings == []


@pytest.mark.parametrize(
    ("change", "stated"),
    [
        ({"model": {"arguments": {"norm_momentum": 0.2}}}, ["norm_momentum 0.3 -> 0.2"]),
        (
            {"model": {"arguments": {"norm_momentum": 0.3, "dropout": 0.5}}, "window_s": 0.4},
            ["dropout 0.2 -> 0.5"],
        ),
        ({"front_end": {"n_mels": 40, "hop_length": 128}}, ["hop_length 160 -> 128", "n_mels 32 -> 40"]),
        (
            {"front_end": {"f_max": 3000.0}, "model": {"arguments": {"strides": [2, 2, 2, 1]}}},
            ["f_max 3500.0 -> 3000.0", "strides (2, 2, 2, 2) -> (2, 2, 2, 1)", "norm_momentum 0.3 -> 0.01"],
        ),
    ],
)
def test_other_settings_than_those_of_the_start_are_a_choice(clips, base, change, stated):
    """The weights are those of the start, the settings those of the recipe."""
    warnings, recipe = [], recipe_from(base, clips, **change)
    network = initial_network(recipe, LABELS, warnings.append)
    [facts] = warnings
    assert all(text in facts["warning"] for text in stated)
    assert facts["warning"].count("->") == len(stated)
    given = load_checkpoint(base)[0].state_dict()
    assert all(torch.equal(tensor, given[name]) for name, tensor in network.state_dict().items())
    expected = create_model("mn01", num_classes=2, **recipe.model.arguments).config
    assert network.config == expected


def test_a_run_with_another_front_end_than_its_start_is_that_of_its_recipe(clips, base, tmp_path):
    change = {
        "front_end": {"n_mels": 40},
        "model": {"arguments": {"dropout": 0.0}},
        "optimizer": {"epochs": 1},
    }
    facts = []
    info = train(recipe_from(base, clips, **change), tmp_path, 1, facts.append)
    assert "n_mels 32 -> 40" in facts[0]["warning"]
    assert (info.front_end.n_mels, info.arguments) == (40, {"dropout": 0.0})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model": {"architecture": "mn02"}}, "mn02"),
        ({"model": {"arguments": {"head": "fully_convolutional"}}}, "fully_convolutional"),
        ({"model": {"arguments": {"se_dims": "none"}}}, "se_dims"),
    ],
)
def test_weights_that_do_not_fit_are_refused(clips, base, change, problem):
    with pytest.raises(RecipeError, match=f"the weights of mn01 do not fit.*{problem}"):
        initial_network(recipe_from(base, clips, **change), LABELS)


def test_other_labels_need_a_new_head(clips, base):
    others = ("gate", "kettle", "rain")
    with pytest.raises(RecipeError):
        initial_network(recipe_from(base, clips), others)
    network = initial_network(recipe_from(base, clips, model={"new_head": True}), others)
    given, taken = load_checkpoint(base)[0].state_dict(), network.state_dict()
    head = head_tensor_names(network)
    assert set(head) == {"classifier.5.weight", "classifier.5.bias"}
    for name, tensor in taken.items():
        assert torch.equal(tensor, given[name]) == (name not in head) or not tensor.any()
    assert network.config.num_classes == 3


def test_a_new_head_is_new_even_if_it_is_as_large(clips, base):
    network = initial_network(recipe_from(base, clips, model={"new_head": True}), ("gate", "kettle"))
    given = load_checkpoint(base)[0]
    assert not torch.equal(
        network.state_dict()["classifier.5.weight"], given.state_dict()["classifier.5.weight"]
    )


def test_missing_initial_weights_are_refused_first(clips, tmp_path):
    with pytest.raises(EarmarkError):
        train(recipe_from(str(tmp_path / "none.safetensors"), clips), tmp_path / "run", 1)
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_run_starts_from_the_network_of_its_own_fold(clips, base, tmp_path):
    recipe = recipe_from(str(tmp_path / "{fold}" / "last.safetensors"), clips, optimizer={"epochs": 1})
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folds": (1, 2)})})
    for name in ("fold1", "fold2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.safetensors").write_bytes(Path(base).read_bytes())
    with pytest.raises(RecipeError):
        cross_validate(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(recipe, tmp_path / "run", 2)
    reported = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert reported["model"]["init_from"] == str(tmp_path / "fold2" / "last.safetensors")
    assert str(tmp_path / "fold2" / "last.safetensors") in (tmp_path / "run" / "run.json").read_text()


def test_keys_that_need_initial_weights_are_refused_without(clips):
    for tables in ({"model": {"new_head": True}}, {"optimizer": {"backbone_lr_scale": 0.1}}):
        with pytest.raises(ValidationError):
            toy.toy_recipe(clips, **tables)


def test_matrices_decay_and_nothing_else_unless_all_shall(clips):
    network = create_model("mn01", num_classes=2)
    recipe = toy.toy_recipe(clips, optimizer={"weight_decay": 0.1})
    groups = parameter_groups(recipe, network, network)
    for group in groups:
        assert {weight.ndim > 1 for weight in group["params"]} == {group["weight_decay"] > 0}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    all_decay = toy.toy_recipe(clips, optimizer={"weight_decay": 0.1, "decay_all": True})
    assert [group["weight_decay"] for group in parameter_groups(all_decay, network, network)] == [0.1]


def test_pretrained_weights_have_their_own_learning_rate(clips, base):
    recipe = recipe_from(base, clips, model={"new_head": True}, optimizer={"backbone_lr_scale": 0.1})
    network = initial_network(recipe, LABELS)
    imitation = nn.Linear(3, 3)
    groups = parameter_groups(recipe, nn.ModuleDict({"a": network, "b": imitation}), network)
    head = head_tensor_names(network)
    factors = {id(weight): group["lr_scale"] for group in groups for weight in group["params"]}
    for name, weight in network.named_parameters():
        assert factors[id(weight)] == (1.0 if name in head else 0.1)
    assert {factors[id(weight)] for weight in imitation.parameters()} == {1.0}


def test_a_frozen_backbone_stays_as_it_is(clips, base, tmp_path):
    """Weights, statistics of norms and their gradients; the head alone learns."""
    options = {"optimizer": {"backbone_lr_scale": 0.0, "weight_decay": 0.1, "epochs": 2, "ema_decay": 0.0}}
    recipe = recipe_from(base, clips, model={"new_head": True}, **options)
    train(recipe, tmp_path, 1)
    given, trained = (load_checkpoint(path)[0] for path in (base, tmp_path / "last.safetensors"))
    head = head_tensor_names(trained)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, given.state_dict()[name]) == (name not in head), name


def test_only_the_head_of_a_frozen_backbone_has_gradients(clips, base):
    recipe = recipe_from(base, clips, model={"new_head": True}, optimizer={"backbone_lr_scale": 0.0})
    network = initial_network(recipe, LABELS)
    head = head_tensor_names(network)
    set_training_mode(network)
    network(torch.randn(3, 32, 60)).logits.sum().backward()
    assert {name for name, weight in network.named_parameters() if weight.grad is not None} == set(head)
    groups = parameter_groups(recipe, network, network)
    assert {id(weight) for group in groups for weight in group["params"]} == {
        id(weight) for name, weight in network.named_parameters() if name in head
    }
    trained = {type(module).__name__ for module in network.modules() if module.training}
    assert "Dropout" in trained
    assert "BatchNorm2d" not in trained


def test_norms_of_a_new_head_learn_and_a_frozen_backbone_drops_no_blocks():
    network = create_model("mn01", num_classes=3, head="fully_convolutional")
    efficient = create_model("efficientnet", num_classes=3, width=0.1, depth=0.1)
    for one in (network, efficient):
        set_training_mode(one.eval())
        assert all(module.training for module in one.modules())
        head = head_tensor_names(one)
        for name, weight in one.named_parameters():
            weight.requires_grad_(name in head)
        set_training_mode(one)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.training for norm in norms].count(True) == 1
    assert not any(module.training for module in efficient.modules() if isinstance(module, DropPath))


def test_the_temperature_falls_to_that_of_the_recipe(clips):
    recipe = toy.toy_recipe(
        clips,
        model={
            "architecture": "dymn04",
            "arguments": {"temperature": 2.0},
            "annealing": {"start": 8.0, "slope": 4.0},
        },
    )
    network = initial_network(recipe, LABELS)
    assert [set_temperature(recipe, [network], epoch) for epoch in range(4)] == [8.0, 4.0, 2.0, 2.0]
    assert network.config.temperature == 2.0


def test_only_a_dymn_has_a_temperature(clips):
    with pytest.raises(RecipeError):
        initial_network(toy.toy_recipe(clips, model={"annealing": {}}), LABELS)


def test_the_average_moves_by_its_decay_and_faster_at_first():
    network = nn.BatchNorm1d(1, affine=False)
    average = moving_average(network, 0.3)
    assert moving_average(network, 0.0) is None
    expected = 0.0
    for step, value in enumerate([1.0, 3.0, -2.0, 5.0, 0.5]):
        network.running_mean.fill_(value)
        network.num_batches_tracked.fill_(10 + step)
        average.update_parameters(network)
        decay = 0.0 if step == 0 else min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.module.running_mean.item() == pytest.approx(expected)
        assert average.module.num_batches_tracked.item() == 10 + step


def test_stages_are_checkpointed_or_the_recipe_is_refused(clips):
    recipe = toy.toy_recipe(clips, optimizer={"checkpoint_stages": True})
    network = create_model("mn01", num_classes=2)
    apply_checkpointing(recipe, network)
    names = {type(module).__name__ for module in network.modules()}
    assert "CheckpointedInvertedResidual" in names
    with pytest.raises(RecipeError, match=r"optimizer\.checkpoint_stages: .* has no stages"):
        apply_checkpointing(recipe, create_model("cnn6_60k", num_classes=2))
