"""Reads HDF5 files with many clips as mp3: their tables, and the bytes of one clip.

Conventions: the layout of PaSST and EfficientAT: ``audio_name`` (clip,) bytes, ``mp3``
(clip,) uint8 of any length, ``target`` (clip, column), all in the file itself: links to other files are not
followed. A file is opened when it is first read and stays open
in that process, so each worker of a loader has a handle of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import AudioError, DataError, EarmarkError, extra, first_line

_PARTS = ("audio_name", "mp3", "target")
_ROWS_AT_ONCE = 1 << 14
_MOST_COMPRESSED = 1100
"""How much smaller than its values deflate can make a file, rounded up."""


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
    with _damage(path):
        file = {part: _dataset(path, part) for part in _PARTS}
        sizes = {part: len(dataset) for part, dataset in file.items()}
        if len(set(sizes.values())) != 1:
            listed = ", ".join(f"{size} of {part}" for part, size in sizes.items())
            raise DataError(f"{path}: the datasets must have the same length, got {listed}")
        target = file["target"]
        if target.shape[1:] != (columns,) or target.dtype != dtype:
            shape = " x ".join(map(str, target.shape))
            raise DataError(
                f"{path}: target must be {dtype} of {sizes['target']} x {columns}, got {target.dtype} of "
                f"{shape}: is it the file of another corpus?"
            )
        values = _whole(path, target)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{path}: target has values that are NaN or infinite: download the file again")
    return read_names(path), values


def read_names(path: Path) -> list[str]:
    """Stored names of all clips of a file.

    Raises:
        DataError: If the file is missing or of another layout.
        MissingExtraError: If h5py is not installed.
    """
    with _damage(path):
        names = _whole(path, _dataset(path, "audio_name")).tolist()
        return [name.decode("utf-8") for name in names]


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
    try:
        recordings = _dataset(path, "mp3")
        if not 0 <= member < len(recordings):
            raise DataError(f"{path}: member must be 0 to {len(recordings) - 1}, got {member}")
        row = recordings[member]
        if row.dtype != np.uint8 or row.ndim != 1:
            raise DataError(f"{path}: mp3 must be a list of bytes for each clip, got {row.dtype}")
        return bytes(row.tobytes())
    except EarmarkError:
        raise
    except Exception as error:  # h5py raises errors of many kinds for damaged files
        raise AudioError(f"{path}, row {member}: damaged ({first_line(error)})") from None


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns the errors of h5py and of wrong layouts, which are of many kinds, into one line."""
    try:
        yield
    except EarmarkError:
        raise
    except Exception as error:
        raise DataError(f"{path}: is damaged, or of another layout ({first_line(error)})") from None


def _whole(path: Path, dataset: Any) -> NDArray[Any]:
    """All values of a dataset, unless they are far more than the file can hold."""
    most = _MOST_COMPRESSED * path.stat().st_size
    if dataset.size * dataset.dtype.itemsize > most:
        raise DataError(
            f"{path}: {dataset.name} has {dataset.size} values, more than the file can hold: damaged"
        )
    return np.asarray(dataset[:])


def _dataset(path: Path, name: str) -> Any:
    """A dataset of a file, which h5py takes longer to open than to read a row of."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    # A handle must not be shared with the process that this one was forked from.
    parts = _opened(path, changed, os.getpid())
    if name not in parts:
        raise DataError(
            f"{path}: lacks the dataset {name!r}: of {', '.join(_PARTS)}, with values in the file itself, "
            f"it has {', '.join(parts) or 'none'}"
        )
    return parts[name]


@lru_cache(maxsize=16)
def _opened(path: Path, changed: int, process: int) -> Mapping[str, Any]:
    with extra("reading HDF5 files", "hdf5"):
        import h5py
    try:
        file = h5py.File(path, "r", locking=False)
    except Exception as error:  # h5py raises errors of many kinds for damaged files
        raise DataError(f"{path}: is not an HDF5 file, or damaged ({first_line(error)})") from None
    with _damage(path):
        return {part: file[part] for part in _PARTS if _is_inside(file, part)}


def _is_inside(file: Any, name: str) -> bool:
    """Whether a file has a dataset of this name whose values lie in the file itself."""
    import h5py

    if name not in file or not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return False
    dataset = file[name]
    return isinstance(dataset, h5py.Dataset) and dataset.external is None and not dataset.is_virtual
