"""Naming schemes of published tensors."""

import torch

from earmark.hub.layouts import LAYOUTS
from earmark.hub.registry import published
from earmark.hub.skeleton import read_skeleton
from earmark.models import create_model


def test_torchvision_layout():
    """Its names and shapes, restated: 1x1 convolutions as squeeze-excitation, three input channels."""
    ours = create_model("mn10", num_classes=1000).state_dict()
    theirs = {}
    for name, tensor in ours.items():
        if ".conc_se_layers.0." in name:
            theirs[name.replace(".conc_se_layers.0.", ".")] = (
                tensor[..., None, None] if tensor.ndim == 2 else tensor
            )
        else:
            theirs[
                name.replace("classifier.2.", "classifier.0.").replace("classifier.5.", "classifier.3.")
            ] = tensor
    theirs["features.0.0.weight"] = torch.randn(16, 3, 3, 3)
    assert theirs["features.4.block.2.fc1.weight"].shape == (24, 72, 1, 1)
    assert theirs["classifier.3.weight"].shape == (1000, 1280)
    known = published()["mobilenet_v3_large_imagenet1k_v1"]
    tensors = LAYOUTS[known.layout]({name: tensor.numpy() for name, tensor in theirs.items()})
    read_skeleton(known).check(tensors)
    expected = {**ours, "features.0.0.weight": theirs["features.0.0.weight"].sum(1, keepdim=True)}
    assert list(tensors) == list(expected)
    for name, values in tensors.items():
        torch.testing.assert_close(torch.from_numpy(values), expected[name])
