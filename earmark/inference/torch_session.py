"""Runs a network in PyTorch instead of an engine, so that a tagger can run a checkpoint.

Conventions: inputs and outputs are those of a model file's graph.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.inference.engines import parse_device
from earmark.models.network import Network


class NetworkSession:
    """Runs a network.

    Args:
        network: Moved to the device and set to evaluation mode.
        dtype: Precision of the computation.
        device: As for :func:`earmark.load`.

    Raises:
        ModelError: If the device is unknown or not available.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        self._device, self._dtype = torch_device(device), dtype
        self._process = os.getpid()
        self._network = network.eval().to(self._device)

    @torch.no_grad()
    def run(
        self, names: Sequence[str], inputs: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Computes "logits" (batch, class) and "embedding" (batch, channel), as named, of one batch.

        Raises:
            ModelError: In a forked child, if the network is on a GPU.
        """
        if self._process != os.getpid():
            self._continue_in_forked_child()
        tensors = (torch.from_numpy(one).to(self._device, self._dtype) for one in inputs.values())
        output = self._network(*tensors)
        return [getattr(output, name).float().cpu().numpy() for name in names]

    def _continue_in_forked_child(self) -> None:
        if self._device.type != "cpu":
            raise ModelError("a forked process cannot use a network on a GPU: load it there, or use spawn")
        torch.set_num_threads(1)  # the others are not there: PyTorch would wait for them
        self._process = os.getpid()


def torch_device(device: str) -> torch.device:
    """Finds PyTorch's device for the name of a device.

    Args:
        device: As for :func:`earmark.load`.

    Raises:
        ModelError: If the device is unknown or not available.
    """
    kind, index = parse_device(device)
    count = torch.cuda.device_count() if kind != "cpu" else 0
    if kind == "cuda" and index >= count:
        raise ModelError(f"device {device} is not available: PyTorch has {count} CUDA devices: use cpu")
    return torch.device("cuda", index) if count else torch.device("cpu")
