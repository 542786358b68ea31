"""Collectives with gradients: gathering rows of a batch, and batch norm over all processes.

Conventions: each process holds an equal number of rows, in the order of ranks. Gradients are those of the sum
of all processes' losses, as in PyTorch's distributed training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class _Gather(torch.autograd.Function):
    """Rows of all processes; the gradient of a row is the sum over processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        together = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(together, rows)
        ctx.count = len(rows)
        return torch.cat(together)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        first = distributed.get_rank() * ctx.count
        return total[first : first + ctx.count]


def gathered(rows: Tensor) -> Tensor:
    """Gathers the rows of all processes, (row, ...) -> (processes * row, ...), with gradients."""
    together: Tensor = _Gather.apply(rows.contiguous())  # type: ignore[no-untyped-call]
    return together


class SynchronizedNorm(nn.BatchNorm2d):
    """Batch norm over the rows of all processes on CPUs, which ``nn.SyncBatchNorm`` does not support."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (as nn.BatchNorm2d calls it)
        """Normalises (batch, channel, mel, frame) by the statistics of the global batch."""
        if not self.training:
            return super().forward(input)
        count = input.numel() / input.shape[1] * distributed.get_world_size()
        mean = _sum_over_processes(input) / count
        centred = input - mean[:, None, None]
        variance = _sum_over_processes(centred.square()) / count
        self._update(mean.detach(), variance.detach() * count / (count - 1))
        normed = centred * (variance + self.eps).rsqrt()[:, None, None]
        return normed * self.weight[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _sum_over_processes(values: Tensor) -> Tensor:
    """Sum per channel over the rows of all processes."""
    return gathered(values.sum((0, 2, 3))[None]).sum(0)


def synchronize_norms(network: nn.Module, device: torch.device) -> None:
    """Makes a network's batch norms use all processes; names and weights stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedNorm
