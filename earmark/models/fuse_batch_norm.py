"""Fuses batch norms into the layers before them: equal outputs, fewer weights and operations.

Source: Jacob et al., arXiv:1712.05877, section 3.2; SP4ASC fuses its networks for submission (golden
sp4asc/sp4asc.npz).

Conventions: in an ``nn.Sequential`` a norm follows its layer; any other module lists its norms in the
attribute ``norms``: name of the norm -> names of the layers whose summed outputs it takes. A norm without a
layer before it, like that of Cnn6_60k's mel bands, becomes a :class:`ChannelAffine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.models.network import Network

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_LAYERS = (nn.Conv2d, nn.Linear)


class ChannelAffine(nn.Module):
    """Scale and offset of each channel.

    Args:
        scale: Shape (channel, 1, ...), with one axis for each that follows the channel.
        offset: Same shape.
    """

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(scale)
        self.bias = nn.Parameter(offset)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, channel, ...) to the same shape."""
        return features * self.weight + self.bias


@torch.no_grad()
def fuse_batch_norm(network: Network, eps: float | None = None) -> None:
    """Fuses all batch norms of a network, in place; outputs in evaluation mode stay equal.

    Args:
        network: With running statistics; ``config.fused`` becomes true, also of networks inside it.
        eps: Added to the running variances; None: the epsilon of each norm, which is exact; 0 is SP4ASC's.

    Raises:
        ModelError: If eps is 0 and a channel has a variance of 0.
    """
    for norm_name, layers in norms_and_layers(network):
        scale, offset = _scale_and_offset(network.get_submodule(norm_name), eps, norm_name)
        for layer in layers:
            _scale_outputs(network.get_submodule(layer), scale)
        _add_to_outputs(network.get_submodule(layers[-1]), offset)
        network.set_submodule(norm_name, nn.Identity())
    for name, module in list(network.named_modules()):
        if isinstance(module, _NORMS):
            shape = (-1, 1, 1) if isinstance(module, nn.BatchNorm2d) else (-1,)
            scale, offset = _scale_and_offset(module, eps, name)
            network.set_submodule(name, ChannelAffine(scale.view(shape), offset.view(shape)))
    for part in network.modules():
        if isinstance(part, Network):
            part.config = replace(part.config, fused=True)


def norms_and_layers(network: nn.Module) -> list[tuple[str, tuple[str, ...]]]:
    """Lists the norms of a network that can be fused into layers.

    Args:
        network: Before its norms are fused.

    Returns:
        The name of each norm, and the names of the layers whose summed outputs it takes.
    """
    return [
        (f"{prefix}{norm}", tuple(f"{prefix}{layer}" for layer in layers))
        for name, module in network.named_modules()
        for prefix in (f"{name}." if name else "",)
        for norm, layers in _norms_within(module)
    ]


def _norms_within(module: nn.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields the names of a module's own norms, each with the layers whose summed outputs it takes."""
    if isinstance(module, nn.Sequential):
        for (layer_name, layer), (norm_name, norm) in pairwise(module.named_children()):
            if isinstance(layer, _LAYERS) and isinstance(norm, _NORMS):
                yield norm_name, (layer_name,)
        return
    for norm_name, layers in getattr(module, "norms", {}).items():
        if isinstance(module.get_submodule(norm_name), _NORMS):
            yield norm_name, layers


def _scale_and_offset(norm: Any, eps: float | None, name: str) -> tuple[Tensor, Tensor]:
    """Computes scale and offset of each channel in float64, so that they are rounded once."""
    variance = norm.running_var.double() + (norm.eps if eps is None else eps)
    scale = norm.weight.double() / variance.sqrt()
    if eps is not None and not scale.is_meta and not scale.isfinite().all():
        raise ModelError(f"{name}: a channel has a variance of 0, which needs an epsilon above 0")
    offset = norm.bias.double() - norm.running_mean.double() * scale
    return scale.to(norm.weight.dtype), offset.to(norm.weight.dtype)


def _scale_outputs(layer: Any, scale: Tensor) -> None:
    # A dynamic convolution has several kernels, each of layer.shape.
    shape = getattr(layer, "shape", layer.weight.shape)
    kernels = layer.weight.view(-1, *shape)
    kernels.mul_(scale.view(-1, *[1] * (len(shape) - 1)))
    if layer.bias is not None:
        layer.bias.mul_(scale)


def _add_to_outputs(layer: Any, offset: Tensor) -> None:
    layer.bias = nn.Parameter(offset if layer.bias is None else layer.bias + offset)
