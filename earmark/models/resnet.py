"""ResNets for log-mel spectrograms, as audax builds them.

Source: He et al., arXiv:1512.03385, table 1; golden audax/models.npz.

Conventions: a spectrogram (batch, mel, frame) becomes a one-channel image (batch, 1, mel, frame). What
shrinks the map behind the first convolution pads as flax does ("same"). The names in the state dict are
torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.models.layers import ResidualBlock, initialise_truncated, pad_same
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register

DEPTHS: dict[str, dict[str, object]] = {
    "resnet18": {"depths": (2, 2, 2, 2), "bottleneck": False},
    "resnet34": {"depths": (3, 4, 6, 3), "bottleneck": False},
    "resnet50": {"depths": (3, 4, 6, 3), "bottleneck": True},
}
WIDTH = 64
"""Channels of the first stage's blocks; each later stage has twice as many."""


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(NetworkConfig):
    """All choices of a ResNet.

    Attributes:
        num_classes: Length of the logits, at least 1.
        depths: Blocks of each of the four stages.
        bottleneck: Whether a block has three convolutions, the middle one narrow, instead of two.
        dropout: Share of the embedding's values dropped before the last layer in training.
        norm_momentum: Share of each training batch in the running statistics of the batch norms.
    """

    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    bottleneck: bool = False
    dropout: float = 0.4
    norm_momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_depths(self.depths)
        require("dropout", self.dropout, 0 <= self.dropout < 1, "a number from 0 to below 1")
        require(
            "norm_momentum", self.norm_momentum, 0 < self.norm_momentum <= 1, "a number above 0, at most 1"
        )
        object.__setattr__(self, "depths", tuple(self.depths))  # a recipe or a record gives a list


@register(ResNetConfig, DEPTHS)
class ResNet(Network):
    """A ResNet from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: All its choices; None for those of resnet18.
    """

    config: ResNetConfig
    norms: ClassVar = {"bn1": ("conv1",)}

    def __init__(self, config: ResNetConfig | None = None) -> None:
        config = config or ResNetConfig()
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=1e-5, momentum=config.norm_momentum)
        self.conv1 = nn.Conv2d(1, WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(WIDTH)
        stages, channels = [], WIDTH
        for stage, depth in enumerate(config.depths):
            width = WIDTH << stage
            stages.append(_stage(channels, width, depth, config.bottleneck, 2 if stage else 1, norm))
            channels = 4 * width if config.bottleneck else width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(channels, config.num_classes)
        initialise_truncated(self)
        for block in self.blocks:
            nn.init.zeros_(block.last_norm.weight)  # type: ignore[arg-type]

    @property
    def blocks(self) -> list[ResidualBlock]:
        """All residual blocks, first to last."""
        return [module for module in self.modules() if isinstance(module, ResidualBlock)]

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of any number of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel), 512 channels without bottlenecks, else 2048.
        """
        features = torch.relu(self.bn1(self.conv1(log_mel.unsqueeze(1))))  # (batch, 64, mel / 2, frame / 2)
        # What is pooled is not below zero: the zeros of the padding win nowhere.
        features = functional.max_pool2d(pad_same(features, 3, 2), 3, 2)  # (batch, 64, mel / 4, frame / 4)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        embedding = features.mean((2, 3))  # (batch, channel, mel / 32, frame / 32) -> (batch, channel)
        return Output(self.fc(self.dropout(embedding)), embedding)


def require_depths(depths: Any) -> None:
    """Refuses what does not give the number of blocks of four stages, with a ModelError."""
    holds = isinstance(depths, list | tuple) and len(depths) == 4
    holds = holds and all(type(depth) is int and depth >= 1 for depth in depths)
    require("depths", depths, holds, "four whole numbers of at least 1")


def _stage(
    in_channels: int, width: int, depth: int, bottleneck: bool, stride: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Blocks in a row, the first of which may shrink the map."""
    block = partial(ResidualBlock, bottleneck=bottleneck, norm=norm, padding="same")
    blocks = [block(in_channels, width, stride=stride)]
    blocks += [block(blocks[0].out_channels, width, stride=1) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)
