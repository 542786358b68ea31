"""Pooling of feature maps: adaptive pooling that exports with dynamic lengths, and attention pooling.

Conventions: feature maps are (batch, channel, mel, frame).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class AdaptivePool(nn.Module):
    """Adaptive mean or max pooling that exports with dynamic lengths, as ``nn.AdaptiveAvgPool2d`` does not.

    Source: PyTorch's adaptive pooling. Of k cells along n positions, cell i spans floor(i n / k) to
    ceil((i + 1) n / k); cells overlap where k does not divide n.

    Args:
        cells: Number of cells along mel and frame.
        kind: "mean" or "max".
    """

    def __init__(self, cells: tuple[int, int], kind: Literal["mean", "max"]) -> None:
        super().__init__()
        self.cells = cells
        self.kind = kind

    def forward(self, features: Tensor) -> Tensor:
        """Pools (batch, channel, mel, frame) to (batch, channel, *cells)."""
        mels, frames = self.cells
        pooled = self._along_last(features, frames).transpose(2, 3)  # (batch, channel, frame cell, mel)
        return self._along_last(pooled, mels).transpose(2, 3)

    def _along_last(self, features: Tensor, cells: int) -> Tensor:
        size = features.shape[3]
        number = torch.arange(cells, device=features.device)[:, None]
        position = torch.arange(size, device=features.device)
        inside = (position >= number * size // cells) & (
            position < ((number + 1) * size + cells - 1) // cells
        )
        if self.kind == "mean":
            share = inside.to(features.dtype)  # (cell, position)
            return features @ (share / share.sum(1, keepdim=True)).T
        return features.unsqueeze(3).masked_fill(~inside, -torch.inf).amax(4)


class AttentionPooling(nn.Module):
    """Multi-head attention pooling over frames, with one attention weight per class and head.

    Source: Gong et al., arXiv:2102.01243 (PSLA), section III; golden models/mn10_mhap4.npz.

    Args:
        channels: Channels of the feature map.
        num_classes: Number of classes.
        heads: Number of heads.
    """

    def __init__(self, channels: int, num_classes: int, heads: int) -> None:
        super().__init__()
        self.subspace_proj = nn.Linear(channels, 2 * heads * num_classes)
        self.head_weight = nn.Parameter(torch.full((1, heads, 1), 1 / heads))
        self.shape = (2, heads, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Computes logits (batch, class) of a feature map (batch, channel, mel, frame)."""
        sequence = features.mean(2).transpose(1, 2)  # (batch, frame, channel)
        attention, values = self.subspace_proj(sequence).unflatten(2, self.shape).unbind(2)
        attention = attention.sigmoid().clamp(1e-7, 1 - 1e-7)  # (batch, frame, head, class)
        attention = attention / attention.sum(1, keepdim=True)
        pooled: Tensor = (attention * values).sum(1)  # (batch, head, class)
        return (pooled * self.head_weight).sum(1)
