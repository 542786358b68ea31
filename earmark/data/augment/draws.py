"""Random numbers on the device of the tensors that they augment.

Conventions: drawn on the CPU with a NumPy generator, so a seed gives the same batch on any device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def on_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Copies drawn numbers to a device, from pinned memory, so that nothing waits for the copy."""
    drawn = torch.from_numpy(values)
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def mixing_weights(
    alpha: float, size: int | None, generator: np.random.Generator, larger: bool
) -> np.ndarray:
    """Shares of the items in their mixtures, from Beta(alpha, alpha); ``larger``: at least one half."""
    drawn = np.asarray(generator.beta(alpha, alpha, size))
    return np.maximum(drawn, 1 - drawn) if larger else drawn


def mix_targets(targets: Tensor, partners: Tensor, share: np.ndarray) -> Tensor:
    """Targets of mixtures, (batch, class)."""
    weight = column(share, targets)
    return weight * targets + (1 - weight) * partners


def column(values: np.ndarray, like: Tensor) -> Tensor:
    """One number per item of a batch, shaped to multiply the whole item."""
    numbers = on_device(values, like.device).to(like.dtype)
    return numbers.reshape(-1, *(1,) * (like.ndim - 1))
