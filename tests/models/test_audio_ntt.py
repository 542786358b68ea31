"""AudioNTT2020: the published layout, and PyTorch's own layers as the oracle."""

import pytest
import torch
from golden_weights import settle
from onnx_parity import assert_exports
from torch import nn

from earmark.errors import ModelError
from earmark.features.presets import AUDAX
from earmark.models import create_model


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return settle(create_model("audio_ntt2020", num_classes=3))


def published(state: dict[str, torch.Tensor], x: torch.Tensor, size: int = 512) -> torch.Tensor:
    """The embedding by nttcslab/byol-a's layout: conv, norm, ReLU, pool three times; two layers per frame."""
    features = nn.Sequential()
    for channels in (1, 64, 64):
        features.extend([nn.Conv2d(channels, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2, 2)])
    linear = nn.Sequential(
        nn.Linear(64 * (x.shape[1] // 8), size), nn.ReLU(), nn.Dropout(0.3), nn.Linear(size, size), nn.ReLU()
    )
    whole = nn.ModuleDict({"features": features, "fc": linear}).eval()
    whole.load_state_dict({name: value for name, value in state.items() if not name.startswith("head.")})
    maps = features(x[:, None])
    batch, channels, mels, frames = maps.shape
    rows = linear(maps.permute(0, 3, 2, 1).reshape(batch, frames, mels * channels))
    return rows.max(1).values + rows.mean(1)


def test_has_as_many_parameters_as_published():
    """600,192 without a classifier, by the published layout; 0.6 million in the paper."""
    network = create_model("audio_ntt2020", num_classes=10)
    own = [values.numel() for name, values in network.named_parameters() if not name.startswith("head.")]
    assert sum(own) == 600_192
    assert {name.split(".")[0] for name in network.state_dict()} == {"features", "fc", "head"}


@pytest.mark.parametrize(("mels", "frames"), [(64, 96), (64, 101), (60, 8)])
@torch.no_grad()
def test_outputs_match_pytorchs_layers(mels, frames):
    torch.manual_seed(0)
    network = settle(create_model("audio_ntt2020", num_classes=3, n_mels=mels))
    log_mel = torch.randn(2, mels, frames)
    output = network(log_mel)
    wanted = published(network.state_dict(), log_mel)
    torch.testing.assert_close(output.embedding, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits, network.head(output.embedding))


@torch.no_grad()
def test_a_clip_that_is_too_short_is_repeated_and_other_bands_are_refused(network):
    log_mel = torch.randn(1, 64, 3)
    torch.testing.assert_close(network(log_mel), network(log_mel.repeat(1, 1, 3)[:, :, :8]))
    with pytest.raises(ModelError, match="64 mel bands"):
        network(torch.randn(1, 80, 100))
    with pytest.raises(ModelError, match="n_mels"):
        create_model("audio_ntt2020", n_mels=7)
    with pytest.raises(ModelError, match="dropout"):
        create_model("audio_ntt2020", dropout=1.0)


@pytest.mark.slow
def test_exports_with_batch_and_length_left_open(network, info):
    assert_exports(network, info.changed(front_end=AUDAX), [(1, 1), (2, 7), (3, 36), (1, 71)])
