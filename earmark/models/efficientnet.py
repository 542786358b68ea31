"""EfficientNets for log-mel spectrograms, as audax builds them.

Source: Tan and Le, arXiv:1905.11946, table 1; golden audax/models.npz.

Conventions: a spectrogram (batch, mel, frame) becomes a one-channel image (batch, 1, mel, frame). All that
shrinks the map pads as flax does ("same"); squeeze-excitation has no biases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from earmark.models.layers import AxisExcitation, ConvNormActivation, initialise_truncated, make_divisible
from earmark.models.mobilenet import Block, InvertedResidual
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register

SCALES: dict[str, dict[str, object]] = {
    "efficientnet_b0": {"width": 1.0, "depth": 1.0},
    "efficientnet_b1": {"width": 1.0, "depth": 1.1},
    "efficientnet_b2": {"width": 1.1, "depth": 1.2},
}
_SILU = partial(nn.SiLU, inplace=True)


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(NetworkConfig):
    """All choices of an EfficientNet.

    Attributes:
        num_classes: Length of the logits, at least 1.
        width: Factor on all numbers of channels, above 0.
        depth: Factor on the number of blocks of each stage, above 0.
        drop_path: Probability of leaving out the branch of a block in training, rising linearly to almost
            this from 0 in the first block.
        dropout: Share of the embedding's values dropped before the last layer in training.
        norm_momentum: Share of each training batch in the running statistics of the batch norms.
    """

    width: float = 1.0
    depth: float = 1.0
    drop_path: float = 0.2
    dropout: float = 0.4
    norm_momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "depth"):
            require(name, getattr(self, name), getattr(self, name) > 0, "a number above 0")
        for name in ("drop_path", "dropout"):
            require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "a number from 0 to below 1")
        require(
            "norm_momentum", self.norm_momentum, 0 < self.norm_momentum <= 1, "a number above 0, at most 1"
        )


def block_table(config: EfficientNetConfig) -> list[Block]:
    """Lists the blocks of a network, width and depth applied."""
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
            blocks.append(Block(channels, kernel, expanded, out, True, _SILU, step))
    return blocks


class ChannelExcitation(AxisExcitation):
    """Squeeze-excitation over the channels of a block, without biases.

    Args:
        block: Its input is four times as wide as the bottleneck.
    """

    def __init__(self, block: Block) -> None:
        squeezed = max(1, block.in_channels // 4)
        super().__init__(1, block.expanded, squeezed, bias=False, activation=functional.silu)

    def forward(self, features: Tensor) -> Tensor:
        """Scales the map; shapes (batch, channel, mel, frame) in and out."""
        return features * super().forward(features)


@register(EfficientNetConfig, SCALES)
class EfficientNet(Network):
    """An EfficientNet from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: All its choices; None for those of efficientnet_b0.
    """

    config: EfficientNetConfig

    def __init__(self, config: EfficientNetConfig | None = None) -> None:
        config = config or EfficientNetConfig()
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=1e-5, momentum=config.norm_momentum)
        layer = partial(ConvNormActivation, norm=norm, activation=_SILU, padding="same")
        table = block_table(config)
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
        initialise_truncated(self, gain=2.0)
        initialise_truncated(self.fc)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of any number of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel), 1280 channels at width 1.
        """
        features = self.tail(self.blocks(self.stem(log_mel.unsqueeze(1))))
        embedding = features.mean((2, 3))  # (batch, channel, mel / 32, frame / 32) -> (batch, channel)
        return Output(self.fc(self.dropout(embedding)), embedding)
