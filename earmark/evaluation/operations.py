"""What a network does, operation by operation of PyTorch.

Conventions: a network runs once in evaluation mode, without gradients, and every operation that it causes is
noted down, whatever module or function it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from earmark.models.network import Network

PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm"})
"""Operators that multiply matrices; the factors are their last two tensors."""


@dataclass(frozen=True, eq=False)
class Call:
    """A module at work, and what it was given."""

    module: nn.Module
    given: Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """One operation.

    Args:
        operator: Its name in ATen, such as "convolution".
        arguments: What it was called with, by position.
        inputs: The tensors among its arguments.
        outputs: The tensors that came out.
        around: The calls of modules that it belongs to, the outermost first; only kinds that were asked for.
    """

    operator: str
    arguments: tuple[Any, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    around: tuple[Call, ...]

    @property
    def multiplies(self) -> bool:
        """Whether it is a convolution or a product of matrices."""
        return self.operator == "convolution" or self.operator in PRODUCTS

    def within(self, kind: type[nn.Module]) -> Call | None:
        """The call of such a module that it belongs to."""
        return next((call for call in self.around if isinstance(call.module, kind)), None)


@torch.no_grad()
def follow(network: Network, log_mel: Tensor, kinds: tuple[type[nn.Module], ...]) -> list[Step]:
    """Runs a network and notes down what it does.

    Args:
        network: Its mode is left as it is found.
        log_mel: Shape (batch, mel, frame), on the network's device; on the meta device nothing is computed.
        kinds: Modules whose calls are noted with their operations.

    Returns:
        The operations in their order. Their tensors are kept, so that none takes the place of another.
    """
    notebook, was_training = _Notebook(), network.training
    network.eval()
    try:
        with notebook.watching(network, kinds), notebook:
            network(log_mel)
    finally:
        network.train(was_training)
    return notebook.steps


def storage_of(tensor: Tensor) -> int:
    """A number for the memory of a tensor, which it shares with its views."""
    number: int = tensor.untyped_storage()._cdata
    return number


class _Notebook(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.around: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = tuple(_tensors((args, kwargs))), tuple(_tensors(result))
        self.steps.append(Step(func.overloadpacket.__name__, args, inputs, outputs, tuple(self.around)))
        return result

    @contextmanager
    def watching(self, network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[None]:
        """Knows, within the context, which modules are at work."""

        def enter(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            self.around.append(Call(module, given[0]))

        def leave(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            self.around.pop()

        with ExitStack() as hooks:
            for module in network.modules():
                if isinstance(module, kinds):
                    hooks.callback(module.register_forward_pre_hook(enter).remove)
                    hooks.callback(module.register_forward_hook(leave).remove)
            yield


def _tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments or results."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
