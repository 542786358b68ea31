"""SpecAugment inside a network: random stripes of frames and mel bands are set to zero in training.

Conventions: feature maps are (batch, channel, mel, frame).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpecAugment(nn.Module):
    """Sets random stripes of frames and of mel bands to zero, in training mode only.

    Source: Park et al., arXiv:1904.08779, drawn as in torchlibrosa: the width is uniform from 0 to the limit
    (exclusive), the begin uniform over the positions that leave at least one behind the stripe; stripes may
    overlap. The limit is at most the length of the axis. All draws come from PyTorch's CPU generator, so that
    a seed gives the same stripes on any device.

    Args:
        frames: Exclusive limit of the width of a stripe of frames, and number of stripes per item.
        mels: The same for stripes of mel bands.
    """

    def __init__(self, frames: tuple[int, int], mels: tuple[int, int]) -> None:
        super().__init__()
        self.stripes = {3: frames, 2: mels}

    def forward(self, features: Tensor) -> Tensor:
        """Masks each item of (batch, channel, mel, frame) with its own stripes."""
        if not self.training:
            return features
        for axis, (limit, count) in self.stripes.items():
            size = features.shape[axis]
            widths = torch.randint(max(1, min(limit, size)), (len(features), count))
            begins = (torch.rand(len(features), count) * (size - widths)).long()
            features = zero_stripes(features, axis, begins, widths)
        return features


def zero_stripes(features: Tensor, axis: int, begins: Tensor, widths: Tensor) -> Tensor:
    """Sets stripes of feature maps to zero.

    Args:
        features: Shape (batch, channel, mel, frame).
        axis: 2 for stripes of mel bands, 3 for stripes of frames.
        begins: First position of each stripe, shape (batch, stripe).
        widths: Width of each stripe, at least 0, same shape.

    Returns:
        Same shape as ``features``.
    """
    position = torch.arange(features.shape[axis])
    first, width = begins.unsqueeze(2), widths.unsqueeze(2)
    masked = ((position >= first) & (position < first + width)).any(1)  # (batch, position)
    masked = masked.to(features.device)
    return features.masked_fill(masked[:, None, None] if axis == 3 else masked[:, None, :, None], 0)
