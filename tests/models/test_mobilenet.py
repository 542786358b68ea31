"""MobileNet: parity with the published networks, and shapes.

tests/golden/mobilenet.npz has, for four small networks, the manifest, the build arguments, and the
reference's logits, embedding and stage statistics of the synthetic clip. Untested without ../shared: the
other golden networks, a real recording, and other lengths.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import build_tensors, own_arguments, read_index, read_manifest, settle
from parity import (
    LENGTHS,
    assert_committed_parity,
    assert_parity,
    compute,
    golden_names,
    of_length,
    relative,
)
from torch import nn

from earmark.errors import ModelError
from earmark.models import Network, create_model
from earmark.models.layers import make_divisible

COMMITTED = Path(__file__).resolve().parents[1] / "golden" / "mobilenet.npz"
QUICK = {"mn04", "mn04_dilated", "mn04_reduced_tail", "mn01_fc_se_cft_add"}
GOLDEN = [
    "mn01", "mn02", "mn04", "mn10", "mn20", "mn40", "mn10_m40", "mn10_m256", "mn10_h160",
    "mn10_h480", "mn10_h800", "mn10_fc", "mn10_fc_s2211", "mn10_mhap4", "mn04_mhap2", "mn04_s1222",
    "mn04_dilated", "mn04_reduced_tail", "mn04_50classes", "mn04_c_r2", "mn01_fc_se_c",
    "mn01_fc_se_t", "mn01_fc_se_ct", "mn01_fc_se_none", "mn01_fc_se_f", "mn01_fc_se_ft",
    "mn01_fc_se_cft", "mn01_fc_se_cft_avg", "mn01_fc_se_cft_add", "mn01_fc_se_cft_min",
    "mn01_fc_se_f_m64", "mn10_se_f",
]  # fmt: skip


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "efficientat"


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(golden: Path, entry: dict) -> Network:
    network = create_model("mobilenet", **own_arguments(entry["build_kwargs"])).eval()
    network.load_state_dict(build_tensors(read_manifest(golden, entry["weights"])["tensors"]))
    return network


def test_list_of_goldens_is_complete(golden):
    assert sorted(GOLDEN) == golden_names(golden, "mn")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in GOLDEN]
)
@torch.no_grad()
def test_matches_golden(golden, name):
    entry = read_index(golden)[name]
    tolerance = 1e-3 if name.endswith("_add") else 2e-5  # that one's values are large
    assert_parity(build(golden, entry), golden, name, tolerance)


@pytest.mark.parametrize(
    "length", [LENGTHS[0], *(pytest.param(n, marks=pytest.mark.slow) for n in LENGTHS[1:])]
)
@torch.no_grad()
def test_other_lengths_match_golden(golden, length):
    network = build(golden, read_index(golden)["mn04"])
    logits = network(compute(of_length(golden, length))).logits[0]
    assert relative(logits, np.load(golden / "models" / "mn04_lengths.npz")[length]) <= 1e-3


@pytest.mark.parametrize("name", ["mn01", "mn04_mhap2", "mn01_fc_se_cft", "mn01_fc_se_cft_min"])
@torch.no_grad()
def test_matches_committed_golden(name):
    assert_committed_parity("mobilenet", COMMITTED, name)


@pytest.mark.parametrize("head", ["mlp", "fully_convolutional", "multihead_attention_pooling"])
@pytest.mark.parametrize("num_classes", [1, 3])
@torch.no_grad()
def test_shapes_do_not_depend_on_batch_size_or_class_count(head, num_classes):
    network = create_model("mn01", head=head, num_classes=num_classes).eval()
    for batch, mels, frames in [(1, 128, 1), (2, 40, 37), (1, 1, 1)]:
        output = network(torch.randn(batch, mels, frames))
        assert output.logits.shape == (batch, num_classes)
        assert output.embedding.shape == (batch, 96)


@pytest.mark.parametrize(
    ("axis", "shape", "setting"), [("t", (1, 128, 500), "num_frames"), ("f", (1, 64, 9), "n_mels")]
)
def test_excitation_over_mel_or_frames_needs_the_configured_size(axis, shape, setting):
    network = create_model("mn01", se_dims=axis).eval()
    with pytest.raises(ModelError, match=setting):
        network(torch.zeros(shape))


@pytest.mark.parametrize("axis", ["t", "f"])
def test_excitation_over_mel_or_frames_takes_the_size_it_was_built_for(axis):
    network = create_model("mn01", se_dims=axis, n_mels=50, num_frames=77, num_classes=2).eval()
    assert network(torch.zeros(1, 50, 77)).logits.shape == (1, 2)


@torch.no_grad()
def test_channels_last_does_not_change_outputs():
    torch.manual_seed(0)
    network, spectrogram = settle(create_model("mn04", num_classes=5)), torch.randn(2, 64, 100)
    wanted = network(spectrogram)
    assert wanted.logits.std() > 1e-3
    got = network.to(memory_format=torch.channels_last)(spectrogram)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert network.feature_maps(spectrogram)[5].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"head": "multihead_attention_pooling"}, marks=pytest.mark.slow),
        pytest.param({"head": "fully_convolutional", "se_dims": "cf", "n_mels": 64}, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_exports_with_batch_and_length_left_open(arguments):
    network = settle(create_model("mn01", num_classes=2, **arguments))
    axes = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("frame", min=33),
    }  # torch takes an axis of 1 for a fixed one
    program = torch.export.export(network, (torch.randn(2, 64, 100),), dynamic_shapes=(axes,)).module()
    for batch, frames in [(1, 333), (5, 33)]:
        spectrogram = torch.randn(batch, 64, frames)
        wanted = network(spectrogram)
        assert wanted.logits.abs().max() > 1e-4
        torch.testing.assert_close(tuple(program(spectrogram)), tuple(wanted), rtol=1e-5, atol=1e-6)


def test_settings_of_training_reach_the_layers(capsys):
    network = create_model("mn04", dropout=0.5, norm_momentum=0.1)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-3)}
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.5]
    assert capsys.readouterr() == ("", "")


def test_starting_weights_have_the_published_spread():
    torch.manual_seed(0)
    network = create_model("mn10")
    last, linear = network.features[16][0].weight, network.classifier[5]
    assert last.std().item() == pytest.approx((2 / 960) ** 0.5, rel=0.02)  # fan out: 960 channels
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not linear.bias.any()


@pytest.mark.parametrize(
    ("value", "wanted"), [(1.6, 8), (11.2, 16), (16, 16), (18.4, 24), (20, 24), (96, 96)]
)
def test_channels_are_rounded_to_eights(value, wanted):
    assert make_divisible(value) == wanted
