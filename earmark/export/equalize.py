"""Channels of a map brought to a like range before one scale has to serve them all in 8 bits.

Source: Nagel et al., arXiv:1906.04721, section 4.1 (cross-layer equalisation); where the next layer mixes
channels the range is shared with its weights as in Xiao et al., arXiv:2211.10438, equation 4.

Conventions: a channel is divided by a number in the layer that makes it, and multiplied by it in the layers
that take it. Between them lie operations that let a positive factor pass, so that answers stay as they are.
Folded batch norms leave ranges that differ a hundredfold, as in Cnn6_60k.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

Floats = NDArray[np.float32]
_PASSING = ("Relu", "AveragePool", "MaxPool")
_LEAST = 1e-3
"""Of the widest channel's range: narrower ones count as that, or their weights would lose all meaning."""
Ranges = Callable[[Sequence[str]], Mapping[str, Floats]]
"""From names of maps to the largest magnitude of each channel, (channel,)."""


@dataclass(frozen=True)
class _Stretch:
    """Convolutions whose sum reaches other convolutions, channel by channel."""

    makers: tuple[NodeProto, ...]
    takers: tuple[NodeProto, ...]


def equalize(model: ModelProto, ranges: Ranges) -> int:
    """Equalises the channels of a graph, in place.

    Args:
        model: Of float32.
        ranges: What the maps hold on clips.

    Returns:
        How many maps were equalised.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    stretches = list(_Graph(model, weights).stretches())
    found = ranges([node.output[0] for stretch in stretches for node in stretch.makers])
    for stretch in stretches:
        made = np.max([found[node.output[0]] for node in stretch.makers], 0)
        factor = np.maximum(made, _LEAST * made.max())
        mixing = [node for node in stretch.takers if _groups(node) == 1]
        if mixing:
            taken = np.max([np.abs(_values(weights, node)).max((0, 2, 3)) for node in mixing], 0)
            factor = np.sqrt(factor / np.maximum(taken, _LEAST * taken.max()))
        for node in stretch.makers:
            for name in node.input[1:]:
                _scale(weights[name], 1 / factor, 0)
        for node in stretch.takers:
            _scale(weights[node.input[1]], factor, 1 if _groups(node) == 1 else 0)
    return len(stretches)


class _Graph:
    """Who makes and who takes what."""

    def __init__(self, model: ModelProto, weights: Mapping[str, TensorProto]) -> None:
        self._weights = weights
        self._uses = Counter(name for node in model.graph.node for name in node.input)
        self._outputs = {value.name for value in model.graph.output}
        self._takers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._takers[name].append(node)
        self._makers = {node.output[0]: node for node in model.graph.node if self._is_own(node)}

    def stretches(self) -> Iterator[_Stretch]:
        """All that can be equalised; no convolution makes for two of them."""
        seen: set[str] = set()
        for name in self._makers:
            makers, end = self._sum_of(name)
            if seen & {node.output[0] for node in makers}:
                continue
            seen |= {node.output[0] for node in makers}
            while end not in self._outputs and self._only_taker(end) in _PASSING:
                end = self._takers[end][0].output[0]
            takers = tuple(self._takers[end])
            if takers and end not in self._outputs and all(map(self._is_own, takers)):
                yield _Stretch(makers, takers)

    def _sum_of(self, name: str) -> tuple[tuple[NodeProto, ...], str]:
        """The convolutions that are added to this one before anything else happens, and their sum's name."""
        if self._only_taker(name) == "Add":
            together = self._takers[name][0]
            if all(part in self._makers and self._only_taker(part) for part in together.input):
                return tuple(self._makers[part] for part in together.input), together.output[0]
        return (self._makers[name],), name

    def _only_taker(self, name: str) -> str:
        """What kind of node takes a map; "" if several do, or none."""
        return self._takers[name][0].op_type if len(self._takers[name]) == 1 else ""

    def _is_own(self, node: NodeProto) -> bool:
        """Whether it is a convolution of each channel or of all, whose weights no other layer has."""
        constants = node.input[1:]
        if node.op_type != "Conv" or any(
            name not in self._weights or self._uses[name] > 1 for name in constants
        ):
            return False
        return _groups(node) in (1, self._weights[node.input[1]].dims[0])


def _groups(node: NodeProto) -> int:
    return next((entry.i for entry in node.attribute if entry.name == "group"), 1)


def _values(weights: Mapping[str, TensorProto], node: NodeProto) -> Floats:
    return numpy_helper.to_array(weights[node.input[1]])


def _scale(tensor: TensorProto, factor: Floats, axis: int) -> None:
    values = numpy_helper.to_array(tensor)
    shape = [1] * values.ndim
    shape[axis] = -1
    scaled = (values * factor.reshape(shape)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
