"""Activation checkpointing: stages keep only their input and recompute the rest in the backward pass.

Conventions: this changes memory and time of a training step, not its result. Weights, their names, evaluation
and export stay as they are. Running statistics of batch norms follow the first pass only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from earmark.models.network import Network

STAGES = ("features", "blocks", "layers", "stages", "layer1", "layer2", "layer3", "layer4")
"""Attributes of networks that hold their stages, in a Sequential or a ModuleList."""


def stages_of(network: nn.Module) -> list[nn.Module]:
    """The stages of a network, or of the networks within a module; empty for networks without any."""
    return [
        stage
        for module in network.modules()
        if isinstance(module, Network)
        for name in STAGES
        if isinstance(container := getattr(module, name, None), nn.Sequential | nn.ModuleList)
        for stage in container
    ]


def checkpoint_stages(network: nn.Module) -> int:
    """Makes every stage of a network recompute its activations in the backward pass.

    Source: ``torch.utils.checkpoint`` without reentrance (Chen et al., arXiv:1604.06174).

    Returns:
        The number of stages; 0 if the network has none.
    """
    stages = stages_of(network)
    for stage in stages:
        stage.__class__ = _checkpointed(type(stage))  # type: ignore[arg-type]
    return len(stages)


@cache
def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """A module class whose forward pass in training is checkpointed."""

    class Checkpointed(kind):  # type: ignore[misc,valid-type]
        def forward(self, *inputs: Any) -> Any:
            if not (self.training and torch.is_grad_enabled()):
                return super().forward(*inputs)
            return checkpoint(
                super().forward, *inputs, use_reentrant=False, context_fn=lambda: _contexts(self)
            )

    Checkpointed.__name__ = Checkpointed.__qualname__ = f"Checkpointed{kind.__name__}"
    return Checkpointed


def _contexts(stage: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of the first pass and of the recomputation."""
    return nullcontext(), _frozen_statistics(stage)


@contextmanager
def _frozen_statistics(stage: nn.Module) -> Iterator[None]:
    """Keeps running statistics as the first pass left them.

    ``track_running_stats = False`` would not do: the norm would save other tensors than in the first pass.
    """
    norms = [norm for norm in stage.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    before = [count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for count, value in zip(counts, before, strict=True):
            count.copy_(value)
