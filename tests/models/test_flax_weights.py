"""audax's variables are converted to state dicts, or raise."""

import numpy as np
import pytest
import torch
from audax_golden import flax_shapes, on_meta, variables

from earmark.errors import ModelError
from earmark.features.learned import LEAF
from earmark.models import create_model
from earmark.models.flax_weights import flax_names, state_dict_from_flax
from earmark.models.waveform_network import WaveformNetwork

NAMES = ["resnet18", "resnet50", "efficientnet_b1", "convnext_tiny"]


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_has_a_name_of_its_own(name):
    network = on_meta(name)
    names = flax_names(network)
    assert len(set(names.values())) == len(names)
    rest = set(network.state_dict()) - set(names)
    assert all(key.endswith("num_batches_tracked") for key in rest)


def test_names_of_blocks():
    names = flax_names(on_meta("resnet50"))
    assert names["layer2.0.conv3.weight"] == "params/encoder/BottleneckResNetBlock_3/Conv_2/kernel"
    assert names["layer2.0.downsample.1.running_var"] == (
        "batch_stats/encoder/BottleneckResNetBlock_3/norm_proj/var"
    )
    names = flax_names(on_meta("efficientnet_b1"))
    assert names["blocks.1.block.2.0.weight"].endswith("MBConv_1/ConvNormActivation_1/Conv_0/kernel")
    assert names["blocks.2.block.2.fc2.weight"].endswith("MBConv_2/SqueezeAndExcitation_0/expand/kernel")
    names = flax_names(on_meta("convnext_tiny"))
    assert names["stages.2.8.gamma"] == "params/encoder/ConvNeXtStage_2/ConvNeXtBlock_8/gamma"
    assert names["head.bias"] == "params/fc/bias"


def test_kernels_are_reversed():
    network = on_meta("resnet18", num_classes=3)
    given = variables(flax_shapes(network))
    state = state_dict_from_flax(network, given)
    kernel = given["params/encoder/ResNetBlock_2/conv_proj/kernel"]  # (frame, mel, in, out)
    np.testing.assert_array_equal(state["layer2.0.downsample.0.weight"][5, 7, 0, 0], kernel[0, 0, 7, 5])
    kernel = given["params/encoder/conv_init/kernel"]
    np.testing.assert_array_equal(state["conv1.weight"][9, 0, 2, 6], kernel[6, 2, 0, 9])
    assert state["bn1.num_batches_tracked"].dtype == torch.int64
    network.load_state_dict(state, assign=True)


def test_learned_front_end():
    network = WaveformNetwork(on_meta("resnet18", num_classes=3), LEAF)
    given = variables(flax_shapes(network.network))
    kernel = np.arange(128, dtype=np.float32).reshape(64, 2)
    front = dict.fromkeys(("features.centre", "features.width"), "params/frontend/complex_conv/gabor_kernel")
    names = flax_names(network)
    assert front.items() <= names.items()
    for key, path in names.items():
        if key.startswith("features."):
            given[path] = np.full(64, 2, np.float32)
    given[front["features.centre"]] = kernel
    given["params/frontend/pooling/kernel"] = np.full((1, 1, 64, 1), 0.3, np.float32)
    state = state_dict_from_flax(network, given)
    assert state["features.centre"].tolist() == kernel[:, 0].tolist()
    assert state["features.width"].tolist() == kernel[:, 1].tolist()
    assert state["features.lowpass"].tolist() == pytest.approx([0.3] * 64)
    network.load_state_dict(state, assign=True)


@pytest.mark.parametrize(
    ("path", "array", "problem"),
    [
        ("params/fc/bias", None, r"missing \['params/fc/bias'\]"),
        ("params/fc/scale", np.zeros(3, np.float32), r"unknown \['params/fc/scale'\]"),
        ("params/fc/bias", np.zeros(4, np.float32), "fc.bias"),
        ("params/fc/kernel", np.zeros((3, 512), np.float32), "fc.weight"),
    ],
)
def test_weights_that_do_not_fit_raise(path, array, problem):
    network = on_meta("resnet18", num_classes=3)
    given = variables(flax_shapes(network))
    if array is None:
        del given[path]
    else:
        given[path] = array
    with pytest.raises(ModelError, match=problem):
        state_dict_from_flax(network, given)


def test_other_families_raise():
    with pytest.raises(ModelError, match="MobileNet"):
        flax_names(create_model("mn01"))
