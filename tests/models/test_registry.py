"""The contract of every registered network; unknown names and arguments."""

import copy

import pytest
import torch
from golden_weights import settle
from torch import Tensor

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.model_file.info import ModelInfo
from earmark.models import Network, Output, architectures, create_model
from earmark.models.checkpoint import load_checkpoint, save_checkpoint
from earmark.models.network import NetworkConfig
from earmark.models.registry import create_config, register

QUICK = {"mn01", "dymn04", "cnn6_60k", "resnet18", "resnetish18", "efficientnet_b0"}
SCALED = {
    *("resnet101", "resnet152", "convnext_large", "cnn14"),
    *(f"efficientnet_b{size}" for size in range(3, 8)),
}
"""Larger sizes of tested networks, whose weights are counted in the tests of the network."""
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK))
    for name in architectures()
    if name not in SCALED
]


@pytest.fixture(scope="module")
def network(request) -> Network:
    """In evaluation mode; shared by the tests of a name, which take a copy to change it."""
    torch.manual_seed(0)
    return settle(create_model(request.param, num_classes=3))


def spectrograms(network: Network, batch: int) -> Tensor:
    """Log-mels with as many mel bands as the network expects."""
    mels = getattr(network.config, "n_mels", 128)
    return torch.randn(batch, mels, 100, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("network", NAMES, indirect=True)
@torch.no_grad()
def test_a_batch_equals_its_rows(network):
    log_mel = spectrograms(network, 3)
    together = network(log_mel)
    assert together.logits.std() > 1e-3
    rows = [network(row[None]) for row in log_mel]
    assert isinstance(together, Output)
    for got, wanted in zip(together, zip(*rows, strict=True), strict=True):
        torch.testing.assert_close(got, torch.cat(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_single_class(name):
    network = create_model(name, num_classes=1).eval()
    for batch in (1, 2):
        output = network(spectrograms(network, batch))
        assert output.logits.shape == (batch, 1)
        assert output.embedding.ndim == 2
        assert output.embedding.shape[0] == batch


@pytest.mark.parametrize("network", NAMES, indirect=True)
def test_gradients_reach_every_parameter(network):
    network = copy.deepcopy(network).train()
    network(spectrograms(network, 4)).logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("network", NAMES, indirect=True)
@torch.no_grad()
def test_evaluation_is_deterministic_and_changes_nothing(network):
    log_mel = spectrograms(network, 2)
    kept, state = log_mel.clone(), {name: value.clone() for name, value in network.state_dict().items()}
    first = network(log_mel)
    torch.randn(1)
    torch.testing.assert_close(network(log_mel), first, rtol=0, atol=0)
    assert torch.equal(log_mel, kept)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("network", NAMES, indirect=True)
@torch.no_grad()
def test_checkpoint_round_trip(network, request, tmp_path):
    name = request.node.callspec.params["network"]
    info = ModelInfo(
        name="some",
        labels=("a", "b", "c"),
        front_end=FrontEnd(),
        task="multi_label",
        architecture=name,
        arguments={},
        window_s=1.0,
        padding="zero",
        embedding_size=network(spectrograms(network, 1)).embedding.shape[1],
    )
    save_checkpoint(tmp_path / "some.safetensors", network, info)
    loaded, loaded_info = load_checkpoint(tmp_path / "some.safetensors")
    assert loaded_info == info
    assert type(loaded) is type(network)
    torch.testing.assert_close(
        loaded(spectrograms(network, 2)), network(spectrograms(network, 2)), rtol=0, atol=0
    )


@pytest.mark.parametrize(("name", "wanted"), [("mn3", "mn30"), ("MN04", "mn04"), ("mobilnet", "mobilenet")])
def test_unknown_name_suggests_the_nearest(name, wanted):
    with pytest.raises(ModelError, match=wanted):
        create_model(name)


def test_unlike_name_lists_all():
    with pytest.raises(ModelError) as caught:
        create_model("???")
    assert all(name in str(caught.value) for name in architectures())


def test_unknown_argument_lists_the_allowed_ones():
    with pytest.raises(ModelError, match="classes") as caught:
        create_model("mn04", classes=3)
    allowed = str(caught.value).partition("it has ")[2].split(", ")
    assert {"num_classes", "head", "heads", "strides"} <= set(allowed)
    assert "width" not in allowed


def test_fixed_argument_raises():
    with pytest.raises(ModelError):
        create_model("mn04", width=1.0)


def test_duplicate_name_raises():
    with pytest.raises(ModelError):
        register(NetworkConfig, {"mn04": {}, "another": {}})(Network)
    assert "another" not in architectures()


def test_names_stand_for_their_widths():
    widths = {name: create_config(name).width for name in architectures() if name.startswith("mn")}
    assert widths == {
        "mn01": 0.1, "mn02": 0.2, "mn04": 0.4, "mn05": 0.5, "mn10": 1.0, "mn20": 2.0, "mn30": 3.0, "mn40": 4.0
    }  # fmt: skip
