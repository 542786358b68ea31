"""A model cut in two before its pooling over time: the body up to a feature map, and the head behind it.

Source: the messages of onnx.proto3 (https://github.com/onnx/onnx).

Conventions: the head is pooling over mel and time, and the classifier. It takes feature maps of any number of
frames, so that it scores parts of a window as well as the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from earmark.errors import ModelError
from earmark.model_file.graph_nodes import GraphNode, graph_nodes
from earmark.model_file.protobuf import encode, fields, find

_GRAPH, _FOR_HEAD = 7, {1, 8, 25}  # ModelProto: graph; ir_version, opset_import and functions
_INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 5, 11, 12, 13  # GraphProto
_NAME, _TENSOR_NAME = 1, 8  # ValueInfoProto and GraphProto; TensorProto
_TYPE, _TENSOR_TYPE, _SHAPE, _DIM, _DIM_PARAM = 2, 1, 2, 1, 2  # ValueInfoProto down to its shape
_CONVOLUTIONS = {"Conv", "ConvInteger", "QLinearConv"}
_POOLINGS = {"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"}
_LOGITS = "logits"


@dataclass(frozen=True)
class SplitGraph:
    """A model cut before its pooling.

    Args:
        body: The whole model, whose graph returns the last feature map as a further output.
        head: A model whose graph takes the feature map and returns "logits".
        feature_map: Name of the feature map in both.
        time_axis: The axis of the feature map that time runs along.
    """

    body: bytes
    head: bytes
    feature_map: str
    time_axis: int


def split_before_pooling(content: bytes) -> SplitGraph:
    """Cuts the graph of a model file before the pooling that its logits are computed from.

    Args:
        content: Content of a model file, from :func:`earmark.model_file.onnx_file.read_model_file`.

    Raises:
        ModelError: If the graph does not pool a feature map over time, or takes windows of one length only.
    """
    graph = find(content, _GRAPH)
    nodes = graph_nodes(graph)
    weights = _named(graph, _INITIALIZER, _TENSOR_NAME)
    feature_map = _first_pooled(nodes)
    declared = _named(graph, _VALUE_INFO, _NAME).get(feature_map, memoryview(b""))
    time_axis = _time_axis(declared)
    outputs = _named(graph, _OUTPUT, _NAME)
    body = bytes(graph) + encode(_OUTPUT, bytes(declared))
    head = _head(nodes, weights, feature_map, declared) + encode(_OUTPUT, bytes(outputs[_LOGITS]))
    kept = b"".join(field.encoded for field in fields(content) if field.number in _FOR_HEAD)
    others = b"".join(field.encoded for field in fields(content) if field.number != _GRAPH)
    return SplitGraph(encode(_GRAPH, body) + others, kept + encode(_GRAPH, head), feature_map, time_axis)


def _first_pooled(nodes: Sequence[GraphNode]) -> str:
    """The value that is pooled first on the way from the last convolutions to the logits."""
    producers = {name: number for number, node in enumerate(nodes) for name in node.outputs}
    behind: set[int] = set()
    ahead = [_LOGITS]
    while ahead:
        number = producers.get(ahead.pop(), -1)
        if number >= 0 and number not in behind and nodes[number].operator not in _CONVOLUTIONS:
            behind.add(number)
            ahead += nodes[number].inputs
    pooled = [nodes[number].inputs[0] for number in sorted(behind) if nodes[number].operator in _POOLINGS]
    if not pooled:
        raise ModelError("the network does not pool a feature map over time: use overlapping windows")
    return pooled[0]


def _head(
    nodes: Sequence[GraphNode], weights: Mapping[str, memoryview], feature_map: str, declared: memoryview
) -> bytes:
    """The graph from the feature map to the logits, without its output."""
    needed, kept = {_LOGITS}, []
    computed = {"", feature_map, *weights}
    for node in reversed(nodes):
        if needed.isdisjoint(node.outputs) or feature_map in node.outputs:
            continue
        needed.update(node.inputs)
        computed.update(node.outputs)
        kept.append(node.encoded)
    if needed - computed:  # the input of the model
        raise ModelError(f"the logits do not depend on {feature_map} alone: use overlapping windows")
    tensors = [encode(_INITIALIZER, bytes(weights[name])) for name in sorted(needed & set(weights))]
    return b"".join([*reversed(kept), encode(_NAME + 1, b"head"), *tensors, encode(_INPUT, bytes(declared))])


def _time_axis(feature_map: memoryview) -> int:
    """The axis of a feature map, besides that of the batch, whose length is open."""
    axes = [axis for axis, length in enumerate(_dimensions(feature_map)) if axis and length]
    if len(axes) != 1:
        raise ModelError("the model takes windows of one length only: export it again for any length")
    return axes[0]


def _dimensions(value: memoryview) -> list[str]:
    """The names or expressions of the lengths of a value; "" where they are fixed."""
    shape = find(find(find(value, _TYPE), _TENSOR_TYPE), _SHAPE)
    return [bytes(find(one.value, _DIM_PARAM)).decode() for one in fields(shape) if one.number == _DIM]


def _named(graph: memoryview, number: int, name: int) -> dict[str, memoryview]:
    """The entries of a field of a graph, by their names."""
    found = (field.value for field in fields(graph) if field.number == number)
    return {bytes(find(value, name)).decode(): value for value in found}
