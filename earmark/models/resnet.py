"""ResNets for log-mel spectrograms, as in audax.

Source: He et al., arXiv:1512.03385, table 1; golden tests/golden/audax_models.npz.

Conventions: a spectrogram (batch, mel, frame) is a one-channel image (batch, 1, mel, frame). Strided layers
after the first convolution pad as flax does ("same"). Names in the state dict are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.models.layers import ConvNormActivation, Padding, convolution, pad_same
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register
from earmark.models.weight_init import init_truncated_normal

DEPTHS: dict[str, dict[str, object]] = {
    "resnet": {},
    "resnet18": {"depths": (2, 2, 2, 2), "bottleneck": False},
    "resnet34": {"depths": (3, 4, 6, 3), "bottleneck": False},
    "resnet50": {"depths": (3, 4, 6, 3), "bottleneck": True},
    "resnet101": {"depths": (3, 4, 23, 3), "bottleneck": True},
    "resnet152": {"depths": (3, 8, 36, 3), "bottleneck": True},
}


class ResidualBlock(nn.Module):
    """Basic or bottleneck residual block.

    Source: He et al., arXiv:1512.03385, figure 5, with the stride of a bottleneck in its 3 x 3 convolution.

    Args:
        in_channels: Input channels.
        width: Channels of the 3 x 3 convolutions.
        stride: Stride of the first 3 x 3 convolution.
        bottleneck: False: two 3 x 3 convolutions, ``width`` output channels; True: 1 x 1, 3 x 3 and 1 x 1,
            ``4 * width`` output channels.
        norm: Builds the batch norm of a number of channels.
        padding: As of layers.convolution.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        bottleneck: bool,
        norm: Callable[[int], nn.Module],
        padding: Padding = "centred",
    ) -> None:
        super().__init__()
        self.out_channels = 4 * width if bottleneck else width
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        widths = (in_channels, *[width] * (len(kernels) - 1), self.out_channels)
        for number, (kernel, step) in enumerate(zip(kernels, strides, strict=True), 1):
            channels = widths[number - 1], widths[number]
            self.add_module(f"conv{number}", convolution(channels, kernel, stride=step, padding=padding))
            self.add_module(f"bn{number}", norm(channels[1]))
        self.depth = len(kernels)
        self.norms = {f"bn{number}": (f"conv{number}",) for number in range(1, self.depth + 1)}
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != self.out_channels:
            channels = in_channels, self.out_channels
            self.downsample = ConvNormActivation(channels, 1, stride=stride, norm=norm, activation=None)

    @property
    def last_norm(self) -> nn.Module:
        """The last batch norm; with a scale of zero the block is the identity."""
        return self.get_submodule(f"bn{self.depth}")

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, in_channels, mel, frame) to (batch, out_channels, mel / stride, frame / stride)."""
        result = features
        for number in range(1, self.depth + 1):
            result = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(result))
            if number < self.depth:
                result = torch.relu(result)
        return torch.relu(self.downsample(features) + result)


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(NetworkConfig):
    """Configuration of a ResNet.

    Attributes:
        num_classes: Length of the logits, at least 1.
        depths: Residual blocks in each of the four stages.
        bottleneck: Whether blocks are bottlenecks of three convolutions instead of two.
        width: Channels of the first stage's 3 x 3 convolutions, at least 1; they double from stage to stage.
        dropout: Dropout rate before the last layer, from 0 to below 1.
        norm_momentum: Momentum of the batch norms' running statistics, above 0, at most 1.
    """

    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    bottleneck: bool = False
    width: int = 64
    dropout: float = 0.4
    norm_momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_depths(self.depths)
        require("width", self.width, type(self.width) is int and self.width >= 1, "an integer of at least 1")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "a number from 0 to below 1")
        require(
            "norm_momentum", self.norm_momentum, 0 < self.norm_momentum <= 1, "a number above 0, at most 1"
        )
        object.__setattr__(self, "depths", tuple(self.depths))  # TOML and JSON have lists only


@register(ResNetConfig, DEPTHS)
class ResNet(Network):
    """ResNet from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: None for resnet18.
    """

    config: ResNetConfig
    norms: ClassVar = {"bn1": ("conv1",)}

    def __init__(self, config: ResNetConfig | None = None) -> None:
        config = config or ResNetConfig()
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=1e-5, momentum=config.norm_momentum)
        self.conv1 = nn.Conv2d(1, config.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(config.width)
        stages, channels = [], config.width
        for stage, depth in enumerate(config.depths):
            stage_block = partial(
                ResidualBlock,
                width=config.width << stage,
                bottleneck=config.bottleneck,
                norm=norm,
                padding="same",
            )
            layer, channels = residual_stage(stage_block, channels, depth, stride=2 if stage else 1)
            stages.append(layer)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(channels, config.num_classes)
        init_truncated_normal(self)
        for block in self.blocks:
            nn.init.zeros_(block.last_norm.weight)  # type: ignore[arg-type]

    @property
    def blocks(self) -> list[ResidualBlock]:
        """All residual blocks, first to last."""
        return [module for module in self.modules() if isinstance(module, ResidualBlock)]

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel), at width 64 with 512 channels, or with 2048
            for bottlenecks.
        """
        features = torch.relu(
            self.bn1(self.conv1(log_mel.unsqueeze(1)))
        )  # (batch, width, mel / 2, frame / 2)
        # After the ReLU nothing is negative, so the padding's zeros never are the maximum.
        features = functional.max_pool2d(pad_same(features, 3, 2), 3, 2)  # (batch, width, mel / 4, frame / 4)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        embedding = features.mean((2, 3))  # (batch, channel, mel / 32, frame / 32) -> (batch, channel)
        return Output(self.fc(self.dropout(embedding)), embedding)


def require_depths(depths: Any) -> None:
    """Raises ModelError unless ``depths`` are the numbers of blocks of four stages."""
    holds = isinstance(depths, list | tuple) and len(depths) == 4
    holds = holds and all(type(depth) is int and depth >= 1 for depth in depths)
    require("depths", depths, holds, "four integers of at least 1")


def residual_stage(
    block: Callable[..., ResidualBlock], in_channels: int, depth: int, stride: int
) -> tuple[nn.Sequential, int]:
    """Builds residual blocks in a row, of which the first may reduce the resolution.

    Args:
        block: Builds a block of a number of input channels and a stride.
        in_channels: Input channels.
        depth: Number of blocks.
        stride: Stride of the first block.

    Returns:
        The blocks, and their output channels.
    """
    blocks = [block(in_channels, stride=stride)]
    out_channels = blocks[0].out_channels
    blocks += [block(out_channels, stride=1) for _ in range(depth - 1)]
    return nn.Sequential(*blocks), out_channels
