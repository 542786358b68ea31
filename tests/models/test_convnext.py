"""audax's ConvNeXts: parity, and what they take and refuse."""

import json

import numpy as np
import pytest
import torch
from audax_golden import COMMITTED, assert_counts, assert_outputs, on_meta
from onnx_parity import assert_exports
from torch.nn import functional

from earmark.models import create_model
from earmark.models.convnext import ConvNeXt, ConvNeXtConfig


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_small", "convnext_base"])
def test_names_shapes_and_counts_are_audaxs(shared, name):
    assert_counts(name, json.loads((shared / "golden" / "audax" / "models.json").read_text()))


def test_large_has_the_weights_of_torchvisions():
    network = on_meta("convnext_large", num_classes=1000)
    norm, first = 2 * 1536, 2 * 192 * 4 * 4  # ours has no norm after the pooling, and one input channel
    assert sum(one.numel() for one in network.parameters()) == 197_767_336 - norm - first


@pytest.mark.parametrize("frames", [504, 104])
def test_outputs_match_audax(shared, frames):
    assert_outputs("convnext_tiny", np.load(shared / "golden" / "audax" / "models.npz"), frames)


def test_outputs_match_the_committed_numbers():
    assert_outputs("convnext_tiny", np.load(COMMITTED), 104)


def small(**arguments) -> ConvNeXt:
    return ConvNeXt(ConvNeXtConfig(width=8, depths=(1, 1, 2, 1), layer_scale=0.5, num_classes=2, **arguments))


@torch.no_grad()
def test_any_size_is_taken():
    network = small().eval()
    for batch, mels, frames in [(1, 1, 1), (2, 64, 33), (3, 7, 100)]:
        output = network(torch.randn(batch, mels, frames))
        assert output.logits.shape == (batch, 2)
        assert output.embedding.shape == (batch, 64)


@torch.no_grad()
def test_what_is_too_small_is_filled_up_with_zeros():
    network, log_mel = small().eval(), torch.randn(1, 20, 9)
    torch.testing.assert_close(network(log_mel), network(functional.pad(log_mel, (0, 23, 0, 12))))
    assert network(log_mel).logits.isfinite().all()


@pytest.mark.slow
def test_exports_with_batch_and_length_left_open(info):
    torch.manual_seed(0)
    assert_exports(small().eval(), info)


@pytest.mark.slow
def test_the_whole_network_exports(info):
    network = create_model("convnext_tiny", num_classes=2).eval()
    assert_exports(network, info)


def test_no_branch_is_dropped_unless_asked_for():
    def shares(**arguments):
        network = on_meta("convnext_tiny", **arguments)
        return [block.drop_path.drop_rate for stage in network.stages for block in stage]

    assert shares() == [0.0] * 18
    assert shares(drop_path=0.17) == pytest.approx([0.01 * index for index in range(18)])


def test_starting_weights():
    torch.manual_seed(0)
    network = create_model("convnext_tiny")
    last = network.stages[3][2]
    assert last.gamma.unique().tolist() == [pytest.approx(1e-6)]
    assert last.pwconv1.weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.01)
    assert network.head.weight.std().item() == pytest.approx(768**-0.5, rel=0.01)
