"""Convolutions, norms and padding that earmark's convolutional networks share.

Conventions: feature maps are (batch, channel, mel, frame). Attribute names are those of the published state
dicts (EfficientAT, MIT licence), which therefore load strictly. Nothing branches on a batch size or a length,
so that every layer exports with both dynamic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.errors import ModelError

#: How a convolution pads: "centred", equally on both sides; or "same", as TensorFlow and flax do.
Padding = Literal["centred", "same"]


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounds a number of channels to a multiple of the divisor, never down by more than a tenth.

    Source: Howard et al., arXiv:1905.02244, as in torchvision's MobileNet.

    Args:
        value: Number of channels before rounding, above 0.
        divisor: Least result, of which all results are multiples.

    Returns:
        The number of channels.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Counts the zeros of TensorFlow's "SAME" padding, with which n positions become ceil(n / stride).

    Source: golden audax/models.npz.

    Args:
        length: Length of the axis, at least 1; it may be dynamic in an export.
        kernel: Length of the kernel along that axis, at least the stride.
        stride: At least 1.

    Returns:
        Zeros before and after; one more after where their sum is odd.
    """
    total = ((length + stride - 1) // stride - 1) * stride + kernel - length
    return total // 2, total - total // 2


def pad_same(features: Tensor, kernel: int, stride: int) -> Tensor:
    """Pads all axes after the channel by :func:`same_padding`: (batch, channel, ...) in and out."""
    padding: list[int] = []
    for length in reversed(features.shape[2:]):
        padding += same_padding(length, kernel, stride)
    return functional.pad(features, padding)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding; arguments as ``nn.Conv2d``, without the padding."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name is the base's
        """Maps n to ceil(n / stride) along mel and frame; shapes (batch, channel, mel, frame) in and out."""
        return super().forward(self.padded(input))

    def padded(self, features: Tensor) -> Tensor:
        """Returns the padded input, (batch, channel, mel, frame)."""
        span = (self.kernel_size[0] - 1) * self.dilation[0] + 1
        return pad_same(features, span, self.stride[0])


def convolution(
    channels: tuple[int, int],
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: Padding = "centred",
) -> nn.Conv2d:
    """Builds a convolution without bias, padded so that n positions become ceil(n / stride).

    Args:
        channels: Input and output channels.
        kernel: Side of the kernel, odd.
        stride: Along both axes.
        dilation: Along both axes.
        groups: Groups of channels.
        padding: Makes a difference only with a stride above 1.

    Returns:
        The convolution.
    """
    if padding == "same" and stride > 1 and kernel > 1:
        return SameConv2d(*channels, kernel, stride, dilation=dilation, groups=groups, bias=False)
    return nn.Conv2d(*channels, kernel, stride, (kernel - 1) // 2 * dilation, dilation, groups, bias=False)


class ConvNormActivation(nn.Sequential):
    """Convolution without bias, batch norm, activation; n positions become ceil(n / stride).

    Args:
        channels: Input and output channels.
        kernel: Side of the kernel, odd.
        norm: Builds the batch norm of a number of channels.
        activation: Builds the activation; None for none.
        stride: Along both axes.
        dilation: Along both axes.
        groups: Groups of channels; equal to the channels for a depthwise convolution.
        padding: As of :func:`convolution`.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        *,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module] | None,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: Padding = "centred",
    ) -> None:
        conv = convolution(channels, kernel, stride=stride, dilation=dilation, groups=groups, padding=padding)
        super().__init__(conv, norm(channels[1]), *([] if activation is None else [activation()]))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels: (batch, channel, ...) in and out; arguments as ``nn.LayerNorm``."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name is the base's
        """Normalises the channels at each position of the map."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for random items of a batch, scales it for the others.

    Source: Huang et al., arXiv:1603.09382, equation 2.

    Args:
        drop_rate: Probability of dropping the branch, from 0 to below 1.
    """

    def __init__(self, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    def forward(self, features: Tensor) -> Tensor:
        """Drops or scales a branch (batch, ...); the identity in evaluation mode."""
        if not self.training or not self.drop_rate:
            return features
        keep_rate = 1 - self.drop_rate
        kept = features.new_empty((len(features),) + (1,) * (features.ndim - 1)).bernoulli_(keep_rate)
        return features * kept / keep_rate


def repeat_to_length(log_mel: Tensor, mels: int, frames: int) -> Tensor:
    """Repeats spectrograms that are too short for a network's pooling layers.

    Args:
        log_mel: Shape (batch, mel, frame), at least one frame.
        mels: Least number of mel bands.
        frames: Least number of frames.

    Returns:
        Shape (batch, mel, max(frame, frames)).

    Raises:
        ModelError: If there are too few mel bands, which are never repeated.
    """
    if log_mel.shape[1] < mels:
        raise ModelError(
            f"this network needs at least {mels} mel bands, got {log_mel.shape[1]}: use a front-end with more"
        )
    length = log_mel.shape[2]
    # No branch on the length: an export would take it for a limit. ONNX divides tensors by tensors only.
    longest = torch.sym_max(length, frames)  # type: ignore[no-untyped-call]
    order = torch.arange(longest, device=log_mel.device)
    return log_mel.index_select(2, order % torch.full_like(order, length))
