"""Parity with the published networks, and what a MobileNet takes and refuses.

tests/golden/mobilenet.npz holds, for four small networks of the goldens beside the project
(golden/efficientat), the manifest, the build arguments, and the reference's logits, embedding and stage
statistics of the synthetic clip.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import build_tensors, digest, own_arguments, read_index, read_manifest, settle, synth_10s
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.frontend import FrontEnd
from earmark.models import Network, create_model
from earmark.models.layers import make_divisible
from earmark.models.log_mel import LogMel

COMMITTED = Path(__file__).resolve().parents[1] / "golden" / "mobilenet.npz"
SLOW = {"mn20", "mn40"}
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


def relative(got: Tensor, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest value where that is above 1."""
    return float(np.abs(got.numpy() - wanted).max()) / max(1.0, float(np.abs(wanted).max()))


def statistics(maps: list[Tensor]) -> Tensor:
    """Mean, population standard deviation and largest magnitude of each map: (stage, 3)."""
    rows = [(m.mean(), m.std(correction=0), m.abs().max()) for m in maps]
    return torch.tensor(rows, dtype=torch.float64)


def front_end_of(mel: str) -> FrontEnd:
    """The front-end that an index entry names: m128_h320, h160, m40."""
    parts = {part[0]: int(part[1:]) for part in mel.split("_")}
    return FrontEnd(n_mels=parts.get("m", 128), hop_length=parts.get("h", 320))


def compute(waveform: np.ndarray, front_end: FrontEnd) -> Tensor:
    return LogMel(front_end)(torch.from_numpy(waveform)[None])


@cache
def log_mel(golden: Path, clip: str, mel: str) -> tuple[Tensor, bool]:
    """The log-mel of a clip, and whether it is the reference's own."""
    front_end = front_end_of(mel)
    file = golden / "mel" / f"{clip}_m{front_end.n_mels}_h{front_end.hop_length}.npz"
    if file.exists():
        return torch.from_numpy(np.load(file)["logmel"])[None], True
    name = {"synth": "synth_10s_32k", "metro": "metro_paris_10s_32k"}[clip]
    return compute(np.load(golden / "audio" / f"{name}.npy"), front_end), False


def build(golden: Path, entry: dict) -> Network:
    network = create_model("mobilenet", **own_arguments(entry["build_kwargs"])).eval()
    network.load_state_dict(build_tensors(read_manifest(golden, entry["weights"])["tensors"]))
    return network


def test_every_golden_network_is_tested(golden):
    families = {name: entry["family"] for name, entry in read_index(golden).items()}
    files = {file.stem for file in (golden / "models").glob("*.npz")}
    assert sorted(GOLDEN) == sorted(name for name in files if families.get(name) == "mn")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in GOLDEN])
@torch.no_grad()
def test_answers_as_the_reference(golden, name):
    entry, wanted = read_index(golden)[name], np.load(golden / "models" / f"{name}.npz")
    manifest, network = read_manifest(golden, entry["weights"]), build(golden, entry)
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == {
        key: shape for key, (shape, *_) in manifest["tensors"].items()
    }
    assert digest(state) == manifest["sha256_of_all_tensors"]
    assert sum(parameter.numel() for parameter in network.parameters()) == entry["params"]
    for row, clip in enumerate(("synth", "metro")):
        spectrogram, exact = log_mel(golden, clip, entry["mel"])
        tolerance = 2e-5 if exact and not name.endswith("_add") else 1e-3
        output, maps = network(spectrogram), network.feature_maps(spectrogram)
        assert relative(output.logits[0], wanted["logits"][row]) <= tolerance
        assert relative(output.embedding[0], wanted["embedding"][row]) <= tolerance
        for stage, got in enumerate(statistics(maps)):
            assert relative(got, wanted["fmap_stats"][row][stage]) <= tolerance, f"{clip}, stage {stage}"
        if clip == "synth":
            assert [list(stage.shape) for stage in maps] == entry["fmap_shapes"]
            for stage, got in enumerate(maps):
                means = wanted[f"fmap{stage:02}_channel_means_clip0"]
                assert relative(got.mean((0, 2, 3)), means) <= tolerance, f"stage {stage}"


@pytest.mark.parametrize("length", ["synth_0.1s", "synth_1s", "synth_5s", "metro_then_synth_20s"])
@torch.no_grad()
def test_answers_as_the_reference_at_other_lengths(golden, length):
    synth = np.load(golden / "audio" / "synth_10s_32k.npy")
    metro = np.load(golden / "audio" / "metro_paris_10s_32k.npy")
    if length.startswith("metro"):
        waveform = np.concatenate([metro, synth])
    else:
        waveform = synth[: round(32000 * float(length.removeprefix("synth_").removesuffix("s")))]
    network = build(golden, read_index(golden)["mn04"])
    logits = network(compute(waveform, FrontEnd())).logits[0]
    assert relative(logits, np.load(golden / "models" / "mn04_lengths.npz")[length]) <= 1e-3


@pytest.mark.parametrize("name", ["mn01", "mn04_mhap2", "mn01_fc_se_cft", "mn01_fc_se_cft_min"])
@torch.no_grad()
def test_answers_as_the_committed_numbers(name):
    stored = np.load(COMMITTED)
    entry = json.loads(str(stored[f"{name}/entry"]))
    network = create_model("mobilenet", **entry["arguments"]).eval()
    network.load_state_dict(build_tensors(entry["manifest"]["tensors"]))
    assert digest(network.state_dict()) == entry["manifest"]["sha256_of_all_tensors"]
    spectrogram = compute(synth_10s(), FrontEnd())
    output = network(spectrogram)
    # Our own log-mel differs from the reference's at the edges of the digital silence.
    assert relative(output.logits[0], stored[f"{name}/logits"]) <= 1e-3
    assert relative(output.embedding[0], stored[f"{name}/embedding"]) <= 1e-3
    assert relative(statistics(network.feature_maps(spectrogram)), stored[f"{name}/fmap_stats"]) <= 1e-3


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ({"width": 0}, "above 0"),
        ({"width": float("nan")}, "finite"),
        ({"width": "1.0"}, "finite number"),
        ({"head": "mpl"}, "mlp, fully_convolutional, multihead_attention_pooling"),
        ({"head": ["mlp"]}, "a text"),
        ({"heads": 0}, "at least 1"),
        ({"strides": (2, 2, 2)}, "four numbers, each 1 or 2"),
        ({"strides": (2, 2, 2, 3)}, "each 1 or 2"),
        ({"strides": (2, 2, 2, [2])}, "each 1 or 2"),
        ({"strides": 2}, "four numbers"),
        ({"dilated": 1}, "true or false"),
        ({"se_dims": "cx"}, "c, f and t"),
        ({"se_dims": "cc"}, "each once"),
        ({"se_dims": ""}, "or none"),
        ({"se_agg": "sum"}, "max, min, avg, add"),
        ({"se_ratio": 0}, "at least 1"),
        ({"n_mels": 64.0}, "whole number"),
        ({"num_frames": -1}, "at least 1"),
        ({"num_classes": 0}, "at least 1"),
        ({"num_classes": True}, "whole number"),
        ({"dropout": 1.0}, "below 1"),
        ({"norm_momentum": 0}, "above 0"),
    ],
)
def test_refuses_what_cannot_be_built(arguments, allowed):
    with pytest.raises(ModelError, match=allowed) as caught:
        create_model("mobilenet", **arguments)
    assert next(iter(arguments)) in str(caught.value)


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
def test_excitation_over_mel_or_frames_refuses_other_sizes(axis, shape, setting):
    network = create_model("mn01", se_dims=axis).eval()
    with pytest.raises(ModelError, match=setting):
        network(torch.zeros(shape))


@pytest.mark.parametrize("axis", ["t", "f"])
def test_excitation_over_mel_or_frames_takes_the_size_it_was_built_for(axis):
    network = create_model("mn01", se_dims=axis, n_mels=50, num_frames=77, num_classes=2).eval()
    assert network(torch.zeros(1, 50, 77)).logits.shape == (1, 2)


@torch.no_grad()
def test_channels_last_changes_no_answer():
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
        {},
        {"head": "multihead_attention_pooling"},
        {"head": "fully_convolutional", "se_dims": "cf", "n_mels": 64},
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
