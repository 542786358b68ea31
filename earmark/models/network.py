"""The interface of all networks: a log-mel spectrogram in, logits and embedding out.

Conventions: shapes are (batch, mel, frame) in, (batch, class) and (batch, channel) out, whatever the flags,
batch size and number of classes. A network is built from one frozen dataclass, its config.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, get_type_hints

from torch import Tensor, nn

from earmark.errors import ModelError


class Output(NamedTuple):
    """Output of a network.

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
    int: (_is_count, "an integer of at least 1"),
    float: (_is_number, "a finite number"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    str: (lambda value: isinstance(value, str), "a string"),
}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Configuration that all networks share; each network's dataclass adds its own fields.

    The types of all fields are checked here, integers to be at least 1, floats to be finite; sub-classes
    check what is special about their fields.

    Attributes:
        num_classes: Length of the logits.
        fused: Whether batch norms are fused into the layers before them, for inference
            (:mod:`earmark.models.fuse_batch_norm`).

    Raises:
        ModelError: If a value is invalid.
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
    """Base class of networks from log-mel to logits and embedding.

    Args:
        config: Configuration of the network, available as ``network.config``.
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
    """Checks a value of a configuration.

    Args:
        name: Name of the field.
        value: Its value.
        holds: Whether the value is allowed.
        allowed: Allowed values, for the message.

    Raises:
        ModelError: If ``holds`` is false.
    """
    if not holds:
        raise ModelError(f"{name} must be {allowed}, got {value!r}")
