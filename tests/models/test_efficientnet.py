"""audax's EfficientNets: parity, and what they take and refuse."""

import json

import numpy as np
import pytest
import torch
from audax_golden import COMMITTED, assert_counts, assert_outputs, on_meta
from golden_weights import settle
from onnx_parity import assert_exports

from earmark.models import create_model
from earmark.models.efficientnet import EfficientNet, EfficientNetConfig, efficientnet_blocks
from earmark.models.layers import DropPath


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b1", "efficientnet_b2"])
def test_names_shapes_and_counts_are_audaxs(shared, name):
    assert_counts(name, json.loads((shared / "golden" / "audax" / "models.json").read_text()))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("efficientnet_b3", 12_233_232),
        ("efficientnet_b4", 19_341_616),
        ("efficientnet_b5", 30_389_784),
        ("efficientnet_b6", 43_040_704),
        ("efficientnet_b7", 66_347_960),
    ],
)
def test_larger_sizes_have_the_weights_of_torchvisions(name, published):
    network = on_meta(name, num_classes=1000)
    blocks = efficientnet_blocks(network.config)
    biases = sum(block.expanded + block.in_channels // 4 for block in blocks)  # of its squeeze-excitation
    first = 2 * 9 * blocks[0].in_channels  # ours has one input channel instead of three
    assert sum(one.numel() for one in network.parameters()) == published - biases - first


@pytest.mark.parametrize("frames", [504, 104])
def test_outputs_match_audax(shared, frames):
    assert_outputs("efficientnet_b0", np.load(shared / "golden" / "audax" / "models.npz"), frames)


def test_outputs_match_the_committed_numbers():
    assert_outputs("efficientnet_b0", np.load(COMMITTED), 104)


def small(**arguments) -> EfficientNet:
    return EfficientNet(EfficientNetConfig(width=0.25, depth=0.3, num_classes=2, **arguments))


@torch.no_grad()
def test_any_size_is_taken():
    network = small().eval()
    for batch, mels, frames in [(1, 1, 1), (2, 64, 33), (3, 7, 100)]:
        output = network(torch.randn(batch, mels, frames))
        assert output.logits.shape == (batch, 2)
        assert output.embedding.shape == (batch, 320)


@pytest.mark.slow
def test_exports_with_batch_and_length_left_open(info):
    assert_exports(settle(small()), info)


@pytest.mark.slow
def test_the_whole_network_exports(info):
    assert_exports(settle(create_model("efficientnet_b0", num_classes=2)), info)


def test_names_stand_for_their_sizes():
    tables = {
        name: efficientnet_blocks(on_meta(f"efficientnet_{name}").config) for name in ("b0", "b1", "b2")
    }
    assert {name: (len(table), 4 * table[-1].out_channels) for name, table in tables.items()} == {
        "b0": (16, 1280),
        "b1": (23, 1280),
        "b2": (23, 1408),
    }


def test_branches_are_dropped_ever_more_often():
    shares = [block.drop_path.drop_rate for block in on_meta("efficientnet_b0", drop_path=0.32).blocks]
    assert shares == pytest.approx([0.02 * index for index in range(16)])


def test_a_dropped_branch_is_made_up_for():
    torch.manual_seed(0)
    drop, features = DropPath(0.25), torch.ones(4000, 2, 1, 1)
    dropped = drop(features)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped[:, 0], dropped[:, 1]), "of an item all or nothing"
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(features) is features
