"""What the graph of a model file declares, held against the model info before an engine loads it.

Source: the messages of onnx.proto3 (https://github.com/onnx/onnx).

Conventions: the graph has one input, a log-mel (batch, mel, frame) or a waveform (batch, time), and at least
the outputs "logits" (batch, class) and "embedding" (batch, channel), all float32. All of its weights lie in
the file: tensors may name other files, which engines would look for from the current folder.
"""

from __future__ import annotations

from typing import NamedTuple

from earmark.errors import ModelError
from earmark.model_file.info import ModelInfo
from earmark.model_file.protobuf import fields, find

_GRAPH, _INITIALIZER, _INPUT, _OUTPUT = 7, 5, 11, 12  # ModelProto.graph; of GraphProto
_NAME, _TENSOR_NAME, _TYPE = 1, 8, 2  # of ValueInfoProto and TensorProto
_TENSOR_TYPE, _ELEMENT, _SHAPE, _DIM, _DIM_VALUE = 1, 1, 2, 1, 1  # of TypeProto and TensorShapeProto
_FLOAT = 1
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto
_INSIDE: dict[str, dict[int, str]] = {
    "model": {_GRAPH: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", _INITIALIZER: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
}
"""Message -> its fields that hold tensors, at any depth."""
_LOCATION = b"location"  # the key of each external tensor: without it there is none to look for
_ORT_FORMAT = b"ORTM"  # at byte 4 of ONNX Runtime's own format, which engines would take instead


class _Value(NamedTuple):
    """An input or output: its name, element type, and shape with 0 for open lengths."""

    name: str
    element: int
    shape: tuple[int, ...]

    def __str__(self) -> str:
        shape = ", ".join(str(length or "any") for length in self.shape)
        return f"{self.name} ({shape})" + ("" if self.element == _FLOAT else " of another type than float32")


def check_graph(content: bytes, info: ModelInfo) -> None:
    """Checks that a graph is complete and is the one that the model info describes.

    Args:
        content: A serialised ModelProto.
        info: The model info that it has.

    Raises:
        ModelError: If the graph is malformed, keeps weights in other files, or has an input or output that
            the model info does not describe.
    """
    graphs = [field.value for field in fields(content) if field.number == _GRAPH]
    if len(graphs) != 1 or content[4:8] == _ORT_FORMAT:
        raise ModelError(f"must have one graph, got {len(graphs)}: export the model again")
    if _LOCATION in content:
        _require_no_other_files(content)
    parts: dict[int, list[memoryview]] = {_INITIALIZER: [], _INPUT: [], _OUTPUT: []}
    for field in fields(graphs[0]):
        if field.number in parts:
            parts[field.number].append(field.value)
    weights = {bytes(find(tensor, _TENSOR_NAME)) for tensor in parts[_INITIALIZER]}
    inputs = [value for value in map(_value, parts[_INPUT]) if value.name.encode() not in weights]
    wanted = _wanted_input(info)
    if len(inputs) != 1 or not _fits(inputs[0], wanted):
        raise _differs("takes", inputs, [wanted])
    outputs = {value.name: value for value in map(_value, parts[_OUTPUT])}
    promised = [
        _Value("logits", _FLOAT, (0, len(info.labels))),
        _Value("embedding", _FLOAT, (0, info.embedding_size)),
    ]
    if not all(one.name in outputs and _fits(outputs[one.name], one) for one in promised):
        raise _differs("returns", [*outputs.values()], promised)


def _wanted_input(info: ModelInfo) -> _Value:
    samples = info.num_samples(info.window_s)
    if info.graph_input == "waveform":
        return _Value("waveform", _FLOAT, (0, samples))
    long_enough = samples >= info.front_end.min_samples
    frames = info.front_end.num_frames(samples) if long_enough else 0
    return _Value(info.graph_input, _FLOAT, (0, info.front_end.n_mels, frames))


def _fits(value: _Value, wanted: _Value) -> bool:
    """Whether two are the same, as far as the graph's lengths are not open."""
    pairs = zip(value.shape, wanted.shape, strict=False)
    return (
        value[:2] == wanted[:2]
        and len(value.shape) == len(wanted.shape)
        and all(length in (0, other) or other == 0 for length, other in pairs)
    )


def _differs(verb: str, got: list[_Value], wanted: list[_Value]) -> ModelError:
    listed = [" and ".join(map(str, values[:4])) or "nothing" for values in (got, wanted)]
    return ModelError(
        f"the graph {verb} {listed[0]}, the model info describes {listed[1]}: export the model again"
    )


def _value(message: memoryview) -> _Value:
    tensor = find(find(message, _TYPE), _TENSOR_TYPE)
    element = next((field.integer for field in fields(tensor) if field.number == _ELEMENT), 0)
    dims = [field.value for field in fields(find(tensor, _SHAPE)) if field.number == _DIM]
    shape = (next((one.integer for one in fields(dim) if one.number == _DIM_VALUE), 0) for dim in dims)
    return _Value(bytes(find(message, _NAME)).decode("utf-8", "replace"), element, tuple(shape))


def _require_no_other_files(content: bytes) -> None:
    ahead = [("model", memoryview(content))]
    while ahead:
        kind, message = ahead.pop()
        inside = _INSIDE.get(kind, {})
        for field in fields(message):
            if field.number in inside:
                ahead.append((inside[field.number], field.value))
            elif kind == "tensor" and (
                field.number == _EXTERNAL_DATA or (field.number == _DATA_LOCATION and field.integer)
            ):
                name = bytes(find(message, _TENSOR_NAME)).decode("utf-8", "replace")
                raise ModelError(
                    f"the graph keeps {name!r} in another file: export the model with all weights inside"
                )
