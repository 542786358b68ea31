"""Reads HDF5 files with many clips as mp3: their tables, and the bytes of one clip.

Conventions: the layout of PaSST and EfficientAT: ``audio_name`` (clip,) bytes, ``mp3``
(clip,) uint8 of any length, ``target`` (clip, column). A file is opened when it is first read and stays open
in that process, so each worker of a loader has a handle of its own.
"""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import AudioError, DataError, extra

_PARTS = ("audio_name", "mp3", "target")
_ROWS_AT_ONCE = 1 << 14


def read_table(path: Path, columns: int, dtype: str) -> tuple[list[str], NDArray[Any]]:
    """Names and targets of all clips of a file.

    Source: the files of EfficientAT (golden hdf5/index.json).

    Args:
        path: The HDF5 file.
        columns: Required width of the targets.
        dtype: Required type of the targets: "uint8" or "float32".

    Returns:
        Stored names (clip,), and targets (clip, column).

    Raises:
        DataError: If the file is missing or not of that layout.
        MissingExtraError: If h5py is not installed.
    """
    file = _open(path)[0]
    missing = [part for part in _PARTS if part not in file]
    if missing:
        raise DataError(
            f"{path}: lacks the dataset {missing[0]!r}: required are {', '.join(_PARTS)}, "
            f"it has {', '.join(file) or 'none'}"
        )
    names, count = file["audio_name"], len(file["audio_name"])
    if not len(file["mp3"]) == len(file["target"]) == count:
        sizes = ", ".join(f"{len(file[part])} of {part}" for part in _PARTS)
        raise DataError(f"{path}: the datasets must have the same length, got {sizes}")
    target = file["target"]
    if target.shape[1:] != (columns,) or target.dtype != dtype:
        shape = " x ".join(map(str, target.shape))
        raise DataError(
            f"{path}: target must be {dtype} of {count} x {columns}, got {target.dtype} of {shape}: "
            "is it the file of another corpus?"
        )
    return [name.decode("utf-8") for name in names[:].tolist()], np.asarray(target[:])


def read_names(path: Path) -> list[str]:
    """Stored names of all clips of a file.

    Raises:
        DataError: If the file is missing or of another layout.
        MissingExtraError: If h5py is not installed.
    """
    file = _open(path)[0]
    if "audio_name" not in file:
        raise DataError(f"{path}: lacks the dataset 'audio_name'")
    return [name.decode("utf-8") for name in file["audio_name"][:].tolist()]


def unpack_labels(target: NDArray[np.uint8], classes: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Labels of targets whose bits are packed into bytes.

    Args:
        target: uint8, shape (clip, byte).
        classes: One per bit.

    Returns:
        The labels of each clip, in the order of the classes.
    """
    found: list[tuple[str, ...]] = []
    for first in range(0, len(target), _ROWS_AT_ONCE):
        bits = np.unpackbits(target[first : first + _ROWS_AT_ONCE], axis=1, count=len(classes))
        rows, columns = np.nonzero(bits)
        ends = np.searchsorted(rows, np.arange(len(bits) + 1))
        found += [
            tuple(classes[column] for column in columns[begin:end]) for begin, end in pairwise(ends.tolist())
        ]
    return found


def read_member(path: Path, member: int) -> bytes:
    """The bytes of one clip.

    Args:
        path: The HDF5 file.
        member: Its row.

    Raises:
        AudioError: If the row is damaged.
        DataError: If there is no such row, or no such file.
        MissingExtraError: If h5py is not installed.
    """
    recordings = _open(path)[1]
    if recordings is None:
        raise DataError(f"{path}: lacks the dataset 'mp3'")
    if not 0 <= member < len(recordings):
        raise DataError(f"{path}: member must be 0 to {len(recordings) - 1}, got {member}")
    try:
        return bytes(recordings[member].tobytes())
    except OSError as error:
        raise AudioError(f"{path}, row {member}: damaged ({error})") from None


def _open(path: Path) -> tuple[Any, Any]:
    """A file and its clips, which h5py takes longer to open than to read a row of."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    # A handle must not be shared with the process that this one was forked from.
    return _opened(path, changed, os.getpid())


@lru_cache(maxsize=16)
def _opened(path: Path, changed: int, process: int) -> tuple[Any, Any]:
    with extra("reading HDF5 files", "hdf5"):
        import h5py
    try:
        file = h5py.File(path, "r", locking=False)
        return file, file.get("mp3")
    except OSError as error:
        raise DataError(f"{path}: is not an HDF5 file, or damaged ({error})") from None
