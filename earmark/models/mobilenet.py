"""MobileNetV3 for log-mel spectrograms, the published "mn" family of every width.

Source: Howard et al., arXiv:1905.02244, table 1 (large); Schmid et al., arXiv:2211.04772; models/mn*.npz of
the goldens.

Conventions: a spectrogram (batch, mel, frame) becomes a one-channel image (batch, 1, mel, frame); the names
in the state dict are the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from earmark.models.layers import (
    SE_AXES,
    SE_FUSIONS,
    AttentionPooling,
    ConvNormActivation,
    DropPath,
    Padding,
    SqueezeExcitation,
    initialise,
    make_divisible,
)
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.recompute import chained
from earmark.models.registry import register

HEADS = ("mlp", "fully_convolutional", "multihead_attention_pooling")
WIDTHS = {
    "mn01": 0.1,
    "mn02": 0.2,
    "mn04": 0.4,
    "mn05": 0.5,
    "mn10": 1.0,
    "mn20": 2.0,
    "mn30": 3.0,
    "mn40": 4.0,
}


@dataclass(frozen=True, kw_only=True)
class BlockTableConfig(NetworkConfig):
    """The choices of every network that is made of the fifteen blocks.

    Attributes:
        num_classes: Length of the logits, at least 1.
        width: Factor on all numbers of channels, above 0.
        strides: Of the four stages that may shrink the map, each 1 or 2.
        dropout: Share of the mlp head's hidden values dropped in training.
        norm_momentum: Share of each training batch in the running statistics of the batch norms.
    """

    width: float = 1.0
    strides: tuple[int, int, int, int] = (2, 2, 2, 2)
    dropout: float = 0.2
    norm_momentum: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require("width", self.width, self.width > 0, "a number above 0")
        strides_hold = isinstance(self.strides, list | tuple) and len(self.strides) == 4
        strides_hold = strides_hold and all(stride in (1, 2) for stride in self.strides)
        require("strides", self.strides, strides_hold, "four numbers, each 1 or 2")
        object.__setattr__(self, "strides", tuple(self.strides))  # a recipe or a record gives a list
        require("dropout", self.dropout, 0 <= self.dropout < 1, "a number from 0 to below 1")
        require(
            "norm_momentum", self.norm_momentum, 0 < self.norm_momentum <= 1, "a number above 0, at most 1"
        )


@dataclass(frozen=True, kw_only=True)
class MobileNetConfig(BlockTableConfig):
    """All choices of a MobileNet, those of BlockTableConfig among them.

    Attributes:
        head: One of HEADS.
        heads: Attention heads of the head "multihead_attention_pooling".
        dilated: Whether the last three blocks dilate by 2 and keep the map's size instead of shrinking it.
        reduced_tail: Whether the last three blocks and what follows have half the channels.
        se_dims: Axes of squeeze-excitation: any of the letters c (channel), f (mel), t (frame); or "none".
        se_agg: How the maps scaled along several axes become one: one of SE_FUSIONS.
        se_ratio: How many times narrower the bottlenecks of squeeze-excitation are.
        n_mels: Mel bands of the spectrograms; matters only with f in se_dims, any number is taken otherwise.
        num_frames: Frames of the spectrograms; matters only with t in se_dims, any number is taken otherwise.
    """

    head: str = "mlp"
    heads: int = 4
    dilated: bool = False
    reduced_tail: bool = False
    se_dims: str = "c"
    se_agg: str = "max"
    se_ratio: int = 4
    n_mels: int = 128
    num_frames: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        letters = "" if self.se_dims == "none" else self.se_dims
        axes_hold = self.se_dims != "" and set(letters) <= set(SE_AXES) and len(set(letters)) == len(letters)
        require("head", self.head, self.head in HEADS, f"one of {', '.join(HEADS)}")
        require("se_dims", self.se_dims, axes_hold, "any of the letters c, f and t, each once, or none")
        require("se_agg", self.se_agg, self.se_agg in SE_FUSIONS, f"one of {', '.join(SE_FUSIONS)}")


@dataclass(frozen=True)
class Block:
    """One row of the table: an inverted residual block."""

    in_channels: int
    kernel: int
    expanded: int
    out_channels: int
    excited: bool
    activation: Callable[[], nn.Module]
    stride: int
    dilation: int = 1

    @property
    def step(self) -> int:
        """The stride in effect: a dilated block keeps the map's size."""
        return 1 if self.dilation > 1 else self.stride


RELU = partial(nn.ReLU, inplace=True)
HARDSWISH = partial(nn.Hardswish, inplace=True)


def block_table(config: BlockTableConfig, *, tail: int = 1, dilation: int = 1) -> list[Block]:
    """Lists the fifteen blocks of a network, widths applied.

    Args:
        config: Its width and strides.
        tail: What the channels of the last three blocks are divided by.
        dilation: Of the last three blocks.

    Returns:
        The blocks, first to last.
    """
    s0, s1, s2, s3 = config.strides
    rows: list[tuple[int, int, int, int, bool, Callable[[], nn.Module], int, int]] = [
        (16, 3, 16, 16, False, RELU, 1, 1),
        (16, 3, 64, 24, False, RELU, s0, 1),
        (24, 3, 72, 24, False, RELU, 1, 1),
        (24, 5, 72, 40, True, RELU, s1, 1),
        (40, 5, 120, 40, True, RELU, 1, 1),
        (40, 5, 120, 40, True, RELU, 1, 1),
        (40, 3, 240, 80, False, HARDSWISH, s2, 1),
        (80, 3, 200, 80, False, HARDSWISH, 1, 1),
        (80, 3, 184, 80, False, HARDSWISH, 1, 1),
        (80, 3, 184, 80, False, HARDSWISH, 1, 1),
        (80, 3, 480, 112, True, HARDSWISH, 1, 1),
        (112, 3, 672, 112, True, HARDSWISH, 1, 1),
        (112, 5, 672, 160 // tail, True, HARDSWISH, s3, dilation),
        (160 // tail, 5, 960 // tail, 160 // tail, True, HARDSWISH, 1, dilation),
        (160 // tail, 5, 960 // tail, 160 // tail, True, HARDSWISH, 1, dilation),
    ]

    def wide(channels: int) -> int:
        return make_divisible(channels * config.width)

    return [Block(wide(i), k, wide(e), wide(o), *rest) for i, k, e, o, *rest in rows]  # type: ignore[arg-type]


class InvertedResidual(nn.Module):
    """Expands the channels, filters each by itself, re-weights them, projects them back.

    Args:
        block: The row of the table.
        excitation: The block's squeeze-excitation, or None.
        norm: Makes the batch norm of a number of channels.
        padding: See layers.convolution.
        drop_path: Probability of leaving the branch out in training, where there is a way around it.

    Attributes:
        recomputes: Whether less is kept for the backward pass; see :mod:`earmark.models.recompute`.
    """

    def __init__(
        self,
        block: Block,
        excitation: nn.Module | None,
        norm: Callable[[int], nn.Module],
        *,
        padding: Padding = "centred",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        expanded = block.expanded
        layers: list[nn.Module] = []
        if expanded != block.in_channels:
            widths = (block.in_channels, expanded)
            layers.append(ConvNormActivation(widths, 1, norm=norm, activation=block.activation))
        layers.append(
            ConvNormActivation(
                (expanded, expanded),
                block.kernel,
                stride=block.step,
                dilation=block.dilation,
                groups=expanded,
                norm=norm,
                activation=block.activation,
                padding=padding,
            )
        )
        if excitation is not None:
            layers.append(excitation)
        layers.append(ConvNormActivation((expanded, block.out_channels), 1, norm=norm, activation=None))
        self.block = nn.Sequential(*layers)
        self.residual = block.stride == 1 and block.in_channels == block.out_channels
        self.drop_path = DropPath(drop_path)
        self.recomputes = False

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, in_channels, mel, frame) to (batch, out_channels, mel / stride, frame / stride)."""
        keeps_less = self.training and self.recomputes
        result: Tensor = chained(self.block, features) if keeps_less else self.block(features)
        return features + self.drop_path(result) if self.residual else result


@register(MobileNetConfig, {"mobilenet": {}, **{name: {"width": width} for name, width in WIDTHS.items()}})
class MobileNet(Network):
    """MobileNetV3 from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: All its choices; None for the published defaults.
    """

    config: MobileNetConfig

    def __init__(self, config: MobileNetConfig | None = None) -> None:
        config = config or MobileNetConfig()
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=config.norm_momentum)
        blocks = block_table(
            config, tail=2 if config.reduced_tail else 1, dilation=2 if config.dilated else 1
        )
        channels = 6 * blocks[-1].out_channels
        layers: list[nn.Module] = [
            ConvNormActivation((1, blocks[0].in_channels), 3, stride=2, norm=norm, activation=HARDSWISH)
        ]
        # Every layer is padded so that a map of n becomes ceil(n / stride): the stem halves first.
        sizes = {"f": math.ceil(config.n_mels / 2), "t": math.ceil(config.num_frames / 2)}
        for block in blocks:
            sizes = {axis: math.ceil(size / block.step) for axis, size in sizes.items()}
            layers.append(InvertedResidual(block, _excitation(block, sizes, config), norm))
        layers.append(
            ConvNormActivation((blocks[-1].out_channels, channels), 1, norm=norm, activation=HARDSWISH)
        )
        self.features = nn.Sequential(*layers)
        self.classifier = _head(channels, config)
        initialise(self)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of any number of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel), 960 channels at width 1.

        Raises:
            ModelError: If se_dims has f or t and the spectrogram is not of the size the network is built for.
        """
        features = self.features(
            log_mel.unsqueeze(1)
        )  # (batch, 1, mel, frame) -> (batch, channel, mel/32, frame/32)
        return Output(self.classifier(features), features.mean((2, 3)))

    def feature_maps(self, log_mel: Tensor) -> list[Tensor]:
        """Computes the output of every stage: first convolution, fifteen blocks, last convolution.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Seventeen maps of shape (batch, channel, mel, frame), ever smaller along the last two.
        """
        maps = [log_mel.unsqueeze(1)]
        for stage in self.features:
            maps.append(stage(maps[-1]))
        return maps[1:]


def _excitation(block: Block, sizes: dict[str, int], config: MobileNetConfig) -> SqueezeExcitation | None:
    if not block.excited or config.se_dims == "none":
        return None
    lengths = {"c": block.expanded, **sizes}
    chosen = {letter: lengths[letter] for letter in config.se_dims}
    return SqueezeExcitation(chosen, config.se_ratio, config.se_agg)


def _head(channels: int, config: MobileNetConfig) -> nn.Module:
    if config.head == "multihead_attention_pooling":
        return AttentionPooling(channels, config.num_classes, config.heads)
    if config.head == "fully_convolutional":
        return nn.Sequential(
            nn.Conv2d(channels, config.num_classes, 1, bias=False),
            nn.BatchNorm2d(config.num_classes),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    return mlp_head(channels, 640 if config.reduced_tail else 1280, config)


def mlp_head(channels: int, hidden: int, config: BlockTableConfig) -> nn.Sequential:
    """Makes the head of two linear layers on the mean of the last feature map.

    Args:
        channels: Channels of that map.
        hidden: Hidden values at width 1.
        config: Width, dropout and number of classes.

    Returns:
        The layers from (batch, channel, mel, frame) to (batch, class).
    """
    hidden = make_divisible(hidden * config.width)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, hidden),
        nn.Hardswish(inplace=True),
        nn.Dropout(config.dropout),
        nn.Linear(hidden, config.num_classes),
    )
