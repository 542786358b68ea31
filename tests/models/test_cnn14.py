"""Cnn14: the published layout, PyTorch's own layers as the oracle, and conversion of a checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import settle
from onnx_parity import assert_exports
from torch import nn
from torch.nn import functional

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.mel import mel_filter_bank
from earmark.features.presets import PANNS, SP4ASC
from earmark.hub.convert import convert
from earmark.inference.load import load
from earmark.models import Network, create_model

SMALL = {"width": 2}


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = create_model("cnn14", num_classes=3, **SMALL)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return settle(network)


def published(state: dict[str, torch.Tensor], log_mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and embedding by the published program, from log-mels (batch, frame, mel)."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{name}.{part}"] for part in names))

    x = norm(log_mel[:, None].transpose(1, 3), "bn0").transpose(1, 3)
    for block in range(1, 7):
        for layer in (1, 2):
            kernels = state[f"conv_block{block}.conv{layer}.weight"]
            x = norm(functional.conv2d(x, kernels, padding=1), f"conv_block{block}.bn{layer}").relu()
        x = functional.avg_pool2d(x, 2) if block < 6 else x
    x = x.mean(3)
    x = x.max(2).values + x.mean(2)
    x = functional.linear(x, state["fc1.weight"], state["fc1.bias"]).relu()
    return functional.linear(x, state["fc_audioset.weight"], state["fc_audioset.bias"]), x


def test_has_as_many_parameters_as_published():
    with torch.device("meta"):
        network = create_model("cnn14")
    assert sum(weights.numel() for weights in network.parameters()) == 80_753_615
    assert network.fc_audioset.weight.shape == (527, 2048)


@pytest.mark.parametrize("frames", [32, 101])
@torch.no_grad()
def test_outputs_match_the_published_program(network, frames):
    log_mel = torch.randn(2, 64, frames)
    logits, embedding = published(network.state_dict(), log_mel.transpose(1, 2))
    output = network(log_mel)
    torch.testing.assert_close(output.embedding, embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits, logits, rtol=1e-4, atol=1e-5)
    assert embedding.std() > 1e-3


@torch.no_grad()
def test_a_clip_that_is_too_short_is_repeated_and_other_bands_are_refused(network):
    log_mel = torch.randn(1, 64, 5)
    torch.testing.assert_close(network(log_mel), network(log_mel.repeat(1, 1, 7)[:, :, :32]))
    with pytest.raises(ModelError, match="64 mel bands"):
        network(torch.randn(1, 80, 100))


def test_the_front_end_has_the_published_constants():
    """Those of PANNs' main command; the rest is torchlibrosa's."""
    constants = (PANNS.sample_rate, PANNS.n_fft, PANNS.hop_length, PANNS.n_mels, PANNS.f_min, PANNS.f_max)
    assert constants == (32000, 1024, 320, 64, 50, 14000)
    same = ("window_symmetric", "mel_scale", "mel_norm", "log", "floor_mode", "floor", "preemphasis", "power")
    assert all(getattr(PANNS, name) == getattr(SP4ASC, name) for name in same)


def write(path: Path, network: Network, front_end: FrontEnd) -> Path:
    """A checkpoint as PANNs' program writes it, with the constants of its spectrogram."""
    filters = torch.from_numpy(mel_filter_bank(front_end).T.astype(np.float32))
    kernels = {
        f"spectrogram_extractor.stft.conv_{part}.weight": torch.ones(513, 1, 8) for part in ("real", "imag")
    }
    state = {**kernels, "logmel_extractor.melW": filters, **network.state_dict()}
    torch.save({"iteration": 600000, "model": state}, path)
    return path


@pytest.mark.slow
def test_a_checkpoint_is_converted(network, tmp_path):
    how = {
        "architecture": "cnn14",
        "arguments": {**SMALL, "num_classes": 3},
        "front_end": "panns",
        "task": "multi_label",
        "window_s": 1.0,
    }
    convert(write(tmp_path / "cnn14.pth", network, PANNS), tmp_path / "cnn14.onnx", **how)
    waveform = (0.1 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)
    result = load(tmp_path / "cnn14.onnx").tag(waveform, 32000)
    assert result.embedding.shape == (64,)
    other = write(tmp_path / "other.pth", network, SP4ASC)
    with pytest.raises(ModelError, match="mel filters"):
        convert(other, tmp_path / "other.onnx", **how)
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.slow
def test_exports_with_batch_and_length_left_open(network, info):
    assert_exports(network, info.changed(front_end=PANNS), [(1, 1), (2, 7), (3, 36), (1, 71)])
