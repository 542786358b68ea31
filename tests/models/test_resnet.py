"""audax's ResNets: parity, and what they take and refuse."""

import json

import numpy as np
import pytest
import torch
from audax_golden import COMMITTED, assert_counts, assert_outputs, on_meta
from golden_weights import settle
from onnx_parity import assert_exports

from earmark.models import create_model
from earmark.models.layers import pad_same, same_padding
from earmark.models.resnet import ResidualBlock, ResNet, ResNetConfig


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_names_shapes_and_counts_are_audaxs(shared, name):
    assert_counts(name, json.loads((shared / "golden" / "audax" / "models.json").read_text()))


@pytest.mark.parametrize(("name", "published"), [("resnet101", 44_549_160), ("resnet152", 60_192_808)])
def test_larger_sizes_have_the_weights_of_torchvisions(name, published):
    first = 2 * 64 * 7 * 7  # ours has one input channel instead of three
    assert sum(one.numel() for one in on_meta(name, num_classes=1000).parameters()) == published - first


@torch.no_grad()
def test_width_scales_every_stage():
    network = create_model("resnet", width=8, depths=(1, 1, 1, 1), num_classes=3).eval()
    assert network(torch.randn(2, 64, 100)).embedding.shape == (2, 64)


@pytest.mark.parametrize("frames", [504, 104])
def test_outputs_match_audax(shared, frames):
    assert_outputs("resnet18", np.load(shared / "golden" / "audax" / "models.npz"), frames)


def test_outputs_match_the_committed_numbers():
    assert_outputs("resnet18", np.load(COMMITTED), 104)


@pytest.mark.parametrize("bottleneck", [False, True])
@torch.no_grad()
def test_any_size_is_taken(bottleneck):
    network = ResNet(ResNetConfig(depths=(1, 1, 1, 1), bottleneck=bottleneck, num_classes=3)).eval()
    for batch, mels, frames in [(1, 1, 1), (2, 64, 33), (3, 7, 100)]:
        output = network(torch.randn(batch, mels, frames))
        assert output.logits.shape == (batch, 3)
        assert output.embedding.shape == (batch, 2048 if bottleneck else 512)


@pytest.mark.slow
def test_exports_with_batch_and_length_left_open(info):
    network = settle(ResNet(ResNetConfig(depths=(1, 1, 1, 1), num_classes=2)))
    assert_exports(network, info)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_whole_network_exports(info, name):
    assert_exports(settle(create_model(name, num_classes=2)), info)


def test_a_block_starts_by_passing_its_input_on():
    block = create_model("resnet18", num_classes=2).eval().layer1[0]
    features = torch.rand(2, 64, 5, 7)
    assert torch.equal(block(features), features)


def test_centred_blocks_are_torchvisions():
    """The block of other families: its names, and one pixel of padding on each side."""
    block = ResidualBlock(8, 4, stride=2, bottleneck=True, norm=torch.nn.BatchNorm2d).eval()
    names = {f"{part}.weight" for part in ("conv1", "conv2", "conv3", "bn1", "bn2", "bn3")}
    assert names | {"downsample.0.weight", "downsample.1.weight"} <= set(block.state_dict())
    assert block.conv2.padding == (1, 1)
    assert block(torch.randn(1, 8, 6, 9)).shape == (1, 16, 3, 5)


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "wanted"),
    [
        (6, 3, 2, (0, 1)),
        (7, 3, 2, (1, 1)),
        (1, 3, 2, (1, 1)),
        (16000, 401, 160, (120, 121)),
        (5, 5, 1, (2, 2)),
    ],
)
def test_same_padding(length, kernel, stride, wanted):
    assert same_padding(length, kernel, stride) == wanted


def test_same_padding_of_both_axes():
    padded = pad_same(torch.ones(1, 1, 7, 6), 3, 2)[0, 0]
    assert padded.sum(0).tolist() == [7] * 6 + [0]
    assert padded.sum(1).tolist() == [0] + [6] * 7 + [0]


def test_starting_weights_have_the_spread_of_flax():
    torch.manual_seed(0)
    weight = create_model("resnet18").layer4[1].conv2.weight
    assert weight.std().item() == pytest.approx((512 * 9) ** -0.5, rel=0.01)
    assert weight.abs().max().item() <= 2 / 0.8796 * (512 * 9) ** -0.5


def test_settings_of_training_reach_the_layers(capsys):
    network = on_meta("resnet34", dropout=0.1, norm_momentum=0.2)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.2, 1e-5)}
    assert network.dropout.p == 0.1
    assert capsys.readouterr() == ("", "")
