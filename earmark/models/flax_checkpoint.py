"""Reads checkpoints that flax wrote, as audax publishes them.

Source: flax.serialization: the training state in MessagePack, arrays as extension type 1, each again the
MessagePack of shape, name of the type, and values in C order. flax itself, which needs JAX, is not used.

Conventions: a variable is named by its path, such as "params/encoder/conv_init/kernel". No code in a file is
run, and no size that a file states is believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError, extra, first_line

_ARRAYS = (1, 3)  # extension types: arrays, and scalars of NumPy
_TYPES = ("float32", "float64", "float16", "int32", "int64", "uint32", "uint8", "bool")
_FIRST_BYTES = (*range(0x81, 0x90), 0xDE, 0xDF)  # a map that is not empty
_COLLECTIONS = {"params": "params", "frozen_params": "params", "batch_stats": "batch_stats"}
"""Parts of the training state -> the collection that their variables belong to."""


def is_flax_checkpoint(path: str | PathLike[str]) -> bool:
    """Whether a file begins as MessagePack does; False if it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            start = stream.read(9)
    except OSError:
        return False
    # A safetensors file begins with the length of its header, in eight bytes whose last are zero.
    return len(start) == 9 and start[0] in _FIRST_BYTES and start[4:8] != bytes(4)


def read_flax_checkpoint(path: str | PathLike[str]) -> dict[str, NDArray[Any]]:
    """Reads the variables of a training state.

    Args:
        path: A file such as ``best_ckpt_0.3648``.

    Returns:
        Path -> array, of the collections "params" and "batch_stats"; parameters that training kept frozen are
        among "params".

    Raises:
        ModelError: If the file is damaged, or holds no parameters.
        MissingExtraError: If MessagePack is not installed.
    """
    with extra("reading a checkpoint of flax", "train"):
        import msgpack
    try:
        content = msgpack.unpackb(Path(path).read_bytes(), ext_hook=_extension, strict_map_key=False)
        variables = {
            f"{collection}/{name}": array
            for part, collection in _COLLECTIONS.items()
            for name, array in _flat(content.get(part) or {})
        }
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, AttributeError, RecursionError, msgpack.UnpackException) as error:
        raise ModelError(
            f"{path}: is not a valid checkpoint of flax ({first_line(error)}): download it again"
        ) from None
    if not any(name.startswith("params/") for name in variables):
        raise ModelError(f"{path}: has no params: expected the training state that flax saved")
    return variables


def _extension(code: int, data: bytes) -> NDArray[Any] | None:
    """An array, or None for what is no array."""
    import msgpack

    if code not in _ARRAYS:
        return None
    shape, kind, values = msgpack.unpackb(data)
    if kind not in _TYPES:
        raise ValueError(f"an array has type {kind!r}, expected one of {', '.join(_TYPES)}")
    array = np.frombuffer(values, np.dtype(kind).newbyteorder("<"))
    if array.size != math.prod(shape):
        raise ValueError(f"an array of shape {shape} has {array.size} values")
    return array.reshape(shape)


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of nested maps by their path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}/")
        elif isinstance(value, np.ndarray):
            yield f"{path}{name}", value
        else:
            raise ValueError(f"{path}{name} is not an array")
