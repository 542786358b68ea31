"""What every network of earmark is: a log-mel spectrogram in, the same named tuple out.

Conventions: shapes are (batch, mel, frame) in, (batch, class) and (batch, channel) out; no flag, batch size
or class count changes them. A network is built from one frozen dataclass that holds all its choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, get_type_hints

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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_CHECKS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_is_count, "a whole number of at least 1"),
    float: (_is_number, "a finite number"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    str: (lambda value: isinstance(value, str), "a text"),
}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The choices that all networks share; each network's own dataclass adds to them.

    Every whole number of a configuration counts something and is at least 1, every other number is finite:
    that is checked here for all fields, so a sub-class only checks what is special about its own.

    Attributes:
        num_classes: Length of the logits.
        fused: Whether batch norms are folded into the layers before them
            (:mod:`earmark.models.fuse_batch_norm`); made of a trained network, to run it.

    Raises:
        ModelError: If a value is not possible.
    """

    num_classes: int = 527
    fused: bool = False

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if kind in _CHECKS:
                value = getattr(self, name)
                holds, allowed = _CHECKS[kind]
                require(name, value, holds(value), allowed)


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
