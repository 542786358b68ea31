"""The layers of DyMN: convolutions and activations whose parameters depend on a context of the clip.

Source: Schmid et al., arXiv:2310.15648; golden tests/golden/dymn.npz.

Conventions: feature maps are (batch, channel, mel, frame), the context of a clip is (batch, context). Kernels
are mixed once per clip, in an export too: convolving with each kernel and mixing the outputs takes 2 to 3.5
times as long (docs/research/dynamic-convolutions.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops import scan


class ContextGenerator(nn.Module):
    """Computes the context of a clip from a block's input, and coordinate attention along mel and frames.

    Source: Schmid et al., arXiv:2310.15648; Hou et al., arXiv:2103.02907, equations 4 to 8.

    Args:
        channels: Channels of the block's input, and of its depthwise convolution.
        context_size: Size of the context.
        stride: Stride of the block.
        norm: Builds the batch norm of a number of channels.
    """

    norms: ClassVar = {"joint_norm": ("joint_conv",)}

    def __init__(
        self,
        channels: tuple[int, int],
        context_size: int,
        *,
        stride: int,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        in_channels, expanded = channels
        self.joint_conv = nn.Conv2d(in_channels, context_size, 1, bias=False)
        self.joint_norm = norm(context_size)
        self.conv_f = nn.Conv2d(context_size, expanded, 1)
        self.conv_t = nn.Conv2d(context_size, expanded, 1)
        self.stride = stride

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes context and scales.

        Args:
            features: The block's input, shape (batch, channel, mel, frame).

        Returns:
            The context (batch, context), and scales in (0, 1), (batch, expanded, mel / stride, 1) and
            (batch, expanded, 1, frame / stride).
        """
        mels = features.shape[2]
        sequence = torch.cat([features.mean(3), features.mean(2)], 2)  # (batch, channel, mel + frame)
        sequence = self.joint_norm(self.joint_conv(sequence.unsqueeze(3)))
        sequence = F.hardswish(sequence)  # (batch, context, mel + frame, 1)
        mel, frame = sequence[:, :, :mels], sequence[:, :, mels:]
        if self.stride > 1:
            mel, frame = self._downsample(mel), self._downsample(frame)
        scales = self.conv_f(mel).sigmoid(), self.conv_t(frame).sigmoid().transpose(2, 3)
        return sequence.mean((2, 3)), *scales

    def _downsample(self, sequence: Tensor) -> Tensor:
        """Reduces n positions to ceil(n / stride), as the block's depthwise convolution does."""
        return F.avg_pool2d(sequence, (3, 1), (self.stride, 1), (1, 0))


class DynamicConv(nn.Module):
    """Convolution without bias whose kernel is a mean of several, weighted by attention over the context.

    Source: Chen et al., arXiv:1912.03458, section 3; golden models/dymn04_dyconv_k2.npz.

    Args:
        shape: Shape of each kernel: (output channel, input channel, mel, frame).
        context_size: Size of the context.
        num_kernels: Number of kernels, at least 1.
        temperature: Temperature of the attention, above 0; set later by DyMN.set_temperature.

    Attributes:
        bias: None; or the offset of a fused batch norm, (output channel,), which the context does not change.
    """

    bias: nn.Parameter | None

    def __init__(
        self, shape: tuple[int, int, int, int], context_size: int, num_kernels: int, temperature: float
    ) -> None:
        super().__init__()
        self.shape, self.temperature = shape, temperature
        self.weight = nn.Parameter(torch.empty(1, 1, num_kernels, math.prod(shape)))
        self.register_parameter("bias", None)
        self.residuals = nn.Sequential(nn.Linear(context_size, num_kernels))
        for kernel in self.weight.detach()[0, 0]:
            nn.init.kaiming_normal_(kernel.view(shape), mode="fan_out")

    def attention(self, context: Tensor) -> Tensor:
        """Computes the weights of the kernels, (batch, kernel), which sum to 1, of (batch, context)."""
        scores: Tensor = self.residuals(context)
        return (scores / self.temperature).softmax(1)

    def mix_kernels(self, context: Tensor) -> Tensor:
        """Computes each clip's kernel, flat: (batch, output channel * input channel * mel * frame)."""
        return self.attention(context) @ self.weight.flatten(0, 2)


class DynamicPointwise(DynamicConv):
    """Dynamic 1 x 1 convolution, a matrix product for each clip.

    Args:
        channels: Input and output channels.
        context_size: Size of the context.
        num_kernels: As of DynamicConv.
        temperature: As of DynamicConv.
    """

    def __init__(
        self, channels: tuple[int, int], context_size: int, *, num_kernels: int, temperature: float
    ) -> None:
        super().__init__((channels[1], channels[0], 1, 1), context_size, num_kernels, temperature)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Maps (batch, input channel, mel, frame) and a context to (batch, output channel, mel, frame)."""
        kernels = self.mix_kernels(context).view(-1, *self.shape[:2])  # (batch, output, input channel)
        flat = features.flatten(2)  # (batch, input channel, mel * frame)
        mapped = kernels @ flat if self.bias is None else torch.baddbmm(self.bias[:, None], kernels, flat)
        return mapped.view(*mapped.shape[:2], *features.shape[2:])


class DynamicDepthwise(DynamicConv):
    """Dynamic depthwise convolution; n positions become ceil(n / stride).

    Args:
        channels: Input and output channels.
        kernel: Side of the kernel, odd.
        stride: Along both axes.
        context_size: Size of the context.
        num_kernels: As of DynamicConv.
        temperature: As of DynamicConv.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        context_size: int,
        *,
        num_kernels: int,
        temperature: float,
    ) -> None:
        super().__init__((channels, 1, kernel, kernel), context_size, num_kernels, temperature)
        self.stride, self.padding = stride, kernel // 2

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Maps (batch, channel, mel, frame) to the same channels, mel / stride and frame / stride."""
        kernels = self.mix_kernels(context).view(-1, *self.shape)  # (batch, channel, 1, kernel, kernel)
        if torch.compiler.is_exporting():
            return self._convolve_each_clip(features, kernels)
        # One grouped convolution over all clips: (1, batch * channel, mel, frame)
        result = self._convolve(features.flatten(0, 1).unsqueeze(0), kernels.flatten(0, 1))
        return result.view(*features.shape[:2], *result.shape[2:])

    def _convolve(self, features: Tensor, kernels: Tensor) -> Tensor:
        clips = len(kernels) // self.shape[0]
        bias = None if self.bias is None else self.bias.repeat(clips)
        return F.conv2d(features, kernels, bias, self.stride, self.padding, groups=len(kernels))

    def _convolve_each_clip(self, features: Tensor, kernels: Tensor) -> Tensor:
        """Convolves in a loop of the graph: ONNX fixes the number of groups, which excludes the batch."""

        def step(carry: Tensor, clip: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return carry.clone(), self._convolve(clip[0].unsqueeze(0), clip[1]).squeeze(0)

        results: Tensor = scan(step, features.new_zeros(1), (features, kernels))[1]  # scan needs a carry
        return results


class DynamicReLU(nn.Module):
    """Maximum of several linear functions, whose slopes and offsets depend on clip and channel.

    Source: Chen et al., arXiv:2003.10027, variant B; golden models/dymn04_dyrelu_k3.npz.

    Args:
        channels: Channels of the feature map.
        context_size: Size of the context.
        num_lines: Number of linear functions; with two it is close to a ReLU initially.
    """

    lambdas: Tensor
    init_v: Tensor

    def __init__(self, channels: int, context_size: int, num_lines: int) -> None:
        super().__init__()
        self.coef_net = nn.Sequential(nn.Linear(context_size, channels * 2 * num_lines))
        self.register_buffer("lambdas", torch.tensor([1.0] * num_lines + [0.5] * num_lines))
        self.register_buffer("init_v", torch.tensor([1.0] + [0.0] * (2 * num_lines - 1)))

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Maps (batch, channel, mel, frame) and a context (batch, context) to the shape of the map."""
        theta: Tensor = 2 * self.coef_net(context).sigmoid() - 1
        theta = theta.view(theta.shape[0], -1, 1, 1, len(self.lambdas))  # (batch, channel, 1, 1, 2 * line)
        theta = theta * self.lambdas + self.init_v
        slopes, offsets = (half.unbind(-1) for half in theta.chunk(2, -1))  # each (batch, channel, 1, 1)
        lines = [features * slope + offset for slope, offset in zip(slopes, offsets, strict=True)]
        highest: Tensor = reduce(torch.maximum, lines)
        return highest


class StaticLayer(nn.Module):
    """Wraps a static layer in place of a dynamic one; the context is ignored.

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
