"""What every network of earmark is: a log-mel spectrogram in, the same named tuple out.

Conventions: shapes are (batch, mel, frame) in, (batch, class) and (batch, channel) out; no flag, batch size
or class count changes them. A network is built from one frozen dataclass that holds all its choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from earmark.errors import ModelError


class Output(NamedTuple):
    """What a network answers.

    Attributes:
        logits: Shape (batch, class), before sigmoid or softmax.
        embedding: Shape (batch, channel).
    """

    logits: Tensor
    embedding: Tensor


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The choices that all networks share.

    Attributes:
        num_classes: Length of the logits, at least 1.
    """

    num_classes: int = 527

    def __post_init__(self) -> None:
        require("num_classes", self.num_classes, self.num_classes >= 1, "a whole number of at least 1")


class Network(nn.Module):
    """A network from log-mel to logits and embedding; sub-classes fill in ``forward``.

    Args:
        config: All choices of the network; kept as ``network.config``.
    """

    config: NetworkConfig

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel).
        """
        raise NotImplementedError


def require(name: str, value: object, holds: bool, allowed: str) -> None:
    """Refuses a value of a configuration.

    Args:
        name: The value's name, as its user writes it.
        value: What was given.
        holds: Whether it is allowed.
        allowed: What would be, in words.

    Raises:
        ModelError: If it is not allowed.
    """
    if not holds:
        raise ModelError(f"{name} = {value!r} is not possible: give {allowed}")
