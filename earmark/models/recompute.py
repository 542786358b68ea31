"""Chains of convolutions that keep less for their backward pass: norms and activations are computed anew.

A norm keeps its input, an activation its input or its answer, a scaling its input, the next convolution too:
up to four maps of one size, and the widest of the network. Here the first of them is kept, from which the
backward pass computes the others once more, which costs far less than a convolution does.

Conventions: feature maps are (batch, channel, mel, frame). What is computed is the same, and so are weights,
their names, and the norms' running statistics; evaluation and exports know nothing of this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from earmark.models.layers import ConvNormActivation, SameConv2d

#: What each activation computes; their modules may write over their input, which is still needed here.
ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: functional.relu,
    nn.Hardswish: functional.hardswish,
    nn.SiLU: functional.silu,
}


WIDEST = 2**23
"""Values of a map that are computed at a time: those of a few clips where the maps of a batch are wide."""


@dataclass(frozen=True)
class Link:
    """What lies between two convolutions of a chain, and the second of them.

    Args:
        norm: Of what the first one gives.
        activation: Of one of the types in ACTIVATIONS.
        scaling: Of the activated map, which keeps its size; or none.
        convolution: The second one.
    """

    norm: nn.BatchNorm2d
    activation: nn.Module
    scaling: nn.Module | None
    convolution: nn.Conv2d

    @property
    def weights(self) -> list[Tensor]:
        """All that learns: of the norm, of the convolution, and of the scaling."""
        own = [self.norm.weight, self.norm.bias, self.convolution.weight]
        return own if self.scaling is None else [*own, *self.scaling.parameters()]

    def normed(self, features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Batch norm by these statistics of the batch."""
        norm = self.norm
        return functional.batch_norm(features, mean, variance, norm.weight, norm.bias, eps=norm.eps)

    def activated(self, normed: Tensor) -> Tensor:
        """What the convolution gets, padded where it pads by the map's size."""
        result = ACTIVATIONS[type(self.activation)](normed)
        if self.scaling is not None:
            result = self.scaling(result)
        return self.convolution.padded(result) if isinstance(self.convolution, SameConv2d) else result

    def convolved(self, activated: Tensor) -> Tensor:
        """What the convolution gives."""
        conv = self.convolution
        return functional.conv2d(
            activated, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups
        )

    def convolution_gradients(self, gradient: Tensor, activated: Tensor) -> tuple[Tensor, Tensor]:
        """Of what the convolution gets, and of its kernel."""
        conv = self.convolution
        of_map, of_kernel, _ = torch.ops.aten.convolution_backward(
            gradient,
            activated,
            conv.weight.to(activated.dtype),
            None,
            conv.stride,
            conv.padding,
            conv.dilation,
            False,
            (0, 0),
            conv.groups,
            (True, True, False),
        )
        return of_map, of_kernel.to(conv.weight.dtype)


class _Linked(torch.autograd.Function):
    """A link, of whose maps only the first is kept; wide ones are computed some items at a time."""

    @staticmethod
    def forward(ctx: Any, link: Link, features: Tensor, *weights: Tensor) -> Tensor:
        norm, kind = link.norm, features.device.type
        assert norm.momentum is not None
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        statistics = torch.batch_norm_update_stats(
            features, norm.running_mean, norm.running_var, norm.momentum
        )
        ctx.link = link
        ctx.autocast = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.save_for_backward(features, *statistics, *weights)
        parts = [
            link.convolved(link.activated(link.normed(part, *statistics)))
            for part in torch.split(features, _items(features))
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        link, (features, mean, variance, weight, _, _, *scaling) = ctx.link, ctx.saved_tensors
        of_normed, totals = torch.empty_like(features), None
        items = _items(features)
        for kept, given, taken in zip(
            *(torch.split(maps, items) for maps in (features, gradient, of_normed)), strict=True
        ):
            normed = link.normed(kept, mean, variance).requires_grad_()
            with torch.enable_grad(), ctx.autocast:
                activated = link.activated(normed)
            given, of_kernel = link.convolution_gradients(given, activated.detach())
            given, *of_scaling = torch.autograd.grad(activated, [normed, *scaling], given)
            taken.copy_(given)
            found = [of_kernel, *of_scaling]
            totals = found if totals is None else [a + b for a, b in zip(totals, found, strict=True)]
        assert totals is not None
        spread = (variance + link.norm.eps).rsqrt()
        of_norm = torch.ops.aten.native_batch_norm_backward(
            of_normed, features, weight, None, None, mean, spread, True, link.norm.eps, (True, True, True)
        )
        return None, *of_norm, *totals


def _items(features: Tensor) -> int:
    """How many items of a batch are computed at a time."""
    return max(1, min(len(features), WIDEST // features[0].numel()))


def chained(chain: nn.Sequential, features: Tensor) -> Tensor:
    """Computes a chain of ConvNormActivations, and of scalings between them, keeping less.

    Args:
        chain: In training mode; the first and the last are ConvNormActivations, and only the last is without
            an activation. Its norms are plain ones, with a momentum.
        features: (batch, channel, mel, frame).

    Returns:
        What the chain gives, less rounding; the norms' running statistics have moved as they do in training.
    """
    result, scaling = features, None
    waiting: tuple[nn.BatchNorm2d, nn.Module] | None = None
    for part in chain:
        if not isinstance(part, ConvNormActivation):
            scaling = part
            continue
        convolution, norm, activation = part[0], part[1], part[-1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        if waiting is None:
            result = convolution(result)
        else:
            link = Link(*waiting, scaling, convolution)
            result = _Linked.apply(link, result, *link.weights)  # type: ignore[no-untyped-call]
        waiting, scaling = (norm, activation), None
    last: Tensor = norm(result)
    return last
