"""Naming schemes of published tensors."""

import pytest
import torch
from published_case import write_table

from earmark.hub import registry
from earmark.hub.layouts import LAYOUTS
from earmark.hub.pretrained import load_network
from earmark.hub.pull import pull
from earmark.models import create_model


@pytest.fixture(scope="module")
def ours() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create_model("mn10", num_classes=1000).state_dict()


@pytest.fixture(scope="module")
def theirs(ours) -> dict[str, torch.Tensor]:
    """torchvision's names and shapes, restated: 1x1 convolutions as squeeze-excitation, three channels."""
    tensors = {}
    for name, tensor in ours.items():
        if ".conc_se_layers.0." in name:
            tensors[name.replace(".conc_se_layers.0.", ".")] = (
                tensor[..., None, None] if tensor.ndim == 2 else tensor
            )
        else:
            renamed = name.replace("classifier.2.", "classifier.0.")
            tensors[renamed.replace("classifier.5.", "classifier.3.")] = tensor
    tensors["features.0.0.weight"] = torch.randn(16, 3, 3, 3)
    assert tensors["features.4.block.2.fc1.weight"].shape == (24, 72, 1, 1)
    assert tensors["classifier.3.weight"].shape == (1000, 1280)
    return tensors


def test_torchvision_names_become_ours(ours, theirs):
    tensors = LAYOUTS["torchvision"]({name: tensor.numpy() for name, tensor in theirs.items()})
    assert list(tensors) == list(ours)
    assert {name: values.shape for name, values in tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in ours.items()
    }


def test_weights_of_torchvision_start_a_training(ours, theirs, tmp_path, monkeypatch):
    """Their files have the format before PyTorch 1.6."""
    file = tmp_path / "mobilenet_v3_large.pth"
    torch.save(theirs, file, _use_new_zipfile_serialization=False)
    entry = {"architecture": "mn10", "num_classes": 1000, "layout": "torchvision"}
    table = write_table(tmp_path / "published.toml", "http://127.0.0.1:9", vision=entry)
    monkeypatch.setattr(registry, "_TABLE", table)
    assert pull("vision", file=file) == registry.published_model("vision").checkpoint
    network, info = load_network("vision")
    assert (info.embedding_size, len(info.labels)) == (960, 1000)
    expected = {**ours, "features.0.0.weight": theirs["features.0.0.weight"].sum(1, keepdim=True)}
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
