"""Receptive field of a network's last feature map, from its traced operations.

Conventions: sizes and steps are (mel bands, frames). Operations that pool over the whole clip leave no
receptive field, so what depends on them is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from torch import Tensor

from earmark.evaluation.complexity.operations import Operation

_POOLINGS = {"avg_pool2d", "max_pool2d_with_indices"}
_OVER_THE_CLIP = {"mean", "sum", "amax", "amin", "max", "min", "_adaptive_avg_pool2d", "adaptive_max_pool2d"}


class _View(NamedTuple):
    """How much of the log-mel a value depends on, and the distance to its neighbour, along both axes."""

    size: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    transposed: bool = False  # whether frames come before mel bands


def receptive_field(operations: Sequence[Operation], log_mel: Tensor) -> tuple[int, int]:
    """Mel bands and frames that a value of the last feature map depends on.

    Args:
        operations: Of one forward pass, see :func:`~earmark.evaluation.complexity.operations.trace`.
        log_mel: The network's input.
    """
    views = {id(log_mel): _View()}
    largest = (1, 1)
    for operation in operations:
        inputs = [views[id(tensor)] for tensor in operation.inputs if id(tensor) in views]
        if not inputs or operation.operator in _OVER_THE_CLIP:
            continue
        view = _behind(operation, inputs)
        views |= dict.fromkeys(map(id, operation.outputs), view)
        mels, frames = reversed(view.size) if view.transposed else view.size
        largest = max(largest[0], mels), max(largest[1], frames)
    return largest


def _behind(operation: Operation, inputs: list[_View]) -> _View:
    """The view behind an operation: the widest of its inputs', wider by the operation's own kernel."""
    sizes, steps = largest_pair(view.size for view in inputs), largest_pair(view.step for view in inputs)
    view = _View(sizes, steps, inputs[0].transposed)
    if operation.operator == "convolution":
        weight, stride, dilation = (operation.arguments[index] for index in (1, 3, 5))
        return _widened(view, weight.shape[2:], stride, dilation)
    if operation.operator in _POOLINGS:
        _, kernel, *more = operation.arguments
        return _widened(view, kernel, more[0] if more and more[0] else kernel, (1, 1))
    if _transposes(operation):
        return _View(view.size[::-1], view.step[::-1], not view.transposed)
    return view


def largest_pair(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The largest first and the largest second number of some pairs."""
    first, second = map(max, zip(*pairs, strict=True))
    return first, second


def _widened(view: _View, kernel: Any, stride: Any, dilation: Any) -> _View:
    # a single number is meant for both axes
    pairs = [(*values, *values)[:2] for values in (kernel, stride, dilation)]
    (k0, k1), (s0, s1), (d0, d1) = pairs
    size = view.size[0] + (k0 - 1) * d0 * view.step[0], view.size[1] + (k1 - 1) * d1 * view.step[1]
    return view._replace(size=size, step=(view.step[0] * s0, view.step[1] * s1))


def _transposes(operation: Operation) -> bool:
    """Whether an operation exchanges mel bands and frames: an odd permutation of a map's axes."""
    rank = operation.inputs[0].ndim
    if operation.operator == "transpose":
        first, second = (axis % rank for axis in operation.arguments[1:3])
        return bool(first != second)
    if operation.operator == "permute":
        order = [axis % rank for axis in operation.arguments[1]]
        return bool(sum(first > second for first, second in combinations(order, 2)) % 2)
    return False
