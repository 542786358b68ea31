"""EfficientNets for log-mel spectrograms, as in audax.

Source: Tan and Le, arXiv:1905.11946, table 1; golden tests/golden/audax_models.npz.

Conventions: a spectrogram (batch, mel, frame) is a one-channel image (batch, 1, mel, frame). Strided
layers pad as flax does ("same"); squeeze-excitation has no biases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from earmark.models.layers import ConvNormActivation, make_divisible
from earmark.models.mobilenet import BlockConfig, InvertedResidual
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register
from earmark.models.squeeze_excitation import AxisExcitation
from earmark.models.weight_init import init_truncated_normal

SCALES: dict[str, dict[str, object]] = {
    "efficientnet": {},
    "efficientnet_b0": {"width": 1.0, "depth": 1.0},
    "efficientnet_b1": {"width": 1.0, "depth": 1.1},
    "efficientnet_b2": {"width": 1.1, "depth": 1.2},
    "efficientnet_b3": {"width": 1.2, "depth": 1.4},
    "efficientnet_b4": {"width": 1.4, "depth": 1.8},
    "efficientnet_b5": {"width": 1.6, "depth": 2.2},
    "efficientnet_b6": {"width": 1.8, "depth": 2.6},
    "efficientnet_b7": {"width": 2.0, "depth": 3.1},
}
_SILU = partial(nn.SiLU, inplace=True)


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(NetworkConfig):
    """Configuration of an EfficientNet.

    Attributes:
        num_classes: Length of the logits, at least 1.
        width: Factor on all numbers of channels, above 0.
        depth: Factor on the number of blocks of each stage, above 0.
        drop_path: Stochastic depth: probability of dropping block i of n is ``drop_path * i / n``.
        dropout: Dropout rate before the last layer, from 0 to below 1.
        norm_momentum: Momentum of the batch norms' running statistics, above 0, at most 1.
    """

    width: float = 1.0
    depth: float = 1.0
    drop_path: float = 0.2
    dropout: float = 0.4
    norm_momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "depth"):
            require(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("drop_path", "dropout"):
            require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        require("norm_momentum", self.norm_momentum, 0 < self.norm_momentum <= 1, "above 0, at most 1")


def efficientnet_blocks(config: EfficientNetConfig) -> list[BlockConfig]:
    """Lists the blocks of a network with width and depth applied."""
    stages = [  # expansion, kernel, stride, input and output channels, blocks
        (1, 3, 1, 32, 16, 1),
        (6, 3, 2, 16, 24, 2),
        (6, 5, 2, 24, 40, 2),
        (6, 3, 2, 40, 80, 3),
        (6, 5, 1, 80, 112, 3),
        (6, 5, 2, 112, 192, 4),
        (6, 3, 1, 192, 320, 1),
    ]
    blocks = []
    for expansion, kernel, stride, first, out, number in stages:
        wide, out = make_divisible(first * config.width), make_divisible(out * config.width)
        for index in range(math.ceil(number * config.depth)):
            channels, step = (out, 1) if index else (wide, stride)
            expanded = make_divisible(channels * expansion)
            blocks.append(BlockConfig(channels, kernel, expanded, out, True, _SILU, step))
    return blocks


class ChannelExcitation(AxisExcitation):
    """Squeeze-excitation over channels without biases; its bottleneck is a quarter of the block's input.

    Args:
        block: Input and expanded channels.
    """

    def __init__(self, block: BlockConfig) -> None:
        squeezed = max(1, block.in_channels // 4)
        super().__init__(1, block.expanded, squeezed, bias=False, activation=functional.silu)

    def forward(self, features: Tensor) -> Tensor:
        """Scales the map; shapes (batch, channel, mel, frame) in and out."""
        return features * super().forward(features)


@register(EfficientNetConfig, SCALES)
class EfficientNet(Network):
    """EfficientNet from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: None for efficientnet_b0.
    """

    config: EfficientNetConfig

    def __init__(self, config: EfficientNetConfig | None = None) -> None:
        config = config or EfficientNetConfig()
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=1e-5, momentum=config.norm_momentum)
        layer = partial(ConvNormActivation, norm=norm, activation=_SILU, padding="same")
        table = efficientnet_blocks(config)
        channels = 4 * table[-1].out_channels
        self.stem = layer((1, table[0].in_channels), 3, stride=2)
        self.blocks = nn.Sequential(
            *(
                InvertedResidual(
                    block,
                    ChannelExcitation(block),
                    norm,
                    padding="same",
                    drop_path=config.drop_path * index / len(table),
                )
                for index, block in enumerate(table)
            )
        )
        self.tail = layer((table[-1].out_channels, channels), 1)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(channels, config.num_classes)
        init_truncated_normal(self, gain=2.0)
        init_truncated_normal(self.fc)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel), 1280 channels at width 1.
        """
        features = self.stem(log_mel.unsqueeze(1))  # (batch, 32, mel / 2, frame / 2) at width 1
        features = self.tail(self.blocks(features))  # (batch, channel, mel / 32, frame / 32)
        embedding = features.mean((2, 3))  # (batch, channel)
        return Output(self.fc(self.dropout(embedding)), embedding)
