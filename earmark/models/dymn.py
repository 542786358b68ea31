"""DyMN for log-mel spectrograms: a MobileNetV3 whose kernels and activations follow the clip.

Source: Schmid et al., arXiv:2310.15648; models/dymn*.npz of the goldens.

Conventions: feature maps are (batch, channel, mel, frame), what is known of a clip as a whole is its context
(batch, context); the names in the state dict are the published ones. Kernels are mixed once per clip, here
and in the export: convolving with each and mixing the answers takes two to three and a half times as long
(docs/research/dynamic-convolutions.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops import scan

from earmark.models.layers import ConvNormActivation, initialise, make_divisible
from earmark.models.mobilenet import (
    HARDSWISH,
    Block,
    BlockTableConfig,
    InvertedResidual,
    block_table,
    mlp_head,
)
from earmark.models.network import Network, Output, require
from earmark.models.registry import register

DYNAMIC_BLOCKS = ("all", "replace_se")
WIDTHS = {"dymn04": 0.4, "dymn10": 1.0, "dymn20": 2.0}


def temperature_at(
    epoch: int, *, start: float = 30.0, slope: float = 1.0, late_slope: float = 0.02, final: float = 1.0
) -> float:
    """The temperature of the attention over kernels in an epoch of training, for DyMN.set_temperature.

    It falls along a steep line to 1, then along a gentle one, and stays at the final temperature.

    Source: Schmid et al., arXiv:2310.15648; golden pipeline/dyconv_temperature.json.

    Args:
        epoch: Counted from 0.
        start: Temperature of epoch 0, at least 1.
        slope: What is lost per epoch on the steep line, above 0.
        late_slope: What is lost per epoch on the gentle line; of no effect unless final is below 1.
        final: What it does not fall below, above 0; the temperature that the record is to carry.

    Returns:
        The temperature.
    """
    turn = (start - 1) / slope  # the epoch in which both lines are at 1
    return max(start - slope * epoch, 1 - late_slope * (epoch - turn), final)


@dataclass(frozen=True, kw_only=True)
class DyMNConfig(BlockTableConfig):
    """All choices of a DyMN, those of BlockTableConfig among them.

    Attributes:
        temperature: What the scores of the kernels are divided by before their softmax, above 0. Weights hold
            for the temperature of their last epoch only: 1 for the published ones of AudioSet, 30 for those
            of ImageNet.
        dynamic_blocks: "all"; or "replace_se", where only the blocks that have squeeze-excitation in
            MobileNet are dynamic and the others are MobileNet's.
        context_ratio: How many times smaller a block's context is than its expanded channels.
        min_context: Least size of a context, at width 1.
        max_context: Largest size of a context, at width 1.
        dynamic_conv: Whether the kernels of the convolutions follow the clip.
        kernels: How many kernels each convolution mixes.
        dynamic_relu: Whether the activation after each depthwise convolution follows the clip.
        relu_lines: Of how many lines such an activation is the maximum.
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
        require("temperature", self.temperature, self.temperature > 0, "a number above 0")
        require("dynamic_blocks", self.dynamic_blocks, known, f"one of {', '.join(DYNAMIC_BLOCKS)}")
        require("min_context", self.min_context, ordered, f"at most max_context, {self.max_context}")

    def context_size(self, expanded: int) -> int:
        """The size of the context of a block with that many expanded channels."""
        least, most = (make_divisible(size * self.width) for size in (self.min_context, self.max_context))
        return min(max(make_divisible(expanded // self.context_ratio), least), most)


class ContextGenerator(nn.Module):
    """Sums up a block's input: one context for the clip, and scales in (0, 1) for each mel band and frame.

    Source: Schmid et al., arXiv:2310.15648; Hou et al., arXiv:2103.02907, equations 4 to 8.

    Args:
        block: The block.
        size: Of the context.
        norm: The batch norm of so many channels.
    """

    norms: ClassVar = {"joint_norm": ("joint_conv",)}

    def __init__(self, block: Block, size: int, norm: nn.Module) -> None:
        super().__init__()
        self.joint_conv = nn.Conv2d(block.in_channels, size, 1, bias=False)
        self.joint_norm = norm
        self.conv_f = nn.Conv2d(size, block.expanded, 1)
        self.conv_t = nn.Conv2d(size, block.expanded, 1)
        self.stride = block.stride

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums a feature map up.

        Args:
            features: The block's input, shape (batch, channel, mel, frame).

        Returns:
            The context (batch, context), and scales (batch, expanded, mel / stride, 1) and (batch, expanded,
            1, frame / stride).
        """
        mels = features.shape[2]
        sequence = torch.cat([features.mean(3), features.mean(2)], 2).unsqueeze(3)
        sequence = F.hardswish(self.joint_norm(self.joint_conv(sequence)))  # (batch, context, mel + frame, 1)
        mel, frame = sequence[:, :, :mels], sequence[:, :, mels:]
        if self.stride > 1:
            mel, frame = self._shrunk(mel), self._shrunk(frame)
        scales = self.conv_f(mel).sigmoid(), self.conv_t(frame).sigmoid().transpose(2, 3)
        return sequence.mean((2, 3)), *scales

    def _shrunk(self, sequence: Tensor) -> Tensor:
        """Brings n positions to ceil(n / stride), as the block's convolution does with its map."""
        return F.avg_pool2d(sequence, (3, 1), (self.stride, 1), (1, 0))


class DynamicConv(nn.Module):
    """Convolution without bias whose kernel is, clip by clip, a mean of several, weighted by the context.

    Source: Chen et al., arXiv:1912.03458, section 3; golden models/dymn04_dyconv_k2.npz.

    Args:
        shape: Of each kernel: (output channel, input channel, mel, frame).
        context: Size of the context.
        config: Number of kernels, and temperature.

    Attributes:
        temperature: What the kernels' scores are divided by; set by DyMN.set_temperature.
        bias: None; or what a folded norm adds to each output channel, whatever the context.
    """

    bias: nn.Parameter | None

    def __init__(self, shape: tuple[int, int, int, int], context: int, config: DyMNConfig) -> None:
        super().__init__()
        self.shape, self.temperature = shape, config.temperature
        self.weight = nn.Parameter(torch.empty(1, 1, config.kernels, math.prod(shape)))
        self.register_parameter("bias", None)
        self.residuals = nn.Sequential(nn.Linear(context, config.kernels))
        for kernel in self.weight.detach()[0, 0]:
            nn.init.kaiming_normal_(kernel.view(shape), mode="fan_out")

    def attention(self, context: Tensor) -> Tensor:
        """The weights of the kernels, (batch, kernel), of a context (batch, context); they sum to 1."""
        scores: Tensor = self.residuals(context)
        return (scores / self.temperature).softmax(1)

    def mixed(self, context: Tensor) -> Tensor:
        """Each clip's kernel, flat: (batch, output channel * input channel * mel * frame)."""
        return self.attention(context) @ self.weight.flatten(0, 2)


class DynamicPointwise(DynamicConv):
    """A dynamic convolution with kernels of 1 x 1: a product of matrices for each clip.

    Args:
        channels: Input and output channels.
        context: Size of the context.
        config: Number of kernels, and temperature.
    """

    def __init__(self, channels: tuple[int, int], context: int, config: DyMNConfig) -> None:
        super().__init__((channels[1], channels[0], 1, 1), context, config)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Maps (batch, input channel, mel, frame) and a context to (batch, output channel, mel, frame)."""
        kernels = self.mixed(context).view(-1, *self.shape[:2])  # (batch, output channel, input channel)
        flat = features.flatten(2)
        mapped = kernels @ flat if self.bias is None else torch.baddbmm(self.bias[:, None], kernels, flat)
        return mapped.view(*mapped.shape[:2], *features.shape[2:])


class DynamicDepthwise(DynamicConv):
    """A dynamic convolution of each channel by itself, padded so that only the stride shrinks the map.

    Args:
        channels: Input channels, as many as output channels.
        kernel: Side of the kernel, odd.
        stride: Along both axes.
        context: Size of the context.
        config: Number of kernels, and temperature.
    """

    def __init__(self, channels: int, kernel: int, stride: int, context: int, config: DyMNConfig) -> None:
        super().__init__((channels, 1, kernel, kernel), context, config)
        self.stride, self.padding = stride, kernel // 2

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Maps (batch, channel, mel, frame) and a context to the like, mel and frame shrunk by the stride."""
        kernels = self.mixed(context).view(-1, *self.shape)
        if torch.compiler.is_exporting():
            return self._clip_by_clip(features, kernels)
        # The channels of all clips, side by side, are the channels of one map.
        result = self._convolved(features.flatten(0, 1).unsqueeze(0), kernels.flatten(0, 1))
        return result.view(*features.shape[:2], *result.shape[2:])

    def _convolved(self, features: Tensor, kernels: Tensor) -> Tensor:
        clips = len(kernels) // self.shape[0]
        bias = None if self.bias is None else self.bias.repeat(clips)
        return F.conv2d(features, kernels, bias, self.stride, self.padding, groups=len(kernels))

    def _clip_by_clip(self, features: Tensor, kernels: Tensor) -> Tensor:
        """The same as a loop in the graph: ONNX fixes the number of groups, so it cannot hold the batch."""

        def one(carry: Tensor, clip: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return carry.clone(), self._convolved(clip[0].unsqueeze(0), clip[1]).squeeze(0)

        results: Tensor = scan(one, features.new_zeros(1), (features, kernels))[1]  # it must carry something
        return results


class DynamicReLU(nn.Module):
    """The largest of several lines at each value, their slopes and offsets per clip and channel.

    Source: Chen et al., arXiv:2003.10027, variant B; golden models/dymn04_dyrelu_k3.npz.

    Args:
        channels: Channels of the feature map.
        context: Size of the context.
        lines: How many lines; with two, it starts out near a ReLU.
    """

    lambdas: Tensor
    init_v: Tensor

    def __init__(self, channels: int, context: int, lines: int) -> None:
        super().__init__()
        self.coef_net = nn.Sequential(nn.Linear(context, channels * 2 * lines))
        self.register_buffer("lambdas", torch.tensor([1.0] * lines + [0.5] * lines))
        self.register_buffer("init_v", torch.tensor([1.0] + [0.0] * (2 * lines - 1)))

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Activates a map (batch, channel, mel, frame), given a context (batch, context)."""
        theta: Tensor = 2 * self.coef_net(context).sigmoid() - 1
        theta = theta.view(theta.shape[0], -1, 1, 1, len(self.lambdas)) * self.lambdas + self.init_v
        slopes, offsets = (half.unbind(-1) for half in theta.chunk(2, -1))  # each (batch, channel, 1, 1)
        lines = [features * slope + offset for slope, offset in zip(slopes, offsets, strict=True)]
        highest: Tensor = reduce(torch.maximum, lines)
        return highest


class WithoutContext(nn.Module):
    """A layer in the place of a dynamic one; it leaves the context aside.

    Args:
        module: The layer.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Applies the layer to a map (batch, channel, mel, frame)."""
        result: Tensor = self.module(features)
        return result


class DynamicResidual(nn.Module):
    """The inverted residual block whose convolutions, activation and scales follow the clip.

    Source: Schmid et al., arXiv:2310.15648.

    Args:
        block: The row of the table.
        config: The choices of the network.
    """

    def __init__(self, block: Block, config: DyMNConfig) -> None:
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
            else WithoutContext(block.activation())
        )
        self.proj_conv = _pointwise((expanded, block.out_channels), context, config)
        self.proj_norm = norm(block.out_channels)
        self.context_gen = ContextGenerator(block, context, norm(context))
        within = "" if config.dynamic_conv else ".module"
        parts = ("exp", "depth", "proj") if self.expands else ("depth", "proj")
        self.norms = {f"{part}_norm": (f"{part}_conv{within}",) for part in parts}
        self.scales = config.coordinate_attention
        self.residual = block.stride == 1 and block.in_channels == block.out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, in_channels, mel, frame) to (batch, out_channels, mel / stride, frame / stride)."""
        context, mel_scales, frame_scales = self.context_gen(features)
        result: Tensor = features
        if self.expands:
            result = self.exp_act(self.exp_norm(self.exp_conv(result, context)))
        result = self.depth_act(self.depth_norm(self.depth_conv(result, context)), context)
        if self.scales:
            result = result * mel_scales * frame_scales
        result = self.proj_norm(self.proj_conv(result, context))
        return features + result if self.residual else result


def _pointwise(channels: tuple[int, int], context: int, config: DyMNConfig) -> nn.Module:
    if config.dynamic_conv:
        return DynamicPointwise(channels, context, config)
    return WithoutContext(nn.Conv2d(*channels, 1, bias=False))


def _depthwise(block: Block, context: int, config: DyMNConfig) -> nn.Module:
    channels, kernel, stride = block.expanded, block.kernel, block.stride
    if config.dynamic_conv:
        return DynamicDepthwise(channels, kernel, stride, context, config)
    return WithoutContext(
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    )


@register(DyMNConfig, {"dymn": {}, **{name: {"width": width} for name, width in WIDTHS.items()}})
class DyMN(Network):
    """DyMN from log-mel to logits; the embedding is the mean of the last feature map.

    The temperature of its kernels is a choice of the network, ``config.temperature``, since the state dict
    does not hold it. A training that anneals it calls set_temperature before each epoch, also of a moving
    average; ``config`` follows, and a checkpoint takes only a record that says the temperature of now.

    Args:
        config: All its choices; None for the published defaults.
    """

    config: DyMNConfig

    def __init__(self, config: DyMNConfig | None = None) -> None:
        config = config or DyMNConfig()
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=config.norm_momentum)
        blocks = block_table(config)
        first, last = blocks[0].in_channels, blocks[-1].out_channels
        self.in_c = ConvNormActivation((1, first), 3, stride=2, norm=norm, activation=HARDSWISH)
        self.layers = nn.ModuleList(
            DynamicResidual(block, config)
            if block.excited or config.dynamic_blocks == "all"
            else InvertedResidual(block, None, norm)
            for block in blocks
        )
        self.out_c = ConvNormActivation((last, 6 * last), 1, norm=norm, activation=HARDSWISH)
        self.classifier = mlp_head(6 * last, 1280, config)
        initialise(self)

    def set_temperature(self, temperature: float) -> None:
        """Brings the attention over kernels, and with it ``config``, to a temperature.

        Args:
            temperature: Above 0; the higher, the more alike the kernels' weights. See temperature_at.

        Raises:
            ModelError: If it is not above 0.
        """
        self.config = replace(self.config, temperature=temperature)
        for module in self.modules():
            if isinstance(module, DynamicConv):
                module.temperature = temperature

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of any number of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel), 960 channels at width 1.
        """
        features = log_mel.unsqueeze(1)
        for stage in self._stages():
            features = stage(features)
        return Output(self.classifier(features), features.mean((2, 3)))

    def feature_maps(self, log_mel: Tensor) -> list[Tensor]:
        """Computes the output of every stage: first convolution, fifteen blocks, last convolution.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Seventeen maps of shape (batch, channel, mel, frame), ever smaller along the last two.
        """
        maps = [log_mel.unsqueeze(1)]
        for stage in self._stages():
            maps.append(stage(maps[-1]))
        return maps[1:]

    def _stages(self) -> tuple[nn.Module, ...]:
        return (self.in_c, *self.layers, self.out_c)
