"""Fused networks have the outputs of the networks that they were made of.

Untested without ../shared: golden weights of EfficientAT and SP4ASC, and SP4ASC's own fused weights.
"""

import copy
from pathlib import Path

import audax_golden
import numpy as np
import pytest
import sound_clf
import torch
from golden_weights import build_tensors, own_arguments, read_index, read_manifest, settle
from parity import golden_names, log_mel, relative
from safetensors.torch import load_file
from test_registry import NAMES
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.evaluation.test_time_augmentation import mask_value
from earmark.features.front_end import FrontEnd
from earmark.features.learned import LEAF
from earmark.features.presets import SP4ASC
from earmark.model_file.info import ModelInfo
from earmark.models import Network, create_model
from earmark.models.checkpoint import load_checkpoint, save_checkpoint
from earmark.models.fuse_batch_norm import ChannelAffine, fuse_batch_norm
from earmark.models.registry import create_config
from earmark.models.waveform_network import WaveformNetwork
from earmark.models.weights import head_tensor_names, replace_head

TOLERANCE = 3e-5
"""Of logits and embedding, relative to the largest where that is above 1."""
SHARED_GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
QUICK = {"mn01", "mn01_fc_se_c", "dymn04_no_dyconv"}


def efficientat() -> list:
    names = [*golden_names(SHARED_GOLDEN / "efficientat", "mn")] if SHARED_GOLDEN.is_dir() else []
    names += golden_names(SHARED_GOLDEN / "efficientat", "dymn") if SHARED_GOLDEN.is_dir() else []
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in names]


def lively(name: str, **arguments) -> Network:
    """A network all of whose norms do something."""
    torch.manual_seed(0)
    network = create_model(name, **{"num_classes": 3, **arguments})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return settle(network)


def spectrograms(network: Network) -> Tensor:
    mels = getattr(network.config, "n_mels", 128)
    return torch.randn(2, mels, 40, generator=torch.Generator().manual_seed(1))


def fuse(network: Network, eps: float | None = None) -> Network:
    """A fused copy in evaluation mode."""
    fused = copy.deepcopy(network).eval()
    fuse_batch_norm(fused, eps)
    return fused


def norms(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def difference(network: Network, other: Network, given: Tensor) -> float:
    pairs = zip(network(given), other(given), strict=True)
    return max(relative(got, wanted.numpy()) for wanted, got in pairs)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_outputs_of_every_network_stay_equal(name):
    network = lively(name).double()  # in 32 bits, rounding alone makes 5e-5 of resnetish50's random weights
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fused = fuse(network)
    assert difference(network, fused, spectrograms(network).double()) <= 1e-10
    assert not norms(fused)
    assert fused.config == create_config(name, num_classes=3, fused=True)
    assert not network.config.fused
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    channels = sum(norm.num_features for norm in norms(network))
    biased = {"alexnet": 1152, "audio_ntt2020": 192}.get(name, 0)  # their convolutions have a bias before
    first = 256 if name == "cnn6_60k" else 0  # a norm that stays as scale and offset
    assert count(network) - count(fused) == channels + biased - first


@pytest.mark.parametrize("name", efficientat())
@torch.no_grad()
def test_outputs_stay_equal_with_golden_weights(shared, name):
    golden = shared / "golden" / "efficientat"
    entry = read_index(golden)[name]
    network = create_model(
        "dymn" if name.startswith("dymn") else "mobilenet", **own_arguments(entry["build_kwargs"])
    )
    network.load_state_dict(build_tensors(read_manifest(golden, entry["weights"])["tensors"]))
    spectrogram, exact = log_mel(golden, "synth", entry["mel"])
    fused = fuse(network)
    assert difference(network.eval(), fused, spectrogram) <= TOLERANCE
    if exact and entry["update_params_epoch"] is None:
        wanted = np.load(golden / "models" / f"{name}.npz")["logits"][0]
        assert relative(fused(spectrogram).logits[0], wanted) <= 1e-3 if name.endswith("_add") else TOLERANCE


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] * ("18" not in case))
        for case in sound_clf.cases()
        if case.endswith("he/T101") and "vggish" not in case  # which has no norms
    ],
)
def test_outputs_stay_equal_with_the_weights_of_sound_clf(case):
    name, rule, length = case.split("/")
    network = sound_clf.golden_network(name, rule, num_classes=41)
    log_mels = sound_clf.golden_input(int(length.removeprefix("T")))
    fused = fuse(network)
    assert difference(network, fused, log_mels) <= TOLERANCE
    wanted = np.load(sound_clf.LOGITS)[f"{case}/logits"]
    with torch.no_grad():
        logits = fused(log_mels).logits.numpy()
    assert np.abs(logits - wanted).max() <= 1e-3 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in audax_golden.NAMES if not name.startswith("convnext")])
def test_outputs_stay_equal_with_the_weights_of_audax(name):
    network = audax_golden.golden_network(name)
    assert difference(network, fuse(network), audax_golden.spectrograms(104)) <= TOLERANCE


@pytest.fixture(scope="module")
def sp4asc(shared: Path) -> Path:
    return shared / "golden" / "sp4asc"


@pytest.mark.parametrize("weights", ["mixup", pytest.param("focal", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("eps", "kind"), [(None, "fused_eps"), (0.0, "fused")])
@torch.no_grad()
def test_is_fused_as_sp4asc_does_and_as_it_should(sp4asc, weights, eps, kind):
    numbers = np.load(sp4asc / "sp4asc.npz")
    network = create_model("cnn6_60k", num_classes=10)
    network.load_state_dict(load_file(sp4asc / f"cnn6_60k_{weights}.safetensors"))
    fused = fuse(network, eps=eps)
    assert count(fused) == 62_474
    for clip in ("metro", "r9", "synth"):
        given = torch.from_numpy(numbers[f"logmel/{clip}"].T.copy())[None]
        if eps is None:
            assert difference(network.eval(), fused, given) <= TOLERANCE
        wanted = numbers[f"{weights}/{kind}/{clip}/logits"]
        assert np.abs(fused(given).logits[0].numpy() - wanted).max() <= 1e-4


def test_its_weights_are_those_that_sp4asc_made(sp4asc):
    network = create_model("cnn6_60k", num_classes=10)
    network.load_state_dict(load_file(sp4asc / "cnn6_60k_mixup.safetensors"))
    got, wanted = (
        fuse(network, eps=0.0).state_dict(),
        load_file(sp4asc / "cnn6_60k_mixup_fused_fp32.safetensors"),
    )
    assert set(got) == set(wanted)
    for name, value in got.items():
        torch.testing.assert_close(value.flatten(), wanted[name].flatten(), rtol=1e-5, atol=1e-5)


def test_a_channel_without_variance_needs_an_epsilon():
    network = lively("mn01")
    network.features[0][1].running_var[3] = 0
    assert difference(network, fuse(network), spectrograms(network)) <= TOLERANCE
    with pytest.raises(ModelError, match=r"features\.0\.1"):
        fuse(network, eps=0.0)


@torch.no_grad()
def test_a_norm_behind_a_linear_layer_is_folded():
    network = lively("mn01")
    network.classifier = nn.Sequential(
        nn.Flatten(), nn.Linear(96 * 16, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    )
    for norm in network.classifier[2:]:
        norm.running_var.uniform_(1, 2)
        norm.running_mean.normal_()
    given = torch.randn(2, 128, 97)
    network.eval()
    fused = fuse(network)
    kinds = [nn.Flatten, nn.Linear, nn.Identity, ChannelAffine]
    assert [type(module) for module in fused.classifier] == kinds
    assert difference(network, fused, given) <= TOLERANCE


@pytest.mark.parametrize("name", ["mn01", "cnn6_60k"])
def test_a_fused_checkpoint_comes_back(name, tmp_path):
    network = lively(name)
    fused = fuse(network)
    info = ModelInfo(
        name="some",
        labels=("a", "b", "c"),
        front_end=FrontEnd(),
        task="multi_label",
        architecture=name,
        arguments={},
        window_s=1.0,
        padding="zero",
        embedding_size=fused(spectrograms(network)).embedding.shape[1],
    )
    path = tmp_path / "fused.safetensors"
    with pytest.raises(ModelError):
        save_checkpoint(path, fused, info)
    save_checkpoint(path, fused, info.changed(arguments={"fused": True}))
    loaded, _ = load_checkpoint(path)
    assert difference(fused, loaded, spectrograms(network)) == 0
    fuse_batch_norm(loaded)  # a second time changes nothing
    assert difference(fused, loaded, spectrograms(network)) == 0


def test_a_fused_network_takes_another_head():
    fused = fuse(lively("mn01"))
    other = replace_head(fused, 5)
    assert other.config.fused
    assert other(spectrograms(fused)).logits.shape == (2, 5)
    assert head_tensor_names(fused) == ("classifier.5.weight", "classifier.5.bias")


def test_a_network_behind_a_front_end_that_learns_is_fused(tmp_path):
    network = WaveformNetwork(lively("mn01"), LEAF)
    waveforms = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    fused = fuse(network.eval())
    assert not norms(fused)
    assert fused.config == fused.network.config == create_config("mn01", num_classes=3, fused=True)
    assert difference(network, fused, waveforms) <= TOLERANCE


def test_a_fused_network_still_learns():
    """The first block of Cnn6_60k takes another way in training, which has to know of the folded norm."""
    fused = fuse(lively("cnn6_60k", dropout=0.0))
    given = spectrograms(fused)
    wanted = fused(given).logits
    torch.testing.assert_close(fused.train()(given).logits, wanted, rtol=1e-4, atol=1e-5)


def test_mask_value_of_a_fused_first_norm():
    network = lively("cnn6_60k", num_classes=10)
    info = ModelInfo(
        name="scenes",
        labels=tuple("abcdefghij"),
        front_end=SP4ASC,
        task="single_label",
        architecture="cnn6_60k",
        arguments={},
        window_s=10.0,
        padding="repeat",
        embedding_size=128,
    )
    numpy = [
        {name: value.numpy() for name, value in each.state_dict().items()}
        for each in (network, fuse(network))
    ]
    wanted, got = mask_value(info, numpy[0]), mask_value(info.changed(arguments={"fused": True}), numpy[1])
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
