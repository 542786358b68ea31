"""ResNets, EfficientNets and ConvNeXts of any size are trained by a recipe, also on linear spectrograms."""

import numpy as np
import pytest
import toy

from earmark.models.checkpoint import load_checkpoint
from earmark.training.trainer import train_network as train

LARGE = ["resnet101", "efficientnet_b5", "convnext_small"]
OPTIMIZER = {"epochs": 1, "batch_size": 20, "ema_decay": 0.0}


def trained(clips, folder, architecture, arguments, **tables):
    """The network after one step, its model info, and the loss of that step."""
    model = {"architecture": architecture, "arguments": arguments}
    recipe = toy.toy_recipe(clips, optimizer=OPTIMIZER, evaluation={"every_epochs": 1}, **tables)
    values = recipe.model_dump() | {"model": model, "front_end": recipe.front_end.to_dict()}
    facts = []
    train(type(recipe).model_validate(values), folder, None, facts.append)
    return *load_checkpoint(folder / "last.safetensors"), facts[0]["loss"]


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("resnet", {"depths": [1, 2, 1, 1], "width": 8, "bottleneck": True}),
        ("efficientnet", {"width": 0.2, "depth": 0.2}),
        ("convnext", {"depths": [1, 1, 2, 1], "width": 8}),
    ],
)
def test_any_depth_and_width_on_linear_spectrograms(clips, tmp_path, architecture, arguments):
    linear = {"mel_scale": "linear", "n_mels": 127, "f_max": 4000.0}  # all bins but the first and the last
    augment = {"f_max_range": 0}
    network, info, loss = trained(clips, tmp_path, architecture, arguments, front_end=linear, augment=augment)
    assert np.isfinite(loss)
    assert (info.front_end.mel_scale, info.front_end.n_mels) == ("linear", 127)
    assert {name: getattr(network.config, name) for name in arguments} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("architecture", LARGE)
def test_the_larger_sizes(clips, tmp_path, architecture):
    assert np.isfinite(trained(clips, tmp_path, architecture, {})[2])
