"""The small network of sound-clf-pytorch's notebook: its weights, and PyTorch's own layers as the oracle."""

import pytest
import torch
from onnx_parity import assert_exports
from torch import nn

from earmark.errors import ModelError
from earmark.models import create_model


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_model("small_cnn", num_classes=3).eval()


def test_has_as_many_parameters_as_published():
    network = create_model("small_cnn", num_classes=41)
    assert sum(weights.numel() for weights in network.parameters()) == 2_490_409
    layers = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
    assert list(network.state_dict()) == [
        f"{layer}.{part}" for layer in layers for part in ("weight", "bias")
    ]


@pytest.mark.parametrize("size", [(64, 500), (64, 101), (16, 16), (80, 33)])
@torch.no_grad()
def test_outputs_match_pytorchs_layers(network, size):
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    stages = [network.conv1, relu, network.conv2, relu, pool, network.conv3, relu, network.conv4, relu, pool]
    oracle = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(8), nn.Flatten(), network.fc1, relu)
    log_mel = torch.randn(2, *size)
    output = network(log_mel)
    torch.testing.assert_close(output.embedding, oracle(log_mel[:, None]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits, network.fc2(output.embedding))


@torch.no_grad()
def test_a_clip_that_is_too_short_is_repeated_and_too_few_bands_are_refused(network):
    log_mel = torch.randn(1, 64, 5)
    torch.testing.assert_close(network(log_mel), network(log_mel.repeat(1, 1, 4)[:, :, :16]))
    with pytest.raises(ModelError, match="16 mel bands"):
        network(torch.randn(1, 15, 100))


def test_dropout_reaches_the_layers():
    network = create_model("small_cnn", map_dropout=0.1, dropout=0.2)
    assert (network.map_dropout.p, network.dropout.p) == (0.1, 0.2)
    for name in ("map_dropout", "dropout"):
        with pytest.raises(ModelError, match=f"^{name} must be from 0 to below 1"):
            create_model("small_cnn", **{name: 1.0})
    network, log_mel = network.train(), torch.randn(1, 64, 100)
    assert not torch.equal(network(log_mel).logits, network(log_mel).logits)


@pytest.mark.slow
def test_exports_with_batch_and_length_left_open(network, info):
    assert_exports(network, info, [(1, 1), (2, 7), (3, 36), (1, 71)])
