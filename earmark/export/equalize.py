"""Equalises the ranges of a feature map's channels, which share one scale in 8 bits.

Source: Nagel et al., arXiv:1906.04721, section 4.1 (cross-layer equalisation); where the next layer mixes
channels, ranges are balanced with its weights as in Xiao et al., arXiv:2211.10438, equation 4.

Conventions: a channel is divided by a factor in the layers that produce it and multiplied by it in the layers
that consume it. The operations in between commute with positive factors, so that outputs do not change.
Folded batch norms leave ranges that differ by a factor of a hundred, as in Cnn6_60k.
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
"""Smallest range relative to the widest channel: narrower ones would get weights without precision."""
Ranges = Callable[[Sequence[str]], Mapping[str, Floats]]
"""Names of feature maps -> largest magnitude of each channel, (channel,)."""


@dataclass(frozen=True)
class _Stretch:
    """Convolutions whose sum is the input of other convolutions, channel by channel."""

    producers: tuple[NodeProto, ...]
    consumers: tuple[NodeProto, ...]


def equalize(model: ModelProto, ranges: Ranges) -> int:
    """Equalises the channels of a graph, in place.

    Args:
        model: In float32.
        ranges: Measures the ranges of feature maps on clips.

    Returns:
        Number of feature maps that were equalised.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    stretches = list(_Graph(model, weights).stretches())
    found = ranges([node.output[0] for stretch in stretches for node in stretch.producers])
    for stretch in stretches:
        made = np.max([found[node.output[0]] for node in stretch.producers], 0)
        factor = np.maximum(made, _LEAST * made.max())
        mixing = [node for node in stretch.consumers if _groups(node) == 1]
        if mixing:
            taken = np.max([np.abs(_values(weights, node)).max((0, 2, 3)) for node in mixing], 0)
            factor = np.sqrt(factor / np.maximum(taken, _LEAST * taken.max()))
        for node in stretch.producers:
            for name in node.input[1:]:
                _scale(weights[name], 1 / factor, 0)
        for node in stretch.consumers:
            _scale(weights[node.input[1]], factor, 1 if _groups(node) == 1 else 0)
    return len(stretches)


class _Graph:
    """Producers and consumers of feature maps."""

    def __init__(self, model: ModelProto, weights: Mapping[str, TensorProto]) -> None:
        self._weights = weights
        self._uses = Counter(name for node in model.graph.node for name in node.input)
        self._outputs = {value.name for value in model.graph.output}
        self._consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._consumers[name].append(node)
        self._producers = {node.output[0]: node for node in model.graph.node if self._is_own(node)}

    def stretches(self) -> Iterator[_Stretch]:
        """All stretches that can be equalised; no convolution is a producer of two."""
        seen: set[str] = set()
        for name in self._producers:
            producers, end = self._sum_of(name)
            if seen & {node.output[0] for node in producers}:
                continue
            seen |= {node.output[0] for node in producers}
            while end not in self._outputs and self._only_consumer(end) in _PASSING:
                end = self._consumers[end][0].output[0]
            consumers = tuple(self._consumers[end])
            if consumers and end not in self._outputs and all(map(self._is_own, consumers)):
                yield _Stretch(producers, consumers)

    def _sum_of(self, name: str) -> tuple[tuple[NodeProto, ...], str]:
        """The convolutions that are added to this one directly, and the name of the sum."""
        if self._only_consumer(name) == "Add":
            together = self._consumers[name][0]
            if all(part in self._producers and self._only_consumer(part) for part in together.input):
                return tuple(self._producers[part] for part in together.input), together.output[0]
        return (self._producers[name],), name

    def _only_consumer(self, name: str) -> str:
        """Operator of the only consumer of a map; "" if there are several, or none."""
        return self._consumers[name][0].op_type if len(self._consumers[name]) == 1 else ""

    def _is_own(self, node: NodeProto) -> bool:
        """Whether a node is a depthwise or full convolution whose weights no other layer shares."""
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
