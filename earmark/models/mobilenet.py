"""MobileNetV3 for log-mel spectrograms, the published "mn" family of every width.

Source: Howard et al., arXiv:1905.02244, table 1 (large); Schmid et al., arXiv:2211.04772; golden
tests/golden/mobilenet.npz and models/mn*.npz.

Conventions: a spectrogram (batch, mel, frame) is a one-channel image (batch, 1, mel, frame); names in
the state dict are the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from earmark.models.layers import ConvNormActivation, DropPath, Padding, make_divisible
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.pooling_layers import AttentionPooling
from earmark.models.registry import register
from earmark.models.squeeze_excitation import SE_AXES, SE_FUSIONS, SqueezeExcitation
from earmark.models.weight_init import init_kaiming

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
class MobileNetBaseConfig(NetworkConfig):
    """Configuration that MobileNet and DyMN share.

    Attributes:
        num_classes: Length of the logits, at least 1.
        width: Factor on all numbers of channels, above 0.
        strides: Strides of the four stages that may reduce the resolution, each 1 or 2.
        dropout: Dropout rate before the last layer of the mlp head, from 0 to below 1.
        norm_momentum: Momentum of the batch norms' running statistics, above 0, at most 1.
    """

    width: float = 1.0
    strides: tuple[int, int, int, int] = (2, 2, 2, 2)
    dropout: float = 0.2
    norm_momentum: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require("width", self.width, self.width > 0, "above 0")
        strides_hold = isinstance(self.strides, list | tuple) and len(self.strides) == 4
        strides_hold = strides_hold and all(stride in (1, 2) for stride in self.strides)
        require("strides", self.strides, strides_hold, "four numbers, each 1 or 2")
        object.__setattr__(self, "strides", tuple(self.strides))  # TOML and JSON have lists only
        require("dropout", self.dropout, 0 <= self.dropout < 1, "from 0 to below 1")
        require("norm_momentum", self.norm_momentum, 0 < self.norm_momentum <= 1, "above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class MobileNetConfig(MobileNetBaseConfig):
    """Configuration of a MobileNet, in addition to MobileNetBaseConfig.

    Attributes:
        head: One of HEADS.
        heads: Attention heads of the head "multihead_attention_pooling".
        dilated: Whether the last three blocks have a dilation of 2 instead of a stride.
        reduced_tail: Whether the last three blocks and the layers after them have half the channels.
        se_dims: Axes of squeeze-excitation: any of the letters c (channel), f (mel), t (frame); or "none".
        se_agg: Fusion of the maps scaled along several axes, a key of SE_FUSIONS.
        se_ratio: Reduction of the bottlenecks of squeeze-excitation.
        n_mels: Mel bands of the spectrograms; needed only with f in se_dims.
        num_frames: Frames of the spectrograms; needed only with t in se_dims.
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
class BlockConfig:
    """Channels, kernel and stride of an inverted residual block."""

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
        """The stride in effect: a dilated block keeps the resolution."""
        return 1 if self.dilation > 1 else self.stride


RELU = partial(nn.ReLU, inplace=True)
HARDSWISH = partial(nn.Hardswish, inplace=True)


def mobilenet_blocks(config: MobileNetBaseConfig, *, tail: int = 1, dilation: int = 1) -> list[BlockConfig]:
    """Lists the fifteen blocks of a network with the width applied.

    Source: Howard et al., arXiv:1905.02244, table 1.

    Args:
        config: Width and strides.
        tail: Divisor of the channels of the last three blocks.
        dilation: Dilation of the last three blocks.

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

    return [BlockConfig(wide(i), k, wide(e), wide(o), *rest) for i, k, e, o, *rest in rows]  # type: ignore[arg-type]


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution, squeeze-excitation, pointwise projection.

    Source: Sandler et al., arXiv:1801.04381, figure 3; Howard et al., arXiv:1905.02244, figure 4.

    Args:
        block: Channels, kernel and stride.
        excitation: The squeeze-excitation, or None.
        norm: Builds the batch norm of a number of channels.
        padding: As of layers.convolution.
        drop_path: Probability of dropping the branch in training, in blocks with a residual connection.
    """

    def __init__(
        self,
        block: BlockConfig,
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

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, in_channels, mel, frame) to (batch, out_channels, mel / stride, frame / stride)."""
        result: Tensor = self.block(features)
        return features + self.drop_path(result) if self.residual else result


@register(MobileNetConfig, {"mobilenet": {}, **{name: {"width": width} for name, width in WIDTHS.items()}})
class MobileNet(Network):
    """MobileNetV3 from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: None for the published defaults.
    """

    config: MobileNetConfig

    def __init__(self, config: MobileNetConfig | None = None) -> None:
        config = config or MobileNetConfig()
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=config.norm_momentum)
        blocks = mobilenet_blocks(
            config, tail=2 if config.reduced_tail else 1, dilation=2 if config.dilated else 1
        )
        channels = 6 * blocks[-1].out_channels
        layers: list[nn.Module] = [
            ConvNormActivation((1, blocks[0].in_channels), 3, stride=2, norm=norm, activation=HARDSWISH)
        ]
        # Every layer maps n positions to ceil(n / stride); the first convolution has a stride of 2.
        sizes = {"f": math.ceil(config.n_mels / 2), "t": math.ceil(config.num_frames / 2)}
        for block in blocks:
            sizes = {axis: math.ceil(size / block.step) for axis, size in sizes.items()}
            layers.append(InvertedResidual(block, _excitation(block, sizes, config), norm))
        layers.append(
            ConvNormActivation((blocks[-1].out_channels, channels), 1, norm=norm, activation=HARDSWISH)
        )
        self.features = nn.Sequential(*layers)
        self.classifier = _head(channels, config)
        init_kaiming(self)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel), 960 channels at width 1.

        Raises:
            ModelError: If se_dims has f or t and the spectrogram has another size than configured.
        """
        features = log_mel.unsqueeze(1)  # (batch, 1, mel, frame)
        features = self.features(features)  # (batch, channel, mel / 32, frame / 32)
        return Output(self.classifier(features), features.mean((2, 3)))

    def feature_maps(self, log_mel: Tensor) -> list[Tensor]:
        """Computes the output of each stage: first convolution, fifteen blocks, last convolution.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Seventeen maps of shape (batch, channel, mel, frame), with decreasing resolution.
        """
        maps = [log_mel.unsqueeze(1)]
        for stage in self.features:
            maps.append(stage(maps[-1]))
        return maps[1:]


def _excitation(
    block: BlockConfig, sizes: dict[str, int], config: MobileNetConfig
) -> SqueezeExcitation | None:
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


def mlp_head(channels: int, hidden: int, config: MobileNetBaseConfig) -> nn.Sequential:
    """Builds the head of global mean pooling and two linear layers.

    Args:
        channels: Channels of the last feature map.
        hidden: Hidden units at width 1.
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
