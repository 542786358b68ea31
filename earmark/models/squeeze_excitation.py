"""Squeeze-excitation over channels, mel bands or frames.

Source: Hu et al., arXiv:1709.01507; Schmid et al., arXiv:2211.04772, for several axes.

Conventions: feature maps are (batch, channel, mel, frame); an axis is named by a letter of SE_AXES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.models.layers import make_divisible

SE_AXES = {"c": 1, "f": 2, "t": 3}
"""Letter of an axis -> its position in a feature map: channel, mel ("f"), frame ("t")."""

SE_FUSIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "max": partial(torch.amax, dim=0),
    "min": partial(torch.amin, dim=0),
    "avg": partial(torch.mean, dim=0),
    "add": partial(torch.sum, dim=0),
}
"""Name -> reduction of (axis, batch, channel, mel, frame), the maps scaled along several axes, to one map."""


class AxisExcitation(nn.Module):
    """Computes scales in (0, 1) along one axis of a feature map from its mean over the other two.

    Source: Hu et al., arXiv:1709.01507, equations 2 to 4, for any of the three axes.

    Args:
        axis: 1 for channels, 2 for mel, 3 for frames.
        size: Length of the map along that axis.
        squeezed: Width of the bottleneck.
        bias: Whether the two linear layers have a bias.
        activation: Activation of the bottleneck.
    """

    def __init__(
        self,
        axis: int,
        size: int,
        squeezed: int,
        *,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, squeezed, bias)
        self.fc2 = nn.Linear(squeezed, size, bias)
        self.activation = activation
        self.pooled_axes = [other for other in SE_AXES.values() if other != axis]

    def forward(self, features: Tensor) -> Tensor:
        """Computes the scales.

        Args:
            features: Shape (batch, channel, mel, frame).

        Returns:
            The scales, of length 1 along the two other axes; (batch, channel, 1, 1) for channels.

        Raises:
            ModelError: If the mel or frame axis differs from ``size``.
        """
        pooled = features.mean(self.pooled_axes)  # (batch, size)
        # Channels always fit; not comparing them keeps mel and frame dynamic in an export.
        if 1 in self.pooled_axes and pooled.shape[1] != self.fc1.in_features:
            axis, setting = ("frame", "num_frames") if 2 in self.pooled_axes else ("mel", "n_mels")
            raise ModelError(
                f"squeeze-excitation over the {axis} axis needs {self.fc1.in_features} positions, got "
                f"{pooled.shape[1]}: use spectrograms of the network's {setting}"
            )
        scales = torch.sigmoid(self.fc2(self.activation(self.fc1(pooled))))
        for other in self.pooled_axes:
            scales = scales.unsqueeze(other)
        return scales


class SqueezeExcitation(nn.Module):
    """Multiplies a feature map by scales along one or several axes, computed in parallel from the same map.

    Source: Schmid et al., arXiv:2211.04772; golden models/mn01_fc_se_*.npz.

    Args:
        sizes: Axis letter (c, f or t) -> length of the map along it, in the order of the state dict.
        ratio: Reduction of the bottlenecks.
        fusion: Key of SE_FUSIONS.
    """

    def __init__(self, sizes: dict[str, int], ratio: int, fusion: str) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList(
            AxisExcitation(SE_AXES[letter], size, make_divisible(size // ratio))
            for letter, size in sizes.items()
        )
        self.fuse = SE_FUSIONS[fusion]

    def forward(self, features: Tensor) -> Tensor:
        """Scales the map; shapes (batch, channel, mel, frame) in and out."""
        scaled = [features * excitation(features) for excitation in self.conc_se_layers]
        # Not the scales are fused but the scaled maps, which differs where a value is negative.
        return scaled[0] if len(scaled) == 1 else self.fuse(torch.stack(scaled))
