"""The parts that earmark's convolutional networks are made of.

Conventions: feature maps are (batch, channel, mel, frame). The attribute names are those of the published
state dicts (EfficientAT, MIT licence), so that those load strictly. Nothing branches on a batch size or a
length, so that every part exports with both left open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.errors import ModelError

#: How a convolution pads: "centred", the same on both sides; or "same", as TensorFlow and flax do.
Padding = Literal["centred", "same"]

#: The letters of the axes that squeeze-excitation can look along, and which axis of a feature map each is.
SE_AXES = {"c": 1, "f": 2, "t": 3}


def _minimum(scaled: Tensor) -> Tensor:
    return scaled.amin(0)


def _maximum(scaled: Tensor) -> Tensor:
    return scaled.amax(0)


#: How the maps scaled along several axes become one; each reduces the first of
#: (axis, batch, channel, mel, frame).
SE_FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": _maximum,
    "min": _minimum,
    "avg": partial(torch.mean, dim=0),
    "add": partial(torch.sum, dim=0),
}


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounds a number of channels to a multiple of the divisor, never down by more than a tenth.

    Source: Howard et al., arXiv:1905.02244, as MobileNet implementations have it.

    Args:
        value: The number wanted, above 0.
        divisor: What the result is a multiple of, and its least value.

    Returns:
        The number of channels.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Counts the zeros that make an axis of n become ceil(n / stride), as TensorFlow's "SAME" places them.

    Source: golden audax/models.npz.

    Args:
        length: Of the axis, at least 1; it may be left open in an export.
        kernel: Length of the kernel along that axis, at least the stride.
        stride: At least 1.

    Returns:
        Zeros before and after; after has one more where their sum is odd.
    """
    total = ((length + stride - 1) // stride - 1) * stride + kernel - length
    return total // 2, total - total // 2


def pad_same(features: Tensor, kernel: int, stride: int) -> Tensor:
    """Pads all axes after the channel with zeros by same_padding: (batch, channel, ...) in and out."""
    padding: list[int] = []
    for length in reversed(features.shape[2:]):
        padding += same_padding(length, kernel, stride)
    return functional.pad(features, padding)


class SameConv2d(nn.Conv2d):
    """Convolution that pads by what the map's size asks for; arguments as of its base, less the padding."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name is the base's
        """Maps n to ceil(n / stride) along mel and frame; shapes (batch, channel, mel, frame) in and out."""
        return super().forward(self.padded(input))

    def padded(self, features: Tensor) -> Tensor:
        """The map with the zeros around it."""
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
    """Makes a convolution without bias, padded so that only the stride shrinks the map.

    Args:
        channels: Input and output channels.
        kernel: Side of the kernel, odd.
        stride: Along both axes; a map of n becomes ceil(n / stride).
        dilation: Along both axes.
        groups: Groups of channels.
        padding: Differs only where the stride is above 1.

    Returns:
        The convolution.
    """
    if padding == "same" and stride > 1 and kernel > 1:
        return SameConv2d(*channels, kernel, stride, dilation=dilation, groups=groups, bias=False)
    return nn.Conv2d(*channels, kernel, stride, (kernel - 1) // 2 * dilation, dilation, groups, bias=False)


class ConvNormActivation(nn.Sequential):
    """Convolution without bias, batch norm, activation; padded so that only the stride shrinks the map.

    Args:
        channels: Input and output channels.
        kernel: Side of the kernel, odd.
        stride: Along both axes; a map of n becomes ceil(n / stride).
        dilation: Along both axes.
        groups: Groups of channels; equal to the channels for a depthwise convolution.
        norm: Makes the batch norm of a number of channels.
        activation: Makes the activation; None for none.
        padding: See convolution.
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


class AxisExcitation(nn.Module):
    """Scales in (0, 1) along one axis of a feature map, from its mean over the other two.

    Source: Hu et al., arXiv:1709.01507, equations 2 to 4, for any of the three axes.

    Args:
        axis: 1 for channels, 2 for mel, 3 for frames.
        size: The map's length along that axis.
        squeezed: Width of the bottleneck.
        bias: Whether the two linear layers have one.
        activation: Of the bottleneck.
    """

    def __init__(
        self,
        axis: int,
        size: int,
        squeezed: int,
        *,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, squeezed, bias)
        self.fc2 = nn.Linear(squeezed, size, bias)
        self.activation = activation
        self.pooled_axes = [other for other in SE_AXES.values() if other != axis]

    def forward(self, features: Tensor) -> Tensor:
        """Computes the scales.

        Args:
            features: Shape (batch, channel, mel, frame).

        Returns:
            The scales, of length 1 along the two other axes.

        Raises:
            ModelError: If the map's mel or frame axis has not the length that the network was built for.
        """
        pooled = features.mean(self.pooled_axes)  # (batch, size)
        # The channels are always right; asking only about the others keeps their lengths open in an export.
        if 1 in self.pooled_axes and pooled.shape[1] != self.fc1.in_features:
            axis, setting = ("frame", "num_frames") if 2 in self.pooled_axes else ("mel", "n_mels")
            raise ModelError(
                f"a feature map has {pooled.shape[1]} positions along its {axis} axis, its excitation was "
                f"built for {self.fc1.in_features}: give spectrograms of the network's own {setting}"
            )
        scales = torch.sigmoid(self.fc2(self.activation(self.fc1(pooled))))
        for other in self.pooled_axes:
            scales = scales.unsqueeze(other)
        return scales


class SqueezeExcitation(nn.Module):
    """Multiplies a feature map by scales along one or several axes, found side by side from the same map.

    Source: Schmid et al., arXiv:2211.04772; golden models/mn01_fc_se_*.npz.

    Args:
        sizes: Axis letter (c, f or t) to the map's length along it, in the order of the state dict.
        ratio: How many times narrower the bottlenecks are.
        fusion: One of SE_FUSIONS.
    """

    def __init__(self, sizes: dict[str, int], ratio: int, fusion: str) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList(
            AxisExcitation(SE_AXES[letter], size, make_divisible(size // ratio))
            for letter, size in sizes.items()
        )
        self.fuse = SE_FUSIONS[fusion]

    def forward(self, features: Tensor) -> Tensor:
        """Scales the map; shapes (batch, channel, mel, frame) in and out."""
        scaled = [features * excitation(features) for excitation in self.conc_se_layers]
        # The scaled maps are fused, not the scales: of a negative value the least scale makes the largest.
        return scaled[0] if len(scaled) == 1 else self.fuse(torch.stack(scaled))


class ResidualBlock(nn.Module):
    """Two or three convolutions and a way around them.

    Source: He et al., arXiv:1512.03385, figure 5; the names in the state dict are torchvision's.

    Args:
        in_channels: Channels of the map.
        width: Channels within.
        stride: Of the 3 x 3 convolution that may shrink the map: the first of two, the middle one of three.
        bottleneck: False: 3 x 3, 3 x 3, and ``width`` channels come out; True: 1 x 1, 3 x 3, 1 x 1, and four
            times as many do.
        norm: Makes the batch norm of a number of channels.
        padding: See convolution.
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
        """The norm whose scale, at zero, makes the block pass its input on."""
        return self.get_submodule(f"bn{self.depth}")

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, in_channels, mel, frame) to (batch, out_channels, mel / stride, frame / stride)."""
        result = features
        for number in range(1, self.depth + 1):
            result = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(result))
            if number < self.depth:
                result = torch.relu(result)
        return torch.relu(self.downsample(features) + result)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map: (batch, channel, ...) in and out; arguments as of its base."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name is the base's
        """Normalises each position of the map by itself."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class DropPath(nn.Module):
    """Leaves a residual branch out for some items of a training batch, and strengthens it in the others.

    Source: Huang et al., arXiv:1603.09382, equation 2.

    Args:
        share: Probability of leaving it out, from 0 to below 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        """Scales a branch (batch, ...); outside of training it is left as it is."""
        if not self.training or not self.share:
            return features
        kept = features.new_empty((len(features),) + (1,) * (features.ndim - 1)).bernoulli_(1 - self.share)
        return features * kept / (1 - self.share)


class CellPooling(nn.Module):
    """Divides a feature map of any size into a grid of cells, and takes each cell's mean or maximum.

    Source: what PyTorch calls adaptive pooling, written so that it exports with the length left open. Of k
    cells along n positions, cell i reaches from floor(i n / k) to ceil((i + 1) n / k): cells overlap where k
    does not divide n.

    Args:
        cells: Number of cells along mel and frame.
        kind: "mean" or "max".
    """

    def __init__(self, cells: tuple[int, int], kind: Literal["mean", "max"]) -> None:
        super().__init__()
        self.cells = cells
        self.kind = kind

    def forward(self, features: Tensor) -> Tensor:
        """Pools (batch, channel, mel, frame) to (batch, channel, *cells)."""
        mels, frames = self.cells
        pooled = self._along_last(features, frames).transpose(2, 3)  # (batch, channel, frame cell, mel)
        return self._along_last(pooled, mels).transpose(2, 3)

    def _along_last(self, features: Tensor, cells: int) -> Tensor:
        size = features.shape[3]
        number = torch.arange(cells, device=features.device)[:, None]
        position = torch.arange(size, device=features.device)
        inside = (position >= number * size // cells) & (
            position < ((number + 1) * size + cells - 1) // cells
        )
        if self.kind == "mean":
            share = inside.to(features.dtype)  # (cell, position)
            return features @ (share / share.sum(1, keepdim=True)).T
        return features.unsqueeze(3).masked_fill(~inside, -torch.inf).amax(4)


class StripeMask(nn.Module):
    """Sets random stripes of frames and of mel bands to zero, in training mode only (SpecAugment).

    Source: Park et al., arXiv:1904.08779, with the draws of torchlibrosa: a width uniform from 0 to one less
    than the limit, then a begin uniform over the places that leave at least one position behind the stripe;
    stripes may overlap. A spectrogram shorter than the limit lowers it to its own length. All is drawn from
    PyTorch's generator on the CPU, so a seed gives the same stripes on any device.

    Args:
        frames: Limit of the width of a stripe of frames, and how many stripes each item gets.
        mels: The same for stripes of mel bands.
    """

    def __init__(self, frames: tuple[int, int], mels: tuple[int, int]) -> None:
        super().__init__()
        self.stripes = {3: frames, 2: mels}

    def forward(self, features: Tensor) -> Tensor:
        """Masks each item of (batch, channel, mel, frame) by stripes of its own."""
        if not self.training:
            return features
        for axis, (limit, count) in self.stripes.items():
            size = features.shape[axis]
            widths = torch.randint(max(1, min(limit, size)), (len(features), count))
            begins = (torch.rand(len(features), count) * (size - widths)).long()
            features = zero_stripes(features, axis, begins, widths)
        return features


def zero_stripes(features: Tensor, axis: int, begins: Tensor, widths: Tensor) -> Tensor:
    """Sets stripes of feature maps to zero.

    Args:
        features: Shape (batch, channel, mel, frame).
        axis: 2 for stripes of mel bands, 3 for stripes of frames.
        begins: Where each item's stripes begin, shape (batch, stripe).
        widths: How wide they are, at least 0, same shape.

    Returns:
        Maps of the same shape.
    """
    position = torch.arange(features.shape[axis])
    first, width = begins.unsqueeze(2), widths.unsqueeze(2)
    masked = (
        ((position >= first) & (position < first + width)).any(1).to(features.device)
    )  # (batch, position)
    return features.masked_fill(masked[:, None, None] if axis == 3 else masked[:, None, :, None], 0)


def lengthen(log_mel: Tensor, mels: int, frames: int) -> Tensor:
    """Repeats spectrograms that are too short for a network's pooling until they are long enough.

    Args:
        log_mel: Shape (batch, mel, frame), at least one frame.
        mels: The fewest mel bands that the network can pool.
        frames: The fewest frames that it can pool.

    Returns:
        Shape (batch, mel, max(frame, frames)).

    Raises:
        ModelError: If there are too few mel bands, which nothing could stand in for.
    """
    if log_mel.shape[1] < mels:
        raise ModelError(
            f"the spectrogram has {log_mel.shape[1]} mel bands, this network needs at least {mels}: "
            "use a front-end with more"
        )
    length = log_mel.shape[2]
    # No branch on the length, which an export would take for a limit; ONNX divides tensors by tensors only.
    longest = torch.sym_max(length, frames)  # type: ignore[no-untyped-call]
    order = torch.arange(longest, device=log_mel.device)
    return log_mel.index_select(2, order % torch.full_like(order, length))


class AttentionPooling(nn.Module):
    """Multi-head attention over frames, one attention per class and head.

    Source: Gong et al., arXiv:2102.01243 (PSLA), section III; golden models/mn10_mhap4.npz.

    Args:
        channels: Channels of the feature map.
        num_classes: Number of classes.
        heads: Number of heads.
    """

    def __init__(self, channels: int, num_classes: int, heads: int) -> None:
        super().__init__()
        self.subspace_proj = nn.Linear(channels, 2 * heads * num_classes)
        self.head_weight = nn.Parameter(torch.full((1, heads, 1), 1 / heads))
        self.shape = (2, heads, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Computes logits (batch, class) of a feature map (batch, channel, mel, frame)."""
        sequence = features.mean(2).transpose(1, 2)  # (batch, frame, channel)
        attention, values = self.subspace_proj(sequence).unflatten(2, self.shape).unbind(2)
        attention = attention.sigmoid().clamp(1e-7, 1 - 1e-7)  # (batch, frame, head, class)
        attention = attention / attention.sum(1, keepdim=True)
        pooled: Tensor = (attention * values).sum(1)  # (batch, head, class)
        return (pooled * self.head_weight).sum(1)


def initialise(network: nn.Module) -> None:
    """Draws starting weights as the published networks did: He (fan out), and N(0, 0.01) for linear layers.

    Args:
        network: Its convolutions and linear layers are redrawn in place; norms stay as PyTorch makes them.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def initialise_truncated(network: nn.Module, gain: float = 1.0) -> None:
    """Draws starting weights of variance gain / fan in, cut at two standard deviations, as flax does.

    Args:
        network: Its convolutions and linear layers are redrawn in place, with biases of zero.
        gain: 1 is LeCun's rule, 2 is He's.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            draw_truncated(module, math.sqrt(gain / fan_in) / _STD_OF_CUT_NORMAL)


_STD_OF_CUT_NORMAL = 0.87962566103423978
"""Standard deviation of a standard normal distribution that is cut at -2 and 2."""


def draw_truncated(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    """Redraws a layer's weights from a normal distribution cut at two deviations; its bias becomes zero."""
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
