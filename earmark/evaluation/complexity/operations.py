"""Traces the operations of PyTorch that a network causes.

Conventions: a network runs once in evaluation mode, without gradients; every operation is recorded, whatever
module or function it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from earmark.models.network import Network

PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm"})
"""Operators that multiply matrices; the factors are their last two tensors."""


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """A call of a module, and its input."""

    module: nn.Module
    input: Tensor


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation.

    Args:
        operator: Its name in ATen, such as "convolution".
        arguments: Its positional arguments.
        inputs: The tensors among its arguments.
        outputs: The tensors that it returned.
        calls: The calls of modules that it belongs to, the outermost first; only of the traced kinds.
    """

    operator: str
    arguments: tuple[Any, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    calls: tuple[ModuleCall, ...]

    @property
    def multiplies(self) -> bool:
        """Whether it is a convolution or a product of matrices."""
        return self.operator == "convolution" or self.operator in PRODUCTS

    def call_of(self, kind: type[nn.Module]) -> ModuleCall | None:
        """The call of a module of this kind that the operation belongs to."""
        return next((call for call in self.calls if isinstance(call.module, kind)), None)


@torch.no_grad()
def trace(network: Network, log_mel: Tensor, kinds: tuple[type[nn.Module], ...]) -> list[Operation]:
    """Runs a network and records its operations.

    Args:
        network: Its mode (training or evaluation) is restored.
        log_mel: Shape (batch, mel, frame), on the network's device; on the meta device nothing is computed.
        kinds: Kinds of modules whose calls are recorded with their operations.

    Returns:
        The operations in their order. Their tensors are kept alive, so that no memory is reused.
    """
    recorder, was_training = _Recorder(), network.training
    network.eval()
    try:
        with recorder.calls_of(network, kinds), recorder:
            network(log_mel)
    finally:
        network.train(was_training)
    return recorder.operations


def storage_of(tensor: Tensor) -> int:
    """An identifier of a tensor's memory, which it shares with its views."""
    number: int = tensor.untyped_storage()._cdata
    return number


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.calls: list[ModuleCall] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        name = func.overloadpacket.__name__
        self.operations.append(Operation(name, args, inputs, outputs, tuple(self.calls)))
        return result

    @contextmanager
    def calls_of(self, network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[None]:
        """Keeps, within the context, the stack of calls of such modules."""

        def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.calls.append(ModuleCall(module, inputs[0]))

        def leave(module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
            self.calls.pop()

        with ExitStack() as hooks:
            for module in network.modules():
                if isinstance(module, kinds):
                    hooks.callback(module.register_forward_pre_hook(enter).remove)
                    hooks.callback(module.register_forward_hook(leave).remove)
            yield


def _tensors(values: Any) -> tuple[Tensor, ...]:
    """All tensors in nested arguments or results."""
    return tuple(leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
