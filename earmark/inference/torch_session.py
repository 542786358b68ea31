"""A network in PyTorch in the place of an inference session, so that a tagger can run a checkpoint.

Conventions: inputs and outputs are those of a model file's graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.models.network import Network


class NetworkSession:
    """Runs a network as an inference session runs a model file.

    Args:
        network: On the CPU; it is put into evaluation mode.
        dtype: What the network computes in.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        self._network, self._dtype = network.eval(), dtype

    @torch.no_grad()
    def run(
        self, names: Sequence[str], inputs: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Computes "logits" (batch, class) and "embedding" (batch, channel), as named, of one batch."""
        answer = self._network(*(torch.from_numpy(one).to(self._dtype) for one in inputs.values()))
        return [getattr(answer, name).float().numpy() for name in names]
