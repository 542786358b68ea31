"""Checkpoints: the weights of a network and its model info in one safetensors file.

Source: https://github.com/huggingface/safetensors (the format).

Conventions: tensors have the names of the state dict and the precision of the model info. The metadata of the
file has the model info as JSON under "earmark.record", and a SHA-256 over that JSON and all tensors under
"earmark.sha256". Equal weights make equal files. Checkpoints are read in PyTorch
(:mod:`earmark.models.checkpoint`); written they are here, without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

INFO_KEY = "earmark.record"
HASH_KEY = "earmark.sha256"


class TensorBytes(NamedTuple):
    """A tensor as it is stored.

    Attributes:
        kind: Type of the values in safetensors: "F32", "F16", "BF16", "I64" ...
        shape: Length of each axis.
        content: The values, contiguous and little-endian.
    """

    kind: str
    shape: tuple[int, ...]
    content: bytes


def checkpoint_content(tensors: Mapping[str, TensorBytes], info: str) -> bytes:
    """Makes the content of a checkpoint.

    Args:
        tensors: The state dict.
        info: The model info as JSON.

    Returns:
        The content of the file.
    """
    contents = {name: tensor.content for name, tensor in tensors.items()}
    metadata = {INFO_KEY: info, HASH_KEY: checkpoint_hash(info, contents)}
    header: dict[str, object] = {"__metadata__": metadata}
    position = 0
    # Wide types first, as safetensors orders them, so that all values are aligned.
    order = sorted(tensors, key=lambda name: (-_item_size(tensors[name].kind), name))
    for name in order:
        kind, shape, content = tensors[name]
        header[name] = {"data_offsets": [position, position + len(content)], "dtype": kind, "shape": shape}
        position += len(content)
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return b"".join([len(encoded).to_bytes(8, "little"), encoded, *(tensors[name].content for name in order)])


def checkpoint_hash(info: str, contents: Mapping[str, bytes]) -> str:
    """Computes the hash over model info and tensors.

    Args:
        info: The model info as JSON.
        contents: Name -> content of the tensor.
    """
    digest = hashlib.sha256(info.encode())
    for name in sorted(contents):
        digest.update(name.encode())
        digest.update(contents[name])
    return digest.hexdigest()


def _item_size(kind: str) -> int:
    """Bytes of a value: F32 has 32 bits."""
    return int("".join(filter(str.isdigit, kind)) or 8) // 8
