"""Batch norms folded into the layers before them: the same answers, fewer weights and operations.

Source: Jacob et al., arXiv:1712.05877, section 3.2; SP4ASC folds its networks so before they are submitted
(golden sp4asc/sp4asc.npz).

Conventions: a module of several layers says in its attribute ``norms`` which norm stands behind which layers;
in an ``nn.Sequential`` their order says it. A norm with no layer before it, like that of Cnn6_60k's mel
bands, keeps a scale and an offset: it cannot move into a later layer that pads with zeros, which would then
pass through it.
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


class Affine(nn.Module):
    """What a batch norm is once its statistics are folded into its weights: a line for each channel.

    Args:
        scale: Shape (channel, 1, ...), with an axis for each that follows the channel.
        offset: The same shape.
    """

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(scale)
        self.bias = nn.Parameter(offset)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, channel, ...) to the same shape."""
        return features * self.weight + self.bias


@torch.no_grad()
def fold_norms(network: Network, eps: float | None = None) -> None:
    """Folds every batch norm of a network, in place; evaluation mode then answers as before.

    Args:
        network: With running statistics; its ``config``, and those of networks within, become ``fused``.
        eps: What is added to the running variances; None: what each norm adds, which is exact.

    Raises:
        ModelError: If a channel has no variance, and eps is 0.
    """
    for name, module in list(network.named_modules()):
        for norm_name, layers in _norms_within(module):
            norm = module.get_submodule(norm_name)
            scale, offset = _line(norm, eps, f"{name}.{norm_name}")
            for layer in layers:
                _scale_outputs(module.get_submodule(layer), scale)
            _add_to_outputs(module.get_submodule(layers[-1]), offset)
            module.set_submodule(norm_name, nn.Identity())
    for name, module in list(network.named_modules()):
        if isinstance(module, _NORMS):
            shape = (-1, 1, 1) if isinstance(module, nn.BatchNorm2d) else (-1,)
            scale, offset = _line(module, eps, name)
            network.set_submodule(name, Affine(scale.view(shape), offset.view(shape)))
    for part in network.modules():
        if isinstance(part, Network):
            part.config = replace(part.config, fused=True)


def _norms_within(module: nn.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of the norms directly within a module, each with the layers whose summed outputs it takes."""
    if isinstance(module, nn.Sequential):
        for (layer_name, layer), (norm_name, norm) in pairwise(module.named_children()):
            if isinstance(layer, _LAYERS) and isinstance(norm, _NORMS):
                yield norm_name, (layer_name,)
        return
    for norm_name, layers in getattr(module, "norms", {}).items():
        if isinstance(module.get_submodule(norm_name), _NORMS):
            yield norm_name, layers


def _line(norm: Any, eps: float | None, name: str) -> tuple[Tensor, Tensor]:
    """Scale and offset of each channel; computed in 64 bits, so that folding rounds once."""
    variance = norm.running_var.double() + (norm.eps if eps is None else eps)
    scale = norm.weight.double() / variance.sqrt()
    if eps is not None and not scale.is_meta and not scale.isfinite().all():
        raise ModelError(f"{name}: a channel has a variance of 0: fold its norm with its own epsilon")
    offset = norm.bias.double() - norm.running_mean.double() * scale
    return scale.to(norm.weight.dtype), offset.to(norm.weight.dtype)


def _scale_outputs(layer: Any, scale: Tensor) -> None:
    # A dynamic convolution holds several kernels, and says itself of what shape each is.
    shape = getattr(layer, "shape", layer.weight.shape)
    kernels = layer.weight.view(-1, *shape)
    kernels.mul_(scale.view(-1, *[1] * (len(shape) - 1)))
    if layer.bias is not None:
        layer.bias.mul_(scale)


def _add_to_outputs(layer: Any, offset: Tensor) -> None:
    layer.bias = nn.Parameter(offset if layer.bias is None else layer.bias + offset)
