"""Costs against those that the reference counted, and against counts by hand on small networks."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from earmark.cli import main
from earmark.errors import AudioError, ModelError
from earmark.evaluation.complexity.model_cost import complexity
from earmark.evaluation.complexity.network_cost import measure
from earmark.hub.registry import published
from earmark.model_file.info import ModelInfo
from earmark.models import Network, Output, architectures, create_model
from earmark.models.checkpoint import save_checkpoint
from earmark.models.network import NetworkConfig

ARGUMENTS = {"width_mult": "width", "head_type": "head", "use_dy_blocks": "dynamic_blocks"}
PUBLISHED = [
    "mn10_im_pytorch", "mn01_im", "mn02_im", "mn04_im", "mn05_im", "mn20_im", "mn30_im", "mn40_im",
    "mn10_as", "mn10_as_hop_5", "mn10_as_hop_15", "mn10_as_hop_20", "mn10_as_hop_25", "mn10_as_mels_40",
    "mn10_as_mels_64", "mn10_as_mels_256", "mn10_as_fc", "mn10_as_fc_s2221", "mn10_as_fc_s2211", "dymn04_im",
    "dymn10_im", "dymn20_im", "dymn20_as", "dymn04_replace_se_as", "dymn10_replace_se_as",
]  # fmt: skip
OTHERS = [
    "tiny_w0.1_fc_se_f (README)", "w0.1_fc_se_none", "w0.1_fc_se_t", "w1.0_mhap4", "w1.0_se_none",
    "w1.0_s1222", "w1.0_s1111", "w0.6", "w0.8",
]  # fmt: skip


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict:
    return json.loads((shared / "golden/efficientat/pipeline/complexity.json").read_text())


def on_meta(architecture: str, **arguments: object) -> Network:
    with torch.device("meta"):
        return create_model(architecture, **arguments)


def assert_equal_costs(cost: object, wanted: dict, sliced: float | None) -> None:
    """All of a cost but what the reference could not count, or counted without dynamic convolutions."""
    extended = wanted.get("macs_extended", {"total": wanted["macs_reference_rule"]})
    assert cost.parameters == wanted["params"]
    assert cost.macs == extended["total"]
    assert list(cost.receptive_field) == wanted["receptive_field_freq_time"]
    assert cost.peak_memory_efficient_kb == (None if sliced is None else pytest.approx(sliced))
    assert bool(cost.peak_memory_efficient_note) == (sliced is None)
    if wanted["family"] == "mn":
        assert cost.peak_memory_kb == pytest.approx(wanted["peak_kB_plain_16bit"])


def wanted_in_slices(wanted: dict) -> float | None:
    """The reference's number; where it gave up on blocks of two layers, the rule's by hand."""
    value = wanted["peak_kB_memory_efficient_16bit"]
    if not isinstance(value, str):
        return value
    # first block: spectrogram, its own 8 channels, and two slices of one channel of 64 x 500
    return 2 * (128 * 1000 + (8 + 2) * 64 * 500) / 1000 if wanted["family"] == "mn" else None


def test_changes_go_to_the_network_or_the_front_end():
    usual, changed = complexity("mn10"), complexity("mn10", changes={"n_mels": 64, "hop_length": 640})
    assert (changed.n_mels, changed.num_frames) == (64, 500)
    assert changed.cost.parameters == usual.cost.parameters
    assert changed.cost.peak_memory_kb == usual.cost.peak_memory_kb / 4
    assert complexity("mn10", changes={"se_dims": "none"}).cost.parameters < usual.cost.parameters
    assert complexity("mobilenet", changes={"width": 0.4}).cost == complexity("mn04").cost
    assert complexity("mn10", bits=8).cost.peak_memory_kb == usual.cost.peak_memory_kb / 2


@pytest.mark.parametrize("changes", [{"n_mel": 64}, {"n_mels": 0}, {"width": 2.0}, {"head": "x"}])
def test_changes_that_are_not_possible(changes):
    with pytest.raises(ModelError, match=next(iter(changes))):
        complexity("mn10", changes=changes)


def test_every_golden_is_tested(golden: dict) -> None:
    assert {name for name, wanted in golden.items() if "same_as" not in wanted} <= {*PUBLISHED, *OTHERS}


QUICK = {"mn10_im_pytorch", "mn01_im", "mn10_as_hop_15", "dymn04_im"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PUBLISHED]
)
def test_published_models_cost_what_the_reference_counted(golden: dict, name: str) -> None:
    wanted = golden[name]
    found = complexity(name)
    assert [found.n_mels, found.num_frames] == wanted["spec"][2:]
    assert_equal_costs(found.cost, wanted, wanted_in_slices(wanted))
    assert published()[name].params == found.cost.parameters
    assert published()[name].macs == found.cost.macs


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(published()) - set(PUBLISHED)))
def test_published_models_cost_what_their_entries_say(name: str) -> None:
    entry, cost = published()[name], complexity(name).cost
    assert (entry.params, entry.macs) == (cost.parameters, cost.macs)


@pytest.mark.parametrize("name", OTHERS)
def test_variants_cost_what_the_reference_counted(golden: dict, name: str) -> None:
    wanted = golden[name]
    arguments = {ARGUMENTS.get(key, key): value for key, value in wanted["kwargs"].items()}
    network = on_meta("mobilenet", **arguments)
    assert_equal_costs(measure(network, *wanted["spec"][2:]), wanted, wanted_in_slices(wanted))


def test_dynamic_convolutions_count_in_memory(golden: dict) -> None:
    """The reference leaves them out: its peak of a DyMN is that of the first convolution."""
    stem = 2 * (128 * 1000 + 16 * 64 * 500) / 1000
    assert golden["dymn10_as"]["peak_kB_plain_16bit"] == stem
    widest = 2 * (16 + 64) * 64 * 500 / 1000
    assert complexity("dymn10_as").cost.peak_memory_kb == pytest.approx(widest, rel=0.02)
    assert complexity("dymn10_replace_se_as").cost.peak_memory_kb == widest


def test_mn10() -> None:
    assert asdict(complexity("mn10").cost) == {
        "parameters": 4876831,
        "macs": 541085095,
        "peak_memory_kb": 5120.0,
        "peak_memory_efficient_kb": 2048.0,
        "peak_memory_efficient_note": "",
        "receptive_field": (595, 595),
    }


ONE_OF_EACH = {
    "mn01",
    "dymn04",
    "cnn6_60k",
    "resnet18",
    "resnetish18",
    "vggish",
    "efficientnet_b0",
    "convnext_tiny",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in ONE_OF_EACH)) for name in architectures()],
)
def test_every_architecture_has_costs(name: str) -> None:
    found = complexity(name, 2.0)
    cost = found.cost
    assert cost.parameters == sum(parameter.numel() for parameter in on_meta(name).parameters())
    assert cost.macs > cost.parameters / 2
    assert min(cost.receptive_field) > 1
    largest = found.n_mels * found.num_frames * 2 / 1000
    assert cost.peak_memory_kb > largest
    assert (cost.peak_memory_efficient_kb is None) == bool(cost.peak_memory_efficient_note)


class Small(Network):
    """A network of any layers; the embedding is the mean of the map."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(NetworkConfig())
        self.layers = nn.Sequential(*layers)

    def forward(self, log_mel: Tensor) -> Output:
        features = self.layers(log_mel.unsqueeze(1))
        return Output(features.flatten(1), features.mean((2, 3)))


class Residual(nn.Sequential):
    def forward(self, features: Tensor) -> Tensor:
        return features + super().forward(features)


class Turned(nn.Sequential):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.transpose(2, 3)).transpose(2, 3)


class AtEachPosition(nn.Sequential):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Excited(nn.Module):
    """Scales by a function of the mean over all frames, which must not count for the receptive field."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, (7, 1), padding=(3, 0))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.conv(features.mean(3, keepdim=True))


def test_counts_by_hand() -> None:
    network = Small(
        nn.Conv2d(1, 4, 3, 2, 1),  # 4 maps of 4 x 10
        Residual(
            nn.Conv2d(4, 4, (1, 3), padding=(0, 1), groups=2, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1)
        ),
        nn.MaxPool2d(2),  # 4 maps of 2 x 5
        AtEachPosition(nn.Linear(4, 8)),
    )
    cost = measure(network, 8, 20)
    convolutions = 160 * (9 + 1) + 160 * 2 * 3 + 160 * (4 + 1)
    assert cost.macs == convolutions + 10 * (4 * 8 + 8)
    assert cost.parameters == 4 * 10 + 4 * 2 * 3 + 4 * 5 + 8 * 5
    assert cost.peak_memory_kb == 2 * 3 * 160 / 1000, "the last convolution: in, out, and what is added to it"
    assert cost.peak_memory_efficient_kb is None


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([nn.Conv2d(1, 1, (3, 1)), nn.Conv2d(1, 1, (1, 5), stride=(1, 2)), nn.Conv2d(1, 1, 3)], (5, 9)),
        ([Turned(nn.Conv2d(1, 1, (3, 1)))], (1, 3)),
        ([nn.Conv2d(1, 1, 3, dilation=(1, 4)), nn.AvgPool2d(2), nn.Conv2d(1, 1, 3)], (8, 14)),
        ([nn.MaxPool2d((1, 4)), nn.Conv2d(1, 1, 3)], (3, 12)),
        ([nn.Conv2d(1, 1, 3), Residual(nn.Conv2d(1, 1, 3, padding=1)), Excited()], (5, 5)),
    ],
)
def test_receptive_field_by_hand(layers: list[nn.Module], field: tuple[int, int]) -> None:
    assert measure(Small(*layers), 40, 60).receptive_field == field


def test_a_linear_layer_over_frames_counts_once() -> None:
    class OverFrames(Network):
        def __init__(self) -> None:
            super().__init__(NetworkConfig())
            self.linear = nn.Linear(8, 3)

        def forward(self, log_mel: Tensor) -> Output:
            logits = self.linear(log_mel.transpose(1, 2)).mean(1)
            return Output(logits, logits)

    assert measure(OverFrames(), 8, 20).macs == 8 * 3 + 3


def test_the_network_is_not_changed() -> None:
    network = create_model("mn01", num_classes=3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert measure(network, 32, 50) == measure(on_meta("mn01", num_classes=3), 32, 50)
    assert network.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_complexity_of_files(
    toy_model: Path, info: ModelInfo, exported: tuple[Network, Path], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "toy.safetensors"
    save_checkpoint(checkpoint, exported[0], info)
    for path in (toy_model, checkpoint):
        found = complexity(str(path), 0.5)
        assert found.architecture == "mn01"
        assert (found.n_mels, found.num_frames) == (32, info.front_end.num_frames(4000))
        assert found.cost.parameters == sum(weight.numel() for weight in exported[0].parameters())
        assert found.file_bytes == path.stat().st_size
    assert complexity("mn10").file_bytes is None


@pytest.mark.parametrize(
    ("model", "seconds", "message"),
    [
        ("mn10_sa", 10.0, "did you mean mn10_as or"),
        ("zzz", 10.0, "unknown model, file or architecture 'zzz'"),
        ("mn10", 0.0, "above 0"),
        ("mn10", float("nan"), "above 0"),
    ],
)
def test_complexity_errors(model: str, seconds: float, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        complexity(model, seconds)
    with pytest.raises(AudioError, match="samples"):
        complexity("mn10", 0.01)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["complexity", "mn10_as"])
    assert not ended.value.code
    assert capsys.readouterr().out.startswith(
        "Model 'mn10_as' has 4.88 million parameters and inference of a single 10-seconds audio clip "
        "requires 0.54 billion multiply-accumulate operations.\n"
    )
    with pytest.raises(SystemExit):
        main(
            [
                "complexity",
                "cnn6_60k" if "cnn6_60k" in architectures() else "mn04",
                "--seconds",
                "5",
                "--json",
            ]
        )
    reported = json.loads(capsys.readouterr().out)
    assert reported["seconds"] == 5
    assert {"parameters", "macs", "peak_memory_kb", "receptive_field", "file_bytes"} <= set(reported)


@pytest.mark.parametrize(
    ("change", "wanted"), [("n_mels=64", "64 mel bands"), ("se_dims=c", "595 bands"), ("head", "such as")]
)
def test_changes_on_the_command_line(change: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["complexity", "mn10", "--set", change])
    out, err = capsys.readouterr()
    if "=" in change:
        assert wanted in out
    else:
        assert stopped.value.code == 2
        assert "n_mels=64" in err
