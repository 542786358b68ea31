"""Model files: ONNX graphs that carry their model info and a SHA-256 over both.

Conventions: the file is a plain ONNX model. Its last two fields are metadata entries, first
``earmark.record`` (the model info as JSON), then ``earmark.sha256``, the hexadecimal hash of every byte
before that entry. The few protobuf fields involved are read and written by
:mod:`earmark.model_file.protobuf`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.model_file.graph import check_graph
from earmark.model_file.info import ModelInfo, Precision
from earmark.model_file.protobuf import encode, fields, find

INFO_KEY = b"earmark.record"
HASH_KEY = b"earmark.sha256"
_METADATA_FIELD = 14  # ModelProto.metadata_props: StringStringEntryProto(key = 1, value = 2)
_GRAPH_FIELD, _INITIALIZER_FIELD = 7, 5  # ModelProto.graph, GraphProto.initializer
_TENSOR_NAME, _TENSOR_RAW = 8, 9  # of TensorProto
_HASH_ENTRY_LENGTH = 84  # tag and length (2), key with its own (2 + 14), value with its own (2 + 64)


def attach_info(graph: bytes, info: ModelInfo) -> bytes:
    """Makes a model file of a serialised ONNX graph by appending the model info and the hash.

    Args:
        graph: A serialised ModelProto without these two metadata entries.
        info: The model info.

    Returns:
        The content of the model file.
    """
    body = graph + _metadata_entry(INFO_KEY, info.to_json().encode())
    return body + _metadata_entry(HASH_KEY, hashlib.sha256(body).hexdigest().encode())


def replace_info(content: bytes, info: ModelInfo) -> bytes:
    """Replaces the model info of a model file; the graph stays the same.

    Args:
        content: The content of a model file, from :func:`read_model_file`.
        info: The new model info.

    Returns:
        The content of the new model file.
    """
    body = content[:-_HASH_ENTRY_LENGTH]
    return attach_info(body.removesuffix(_metadata_entry(INFO_KEY, _info_entry(body))), info)


def read_model_file(path: str | PathLike[str]) -> tuple[bytes, ModelInfo]:
    """Reads a model file and verifies its hash.

    Returns:
        The content, which inference engines load as it is, and the model info.

    Raises:
        ModelError: If the file is missing, damaged, not a model file of earmark, or of a newer version; or if
            its graph keeps weights in other files, or is not the one that the model info describes.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the model file cannot be read ({error.strerror})") from None
    body, stored = content[:-_HASH_ENTRY_LENGTH], content[-_HASH_ENTRY_LENGTH:]
    digest = hashlib.sha256(body).hexdigest().encode()
    if not stored.startswith(_metadata_entry(HASH_KEY, b"0" * 64)[:-64]):
        raise ModelError(
            f"{path}: not a complete model file of earmark (no hash at the end): download or export it again"
        )
    if stored[-64:] != digest:
        raise ModelError(
            f"{path}: the model file is damaged (its SHA-256 does not match): download or export it again"
        )
    try:
        info = ModelInfo.from_json(_info_entry(body))
        check_graph(content, info)
        return content, info
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def read_info(path: str | PathLike[str]) -> ModelInfo:
    """Reads the model info of a model file; verifies the file as :func:`read_model_file` does."""
    return read_model_file(path)[1]


def read_weights(
    content: bytes, prefix: str, precision: Precision = "fp32"
) -> dict[str, NDArray[np.float32]]:
    """Reads the floating-point weights of a graph whose names start with a prefix.

    Args:
        content: The content of a model file, from :func:`read_model_file`.
        prefix: Start of the names.
        precision: The ``precision`` of the model info. Data types are not checked: check the number of
            values.

    Returns:
        Name -> values, float32, shape (value,).
    """
    found = {}
    for tensor in _initializers(content):
        name, raw = bytes(find(tensor, _TENSOR_NAME)).decode(), find(tensor, _TENSOR_RAW)
        if name.startswith(prefix) and raw:
            found[name] = _widened(raw, precision)
    return found


def weight_bytes(content: bytes) -> int:
    """Size in bytes of all constants of a graph: weights, and the scales of int8 weights.

    Args:
        content: The content of a model file, from :func:`read_model_file`.
    """
    return sum(len(find(tensor, _TENSOR_RAW)) for tensor in _initializers(content))


def _initializers(content: bytes) -> Iterator[memoryview]:
    graph = find(content, _GRAPH_FIELD)
    return (field.value for field in fields(graph) if field.number == _INITIALIZER_FIELD)


def _widened(raw: memoryview, precision: Precision) -> NDArray[np.float32]:
    kind = {"fp16": "<f2", "bf16": "<u2"}.get(precision, "<f4")
    values = np.frombuffer(raw, kind, len(raw) // np.dtype(kind).itemsize)
    if precision == "bf16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _info_entry(body: bytes) -> bytes:
    for field in fields(body):
        if field.number == _METADATA_FIELD and bytes(find(field.value, 1)) == INFO_KEY:
            return bytes(find(field.value, 2))
    raise ModelError("the model file has no model info: export it again")


def _metadata_entry(key: bytes, value: bytes) -> bytes:
    return encode(_METADATA_FIELD, encode(1, key) + encode(2, value))
