"""DyMN, the dynamic MobileNets: MobileNetV3s whose kernels and activations depend on the clip.

Source: Schmid et al., arXiv:2310.15648; golden tests/golden/dymn.npz and models/dymn*.npz.

Conventions: a spectrogram (batch, mel, frame) is a one-channel image (batch, 1, mel, frame), the context of a
clip is (batch, context). Names in the state dict are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from earmark.models.dynamic_layers import (
    ContextGenerator,
    DynamicConv,
    DynamicDepthwise,
    DynamicPointwise,
    DynamicReLU,
    StaticLayer,
)
from earmark.models.layers import ConvNormActivation, make_divisible
from earmark.models.mobilenet import (
    HARDSWISH,
    BlockConfig,
    InvertedResidual,
    MobileNetBaseConfig,
    mlp_head,
    mobilenet_blocks,
)
from earmark.models.network import Network, Output, require
from earmark.models.registry import register
from earmark.models.weight_init import init_kaiming

DYNAMIC_BLOCKS = ("all", "replace_se")
WIDTHS = {"dymn04": 0.4, "dymn10": 1.0, "dymn20": 2.0}


def annealed_temperature(
    epoch: int, *, start: float = 30.0, slope: float = 1.0, late_slope: float = 0.02, final: float = 1.0
) -> float:
    """Computes the annealed temperature of the kernel attention in an epoch, for DyMN.set_temperature.

    It decreases linearly to 1, then more slowly, down to the final temperature.

    Source: Schmid et al., arXiv:2310.15648; golden pipeline/dyconv_temperature.json.

    Args:
        epoch: Counted from 0.
        start: Temperature of epoch 0, at least 1.
        slope: Decrease per epoch down to 1, above 0.
        late_slope: Decrease per epoch below 1; without effect unless ``final`` is below 1.
        final: Lower limit, above 0, and the temperature to store in the model info.

    Returns:
        The temperature.
    """
    turn = (start - 1) / slope  # epoch in which both lines reach 1
    return max(start - slope * epoch, 1 - late_slope * (epoch - turn), final)


@dataclass(frozen=True, kw_only=True)
class DyMNConfig(MobileNetBaseConfig):
    """Configuration of a DyMN, in addition to MobileNetBaseConfig.

    Attributes:
        temperature: Temperature of the softmax over kernels, above 0. Weights are valid for the temperature
            of their last epoch only: 1 for the published AudioSet weights, 30 for the ImageNet ones.
        dynamic_blocks: "all"; or "replace_se": only the blocks with squeeze-excitation in MobileNet are
            dynamic, the others are MobileNet's.
        context_ratio: Reduction of a block's context against its expanded channels.
        min_context: Least size of a context, at width 1.
        max_context: Largest size of a context, at width 1.
        dynamic_conv: Whether the convolutions are dynamic.
        kernels: Number of kernels of each dynamic convolution.
        dynamic_relu: Whether the activation after each depthwise convolution is dynamic.
        relu_lines: Number of linear functions of a dynamic ReLU.
        coordinate_attention: Whether maps are scaled along mel and frames.
    """

    temperature: float = 1.0
    dynamic_blocks: str = "all"
    context_ratio: int = 4
    min_context: int = 32
    max_context: int = 128
    dynamic_conv: bool = True
    kernels: int = 4
    dynamic_relu: bool = True
    relu_lines: int = 2
    coordinate_attention: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        known, ordered = self.dynamic_blocks in DYNAMIC_BLOCKS, self.min_context <= self.max_context
        require("temperature", self.temperature, self.temperature > 0, "above 0")
        require("dynamic_blocks", self.dynamic_blocks, known, f"one of {', '.join(DYNAMIC_BLOCKS)}")
        require("min_context", self.min_context, ordered, f"at most max_context, {self.max_context}")

    def context_size(self, expanded: int) -> int:
        """Computes the context size of a block with ``expanded`` channels."""
        least, most = (make_divisible(size * self.width) for size in (self.min_context, self.max_context))
        return min(max(make_divisible(expanded // self.context_ratio), least), most)


class DynamicInvertedResidual(nn.Module):
    """Inverted residual block with dynamic convolutions, dynamic ReLU and coordinate attention.

    Source: Schmid et al., arXiv:2310.15648, figure 2.

    Args:
        block: Channels, kernel and stride of the block.
        config: Configuration of the network.
    """

    def __init__(self, block: BlockConfig, config: DyMNConfig) -> None:
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=config.norm_momentum)
        expanded, context = block.expanded, config.context_size(block.expanded)
        self.expands = expanded != block.in_channels
        if self.expands:
            self.exp_conv = _pointwise((block.in_channels, expanded), context, config)
            self.exp_norm = norm(expanded)
            self.exp_act = block.activation()
        self.depth_conv = _depthwise(block, context, config)
        self.depth_norm = norm(expanded)
        self.depth_act = (
            DynamicReLU(expanded, context, config.relu_lines)
            if config.dynamic_relu
            else StaticLayer(block.activation())
        )
        self.proj_conv = _pointwise((expanded, block.out_channels), context, config)
        self.proj_norm = norm(block.out_channels)
        self.context_gen = ContextGenerator(
            (block.in_channels, expanded), context, stride=block.stride, norm=norm
        )
        within = "" if config.dynamic_conv else ".module"
        parts = ("exp", "depth", "proj") if self.expands else ("depth", "proj")
        self.norms = {f"{part}_norm": (f"{part}_conv{within}",) for part in parts}
        self.coordinate_attention = config.coordinate_attention
        self.residual = block.stride == 1 and block.in_channels == block.out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, in_channels, mel, frame) to (batch, out_channels, mel / stride, frame / stride)."""
        context, mel_scales, frame_scales = self.context_gen(features)
        result: Tensor = features
        if self.expands:
            result = self.exp_act(self.exp_norm(self.exp_conv(result, context)))
        result = self.depth_act(self.depth_norm(self.depth_conv(result, context)), context)
        if self.coordinate_attention:
            result = result * mel_scales * frame_scales
        result = self.proj_norm(self.proj_conv(result, context))
        return features + result if self.residual else result


def _pointwise(channels: tuple[int, int], context: int, config: DyMNConfig) -> nn.Module:
    if config.dynamic_conv:
        return DynamicPointwise(channels, context, num_kernels=config.kernels, temperature=config.temperature)
    return StaticLayer(nn.Conv2d(*channels, 1, bias=False))


def _depthwise(block: BlockConfig, context: int, config: DyMNConfig) -> nn.Module:
    channels, kernel, stride = block.expanded, block.kernel, block.stride
    if config.dynamic_conv:
        return DynamicDepthwise(
            channels, kernel, stride, context, num_kernels=config.kernels, temperature=config.temperature
        )
    return StaticLayer(
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    )


@register(DyMNConfig, {"dymn": {}, **{name: {"width": width} for name, width in WIDTHS.items()}})
class DyMN(Network):
    """DyMN from log-mel to logits; the embedding is the mean of the last feature map.

    The temperature is part of ``config``, since the state dict does not include it. A training that anneals
    it calls set_temperature before each epoch, for the averaged network too.

    Args:
        config: None for the published defaults.
    """

    config: DyMNConfig

    def __init__(self, config: DyMNConfig | None = None) -> None:
        config = config or DyMNConfig()
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=config.norm_momentum)
        blocks = mobilenet_blocks(config)
        first, last = blocks[0].in_channels, blocks[-1].out_channels
        self.in_c = ConvNormActivation((1, first), 3, stride=2, norm=norm, activation=HARDSWISH)
        self.layers = nn.ModuleList(
            DynamicInvertedResidual(block, config)
            if block.excited or config.dynamic_blocks == "all"
            else InvertedResidual(block, None, norm)
            for block in blocks
        )
        self.out_c = ConvNormActivation((last, 6 * last), 1, norm=norm, activation=HARDSWISH)
        self.classifier = mlp_head(6 * last, 1280, config)
        init_kaiming(self)

    def set_temperature(self, temperature: float) -> None:
        """Sets the temperature of the kernel attention, in all layers and in ``config``.

        Args:
            temperature: Above 0; at higher temperatures the kernels' weights are more uniform.

        Raises:
            ModelError: If it is not above 0.
        """
        self.config = replace(self.config, temperature=temperature)
        for module in self.modules():
            if isinstance(module, DynamicConv):
                module.temperature = temperature

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel), 960 channels at width 1.
        """
        features = log_mel.unsqueeze(1)  # (batch, 1, mel, frame) -> (batch, channel, mel / 32, frame / 32)
        for stage in self._stages():
            features = stage(features)
        return Output(self.classifier(features), features.mean((2, 3)))

    def feature_maps(self, log_mel: Tensor) -> list[Tensor]:
        """Computes the output of each stage: first convolution, fifteen blocks, last convolution.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Seventeen maps of shape (batch, channel, mel, frame), with decreasing resolution.
        """
        maps = [log_mel.unsqueeze(1)]
        for stage in self._stages():
            maps.append(stage(maps[-1]))
        return maps[1:]

    def _stages(self) -> tuple[nn.Module, ...]:
        return (self.in_c, *self.layers, self.out_c)
