"""DyMN: parity with the published networks, temperature, and shapes.

tests/golden/dymn.npz has, for two small networks, the manifest, the build arguments, and the reference's
logits, embedding and stage statistics of the synthetic clip. Untested without ../shared: the other golden
networks, a real recording, other lengths, and the published temperature schedules.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import build_tensors, own_arguments, read_index, read_manifest, settle
from onnx_parity import TOLERANCE, assert_exports, graph_session, largest_difference
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
from earmark.models.checkpoint import load_checkpoint, save_checkpoint
from earmark.models.dymn import annealed_temperature
from earmark.models.dynamic_layers import DynamicConv, DynamicDepthwise
from earmark.models.registry import create_config

COMMITTED = Path(__file__).resolve().parents[1] / "golden" / "dymn.npz"
GOLDEN = [
    "dymn04", "dymn04_T30", "dymn04_epoch10", "dymn04_s2221", "dymn04_replace_se", "dymn10_replace_se",
    "dymn04_ctx_r2_64_16", "dymn04_dyconv_k2", "dymn04_dyrelu_k3", "dymn04_no_ca", "dymn04_no_dyconv",
    "dymn04_no_dyrelu",
]  # fmt: skip
QUICK = {"dymn04_epoch10", "dymn04_dyconv_k2", "dymn04_dyrelu_k3", "dymn04_no_dyconv"}
NARROW = {"width": 0.1, "min_context": 64}
KERNELS = {"num_kernels": 4, "temperature": 1.0}


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


def build(golden: Path, name: str) -> Network:
    entry = read_index(golden)[name]
    network = create_model("dymn", **own_arguments(entry["build_kwargs"])).eval()
    network.load_state_dict(build_tensors(read_manifest(golden, entry["weights"])["tensors"]))
    if entry["update_params_epoch"] is not None:
        network.set_temperature(annealed_temperature(entry["update_params_epoch"]))
    return network


def test_list_of_goldens_is_complete(golden):
    assert sorted(GOLDEN) == golden_names(golden, "dymn")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in GOLDEN]
)
@torch.no_grad()
def test_matches_golden(golden, name):
    assert_parity(build(golden, name), golden, name, 2e-5)


@pytest.mark.parametrize(
    "length", [LENGTHS[0], *(pytest.param(n, marks=pytest.mark.slow) for n in LENGTHS[1:])]
)
@torch.no_grad()
def test_other_lengths_match_golden(golden, length):
    logits = build(golden, "dymn04")(compute(of_length(golden, length))).logits[0]
    assert relative(logits, np.load(golden / "models" / "dymn04_lengths.npz")[length]) <= 1e-3


@pytest.mark.parametrize("name", ["dymn04", "dymn04_replace_se"])
@torch.no_grad()
def test_matches_committed_golden(name):
    assert_committed_parity("dymn", COMMITTED, name)


@pytest.mark.parametrize(("name", "count"), [("dymn04", 1961239), ("dymn10", 10548479), ("dymn20", 39966143)])
def test_has_the_published_number_of_parameters(name, count):
    with torch.device("meta"):
        network = create_model(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert len(network.state_dict()) == 578


def test_temperature_falls_as_in_the_reference(golden):
    schedules = json.loads((golden / "pipeline" / "dyconv_temperature.json").read_text())
    assert len(schedules) == 3
    for name, known in schedules.items():
        start, slope, late_slope, final = (known[key] for key in ("T_max", "T0_slope", "T1_slope", "T_min"))
        temperatures = [
            annealed_temperature(epoch, start=start, slope=slope, late_slope=late_slope, final=final)
            for epoch in range(len(known["per_epoch"]))
        ]
        assert temperatures == pytest.approx(known["per_epoch"], rel=1e-12), name


def test_temperature_falls_steeply_then_gently_to_the_final_one():
    assert [annealed_temperature(epoch) for epoch in (0, 10, 28, 29, 30, 200)] == [30, 20, 2, 1, 1, 1]
    late = [annealed_temperature(epoch, start=3, slope=2, late_slope=0.1, final=0.75) for epoch in range(5)]
    assert late == pytest.approx([3, 1, 0.9, 0.8, 0.75])


@torch.no_grad()
def test_temperature_evens_out_the_kernels():
    conv = DynamicConv((4, 1, 3, 3), 8, num_kernels=4, temperature=2.0)
    context = torch.randn(5, 8)
    attention = conv.attention(context)
    torch.testing.assert_close(attention.sum(1), torch.ones(5))
    torch.testing.assert_close(attention, (conv.residuals(context) / 2).softmax(1))
    conv.temperature = 1e6
    torch.testing.assert_close(conv.attention(context), torch.full((5, 4), 0.25))


def test_temperature_is_set_everywhere_and_known():
    network = create_model("dymn", temperature=30.0, **NARROW)
    convs = [module for module in network.modules() if isinstance(module, DynamicConv)]
    assert len(convs) > 30
    assert {conv.temperature for conv in convs} == {30.0}
    network.set_temperature(1.5)
    assert {conv.temperature for conv in convs} == {1.5}
    assert network.config == create_config("dymn", temperature=1.5, **NARROW)
    for temperature in (0, -1.0, float("nan")):
        with pytest.raises(ModelError, match="temperature"):
            network.set_temperature(temperature)
    assert {conv.temperature for conv in convs} == {1.5}


@torch.no_grad()
def test_a_checkpoint_keeps_the_temperature_of_its_weights(info, tmp_path):
    network = settle(create_model("dymn", num_classes=2, temperature=30.0, **NARROW))
    hot = info.changed(architecture="dymn", arguments={"temperature": 30.0, **NARROW})
    final = hot.changed(arguments={"temperature": 1.0, **NARROW})
    path, log_mel = tmp_path / "some.safetensors", torch.randn(1, 32, 50)
    with pytest.raises(ModelError):
        save_checkpoint(path, network, final)
    network.set_temperature(1.0)
    save_checkpoint(path, network, final)
    torch.testing.assert_close(load_checkpoint(path)[0](log_mel), network(log_mel), rtol=0, atol=0)
    with pytest.raises(ModelError):
        save_checkpoint(path, network, hot)


@pytest.mark.parametrize("num_classes", [1, 3])
@torch.no_grad()
def test_shapes_do_not_depend_on_batch_size_or_class_count(num_classes):
    network = create_model("dymn", num_classes=num_classes, **NARROW).eval()
    for batch, mels, frames in [(1, 128, 1), (2, 40, 37), (1, 1, 1)]:
        output = network(torch.randn(batch, mels, frames))
        assert output.logits.shape == (batch, num_classes)
        assert output.embedding.shape == (batch, 96)


@pytest.mark.parametrize("switch", ["dynamic_conv", "dynamic_relu", "coordinate_attention"])
@torch.no_grad()
def test_a_batch_equals_its_rows_with_a_part_switched_off(switch):
    network = settle(create_model("dymn", num_classes=3, **{switch: False}, **NARROW))
    network.classifier[5].weight.mul_(100)  # it starts near zero, where all outputs are alike
    log_mel = torch.randn(3, 64, 70)
    together = network(log_mel).logits
    assert together.std() > 1e-2
    torch.testing.assert_close(together, torch.cat([network(row[None]).logits for row in log_mel]))


@torch.no_grad()
def test_channels_last_does_not_change_outputs():
    network, log_mel = settle(create_model("dymn", num_classes=5, **NARROW)), torch.randn(2, 64, 100)
    network.classifier[5].weight.mul_(100)
    wanted = network(log_mel)
    assert wanted.logits.std() > 1e-2
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(log_mel), wanted, rtol=1e-5, atol=1e-6)


def test_starting_weights_have_the_published_spread():
    conv, linear = DynamicDepthwise(4000, 3, 1, 8, **KERNELS), create_model("dymn", **NARROW).classifier[5]
    assert conv.weight.detach().std((0, 1, 3)).numpy() == pytest.approx(
        (2 / 36000) ** 0.5, rel=0.02
    )  # fan out
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's own
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 2)])
@torch.no_grad()
def test_the_depthwise_convolution_exports_with_batch_and_length_left_open(kernel, stride):
    conv = DynamicDepthwise(6, kernel, stride, 8, **KERNELS)
    batch = torch.export.Dim("batch")
    axes = ({0: batch, 3: torch.export.Dim("frame", min=3)}, {0: batch})
    example = torch.randn(2, 6, 8, 20), torch.randn(2, 8)
    program = torch.export.export(conv, example, dynamic_shapes=axes).module()
    for size, frames in [(1, 33), (3, 9)]:
        features, context = torch.randn(size, 6, 8, frames), torch.randn(size, 8)
        torch.testing.assert_close(program(features, context), conv(features, context))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"dynamic_blocks": "replace_se", "relu_lines": 3}])
def test_exports_with_batch_and_length_left_open(info, arguments):
    network = settle(create_model("dymn", num_classes=2, temperature=1.5, **NARROW, **arguments))
    assert_exports(network, info)
    session, log_mel = graph_session(network, info), np.random.default_rng(0).standard_normal((2, 32, 50))
    network.set_temperature(30.0)
    assert largest_difference(network, session, log_mel.astype(np.float32)) > TOLERANCE


def test_settings_of_training_reach_the_layers(capsys):
    network = create_model("dymn", dropout=0.5, norm_momentum=0.1, **NARROW)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-3)}
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.5]
    assert capsys.readouterr() == ("", "")
