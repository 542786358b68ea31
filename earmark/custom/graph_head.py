"""The classifier at the end of a model file's graph: finds its input, and puts another one there.

Source: the messages of onnx.proto3 (https://github.com/onnx/onnx).

Conventions: the features of a classifier are the vector that the last layer of the base model takes, (batch,
feature), where that layer is fully connected; otherwise the embedding. A new classifier is a chain of fully
connected layers with ReLUs between them; what only the old one needed is left out, unless its logits are
kept before the new ones. Neither PyTorch nor onnx is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.model_file.graph_nodes import NODE, GraphNode, graph_nodes
from earmark.model_file.protobuf import encode, encode_integer, fields, find

Floats = NDArray[np.float32]
Layer = tuple[Floats, Floats]
"""Weights (input, output) and biases (output,) of a fully connected layer."""

_GRAPH, _METADATA = 7, 14  # of ModelProto
_INITIALIZER, _OUTPUT, _VALUE_INFO = 5, 12, 13  # of GraphProto
_IN, _OUT, _OP, _ATTRIBUTE = 1, 2, 4, 5  # of NodeProto
_NAME, _TYPE = 1, 2  # of ValueInfoProto
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9  # of TensorProto
_FLOAT, _INT64 = 1, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TYPE, _INTEGER = 1, 3, 20, 2  # of AttributeProto
_LOGITS, _EMBEDDING = "logits", "embedding"
_PREFIX = "own_classifier"


def feature_name(content: bytes) -> str:
    """Returns the name of the features in a graph.

    Args:
        content: A model file, or a serialised ModelProto.

    Raises:
        ModelError: If the graph has no logits.
    """
    nodes = graph_nodes(find(content, _GRAPH))
    made_by = {name: node for node in nodes for name in node.outputs}
    if _LOGITS not in made_by:
        raise ModelError("the graph of the base model has no output logits: export it again")
    last = made_by[_LOGITS]
    if last.operator == "Concat":  # own logits behind those of a base model
        last = next((node for node in nodes if node.inputs[1:2] == (f"{_PREFIX}_1.0.weight",)), last)
    source = made_by.get(last.inputs[0]) if last.operator == "Gemm" else None
    # The input of a quantised or transposed layer is no vector of features.
    plain = source is not None and source.operator not in ("DequantizeLinear", "Transpose")
    return last.inputs[0] if plain else _EMBEDDING


def with_feature_output(content: bytes, name: str) -> bytes:
    """Returns the graph with the features among its outputs.

    Args:
        content: A model file, or a serialised ModelProto.
        name: From :func:`feature_name`.

    Returns:
        A serialised ModelProto without metadata.
    """
    inside = [bytes(field.encoded) for field in fields(find(content, _GRAPH))]
    if name != _EMBEDDING:
        tensor_type = encode(1, encode_integer(1, _FLOAT))
        inside.append(encode(_OUTPUT, encode(_NAME, name.encode()) + encode(_TYPE, tensor_type)))
    return _model(content, b"".join(inside))


def with_classifier(
    content: bytes, name: str, layers: Sequence[Layer], kept_classes: Sequence[int] = ()
) -> bytes:
    """Returns the graph with another classifier.

    Args:
        content: A model file, or a serialised ModelProto.
        name: Name of the features, from :func:`feature_name`.
        layers: Layers of the classifier, at least one; the last one's outputs are the logits.
        kept_classes: Classes of the old classifier whose logits come before those of the new one.

    Returns:
        A serialised ModelProto without metadata, with the outputs "logits" and "embedding".
    """
    graph = list(fields(find(content, _GRAPH)))
    nodes = graph_nodes(find(content, _GRAPH))
    prefix = _new_prefix(nodes)
    base_logits = f"{prefix}.base_logits"
    if kept_classes:
        kept = _needed(
            [node.renamed(_LOGITS, base_logits) for node in nodes], {name, _EMBEDDING, base_logits}
        )
    else:
        kept = _needed([node for node in nodes if _LOGITS not in node.outputs], {name, _EMBEDDING})
    used = {one for node in kept for one in node.inputs}
    all_used = any(node.has_subgraph for node in kept)
    inside: list[bytes] = [node.encoded for node in kept] + _classifier(name, layers, kept_classes, prefix)
    for field in graph:
        if field.number == NODE or field.number == _VALUE_INFO:
            continue
        if field.number == _INITIALIZER and not all_used:
            tensor = bytes(find(field.value, _TENSOR_NAME)).decode()
            if tensor not in used:
                continue
        if field.number == _OUTPUT:
            label = bytes(find(field.value, _NAME)).decode()
            if label not in (_LOGITS, _EMBEDDING):
                continue
            if label == _LOGITS:
                inside.append(_logits_output(len(kept_classes) + len(layers[-1][1])))
                continue
        inside.append(bytes(field.encoded))
    return _model(content, b"".join(inside))


def apply(layers: Sequence[Layer], features: Floats) -> Floats:
    """Computes the logits of features, (..., feature) -> (..., class), as the graph does."""
    values = features
    for number, (weights, biases) in enumerate(layers):
        values = np.maximum(values, 0) if number else values
        values = np.asarray(values @ weights + biases, np.float32)
    return values


def _needed(nodes: Sequence[GraphNode], wanted: set[str]) -> list[GraphNode]:
    """The nodes that the wanted values depend on, in order."""
    if any(node.has_subgraph for node in nodes):  # what a subgraph uses is not among its node's inputs
        return list(nodes)
    kept, wanted = [], set(wanted)
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]


def _new_prefix(nodes: Sequence[GraphNode]) -> str:
    """The start of names that no node uses: the classifiers of earlier fits may stay."""
    used = {name.partition(".")[0] for node in nodes for name in (*node.inputs, *node.outputs)}
    number = 1
    while f"{_PREFIX}_{number}" in used:
        number += 1
    return f"{_PREFIX}_{number}"


def _classifier(name: str, layers: Sequence[Layer], kept_classes: Sequence[int], prefix: str) -> list[bytes]:
    """Nodes and initializers of a classifier."""
    made: list[bytes] = []
    at = name
    for number, (weights, biases) in enumerate(layers):
        own = f"{prefix}.{number}"
        if number:
            made.append(_node("Relu", (at,), f"{own}.relu"))
            at = f"{own}.relu"
        out = _LOGITS if number == len(layers) - 1 and not kept_classes else f"{own}.out"
        made.append(_node("Gemm", (at, f"{own}.weight", f"{own}.bias"), out))
        made += [_initializer(f"{own}.weight", weights), _initializer(f"{own}.bias", biases)]
        at = out
    if kept_classes:
        chosen = f"{prefix}.kept_classes"
        made.append(_initializer(chosen, np.array(kept_classes, np.int64)))
        made.append(_node("Gather", (f"{prefix}.base_logits", chosen), f"{prefix}.kept", axis=1))
        made.append(_node("Concat", (f"{prefix}.kept", at), _LOGITS, axis=1))
    return made


def _node(operator: str, inputs: Sequence[str], output: str, axis: int | None = None) -> bytes:
    body = b"".join(encode(_IN, name.encode()) for name in inputs)
    body += encode(_OUT, output.encode()) + encode(_OP, operator.encode())
    if axis is not None:
        value = encode(_ATTRIBUTE_NAME, b"axis") + encode_integer(_ATTRIBUTE_INTEGER, axis)
        body += encode(_ATTRIBUTE, value + encode_integer(_ATTRIBUTE_TYPE, _INTEGER))
    return encode(NODE, body)


def _initializer(name: str, values: Floats | NDArray[np.int64]) -> bytes:
    dims = b"".join(encode_integer(_DIMS, length) for length in values.shape)
    kind, form = (_INT64, "<i8") if values.dtype.kind == "i" else (_FLOAT, "<f4")
    raw = np.ascontiguousarray(values, form).tobytes()
    head = dims + encode_integer(_DATA_TYPE, kind) + encode(_TENSOR_NAME, name.encode())
    return encode(_INITIALIZER, head + encode(_RAW, raw))


def _logits_output(classes: int) -> bytes:
    dims = encode(1, encode(2, b"batch")) + encode(1, encode_integer(1, classes))
    tensor_type = encode(1, encode_integer(1, _FLOAT) + encode(2, dims))
    return encode(_OUTPUT, encode(_NAME, _LOGITS.encode()) + encode(_TYPE, tensor_type))


def _model(content: bytes, graph: bytes) -> bytes:
    """The same model with another graph, without metadata."""
    others = [bytes(one.encoded) for one in fields(content) if one.number not in (_GRAPH, _METADATA)]
    return b"".join(others) + encode(_GRAPH, graph)
