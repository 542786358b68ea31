"""Reads the state dict of a published PyTorch checkpoint into NumPy; code in it is never run.

Source: the formats of ``torch.save``: a zip archive of a pickle and the storages, stored without compression;
before PyTorch 1.6, and for torchvision's files still, pickles and storages one after the other.

Conventions: values lie in the file as they do in memory, little-endian. Every size that the file states is
checked against the file before anything of that size is read.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.hub.tensor_pickle import ITEM_SIZE, MAX_PICKLE, Storage, StoredTensor, read_pickle
from earmark.model_file.state_dict import find_state_dict

_ZIP_START, _PICKLE_START = b"PK\x03\x04", b"\x80"
_ENCRYPTED = 1  # bit of an entry's flags
_ENTRY_HEADER = 30  # least bytes before the content of an entry
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before PyTorch 1.6
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What zipfile raises for damaged archives."""


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Reads the state dict of an untrusted file.

    Args:
        path: A checkpoint: a state dict, alone or as ``state_dict``, ``net`` or ``model``.

    Returns:
        Tensors by name, contiguous.

    Raises:
        ModelError: If the file cannot be read, is damaged, has anything but tensors and plain values, or no
            state dict.
    """
    try:
        with Path(path).open("rb") as stream:
            start = stream.read(64)
            stream.seek(0)
            if start.startswith(_ZIP_START):
                return _read_zip(stream)
            if start.startswith(_PICKLE_START):
                return _read_pickles(stream)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    shown = ascii(start[:16].decode("latin-1"))
    raise ModelError(f"{path}: is not a PyTorch checkpoint, it begins with {shown}: download it again")


def _read_zip(stream: BinaryIO) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(stream) as archive:
            entries = _entries(archive, os.fstat(stream.fileno()).st_size)
            if entries.get("data.pkl") is None or entries["data.pkl"].file_size > MAX_PICKLE:
                raise ModelError(
                    f"is not a valid PyTorch checkpoint (no data.pkl of at most {MAX_PICKLE} bytes)"
                )
            if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
                raise ModelError("its values are not little-endian: refused")
            content, storages = read_pickle(io.BytesIO(archive.read(entries["data.pkl"])))
            for storage in storages.values():
                _check_size(storage, getattr(entries.get(f"data/{storage.key}"), "file_size", None))
            tensors = find_state_dict(content, StoredTensor)
            values = {
                key: np.frombuffer(archive.read(entries[f"data/{key}"]), _dtype(storages[key]))
                for key in {tensor.storage.key for tensor in tensors.values()}
            }
    except _ARCHIVE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"is not a valid PyTorch checkpoint (the archive is damaged: {reason}): download it again"
        ) from None
    return _arrays(tensors, values)


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries of an archive by their path within its folder; they may be stored only, and not overlap."""
    entries: dict[str, zipfile.ZipInfo] = {}
    end = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise ModelError("is not a valid PyTorch checkpoint (it is compressed or encrypted): refused")
        if entry.header_offset < end or entry.file_size != entry.compress_size:
            raise ModelError("is not a valid PyTorch checkpoint (entries of the archive overlap): refused")
        end = entry.header_offset + _ENTRY_HEADER + entry.file_size
        name = entry.filename.partition("/")[2]
        if name in entries:
            raise ModelError("is not a valid PyTorch checkpoint (the archive has an entry twice): refused")
        entries[name] = entry
    if end > size:
        raise ModelError("is not a valid PyTorch checkpoint (the archive is cut off): download it again")
    return entries


def _read_pickles(stream: BinaryIO) -> dict[str, NDArray[Any]]:
    """The format before PyTorch 1.6: five pickles, then each storage with its number of values."""
    head = io.BytesIO(stream.read(MAX_PICKLE))
    for expected in (_MAGIC, _PROTOCOL):
        if read_pickle(head)[0] != expected:
            raise ModelError("is not a valid PyTorch checkpoint: download it again")
    system, _ = read_pickle(head)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ModelError("its values are not little-endian: refused")
    content, storages = read_pickle(head)
    keys, _ = read_pickle(head)
    if not isinstance(keys, list) or {type(key) for key in keys} - {str} or sorted(keys) != sorted(storages):
        raise ModelError("is not a valid PyTorch checkpoint (storages are missing): download it again")
    tensors = find_state_dict(content, StoredTensor)
    wanted = {tensor.storage.key for tensor in tensors.values()}
    stream.seek(head.tell())
    left = os.fstat(stream.fileno()).st_size - head.tell()
    values = {}
    for key in keys:
        storage = storages[key]
        length = storage.numel * ITEM_SIZE[storage.kind]
        left -= 8 + length
        if left < 0:
            raise ModelError("is not a valid PyTorch checkpoint (it is cut off): download it again")
        _check_size(storage, int.from_bytes(stream.read(8), "little") * ITEM_SIZE[storage.kind])
        if key in wanted:
            values[key] = np.frombuffer(stream.read(length), _dtype(storage))
        else:
            stream.seek(length, os.SEEK_CUR)
    return _arrays(tensors, values)


def _check_size(storage: Storage, size: int | None) -> None:
    wanted = storage.numel * ITEM_SIZE[storage.kind]
    if size != wanted:
        key, got = ascii(storage.key[:40]), "none" if size is None else size
        raise ModelError(
            f"is not a valid PyTorch checkpoint (storage {key} must have {wanted} bytes, got {got}): "
            "download it again"
        )


def _dtype(storage: Storage) -> np.dtype[Any]:
    if storage.kind == "bfloat16":
        raise ModelError("has tensors of type bfloat16: published weights are float32")
    return np.dtype(storage.kind).newbyteorder("<")


def _arrays(
    tensors: Mapping[str, StoredTensor], values: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Copies the values of each tensor out of its storage."""
    arrays = {}
    for name, tensor in tensors.items():
        flat = values[tensor.storage.key]
        strides = [stride * flat.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(
            flat[tensor.offset :] if 0 not in tensor.shape else flat[:0],
            tensor.shape,
            strides,
            writeable=False,
        )
        arrays[name] = np.ascontiguousarray(view).reshape(tensor.shape)
    return arrays
