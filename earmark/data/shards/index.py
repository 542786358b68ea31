"""Index of a shard: the position of each clip, and a check that index and shard belong together.

Conventions: ``000000.tar`` has its index in ``000000.index.json``. Positions are bytes from the start. An
index is compared with the content of its shard, not with its modification time, which copies change. The
clips before the end of a truncated shard can be read. Files are opened when they are first read, once in each
process.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from earmark.errors import AudioError, DataError
from earmark.model_file.atomic import write_atomically
from earmark.model_file.strict_json import parse_json

Integers = NDArray[np.int64]
VERSION = 1
MAX_SAMPLE_RATE_HZ = 768_000
_PROBES = 9
_PROBE_BYTES = 512
_PAIRS = ("probes", "bad")
_COLUMNS = ("rows", "offsets", "sizes", "samples", "checks")


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Contents of a shard, one entry of each column per clip.

    Args:
        fingerprint: Of the clips and options that the shard was made from.
        size: Of the shard, in bytes.
        sample_rate: Of its clips, in Hz.
        rows: Row of the clip in the packed manifest.
        offsets: First byte of the clip.
        sizes: Bytes of the clip.
        samples: Samples of the clip.
        checks: CRC-32 of its bytes.
        probes: Position and CRC-32 of a few blocks, which identify the shard.
        bad: Row and error of skipped clips.
    """

    fingerprint: str
    size: int
    sample_rate: int
    rows: Integers
    offsets: Integers
    sizes: Integers
    samples: Integers
    checks: Integers
    probes: tuple[tuple[int, int], ...]
    bad: tuple[tuple[int, str], ...]

    def write(self, shard: Path) -> None:
        """Writes the index beside its shard."""
        columns = {name: getattr(self, name).tolist() for name in _COLUMNS}
        facts = {
            "version": VERSION,
            "of": self.fingerprint,
            "size": self.size,
            "sample_rate": self.sample_rate,
        }
        write_atomically(
            index_path(shard), json.dumps({**facts, **columns, "probes": self.probes, "bad": self.bad})
        )


def index_path(shard: Path) -> Path:
    """Path of the index of a shard."""
    return shard.with_suffix(".index.json")


def probes(stream: BinaryIO, blocks: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Position and CRC-32 of a few blocks of a shard.

    Args:
        stream: The shard, just written.
        blocks: Positions of its clips, headers included.
    """
    spread = {int(place) for place in np.linspace(0, len(blocks) - 1, _PROBES)} if blocks else set()
    found = []
    for place in sorted(spread):
        stream.seek(blocks[place])
        found.append((blocks[place], zlib.crc32(stream.read(_PROBE_BYTES))))
    return tuple(found)


def find_index(shard: Path) -> ShardIndex:
    """Reads the index of a shard and compares it with the shard.

    Raises:
        DataError: If either is missing, or they do not belong together.
    """
    path = index_path(shard)
    states = []
    for file, lacks in ((path, "an index"), (shard, "a shard")):
        try:
            state = file.stat()
        except OSError as error:
            raise DataError(f"{file}: the pack lacks {lacks} ({error.strerror}): {_REMAKE}") from None
        states += [state.st_mtime_ns, state.st_size]
    return _found(shard, tuple(states))


_REMAKE = "run the same earmark pack command again, which makes this shard and its index anew"


@lru_cache(maxsize=1 << 14)
def _found(shard: Path, states: tuple[int, ...]) -> ShardIndex:
    path = index_path(shard)
    try:
        values: dict[str, Any] = parse_json(path.read_bytes())
        if values.pop("version") != VERSION:
            raise ValueError("of another version of earmark")
        columns = {name: _integers(name, values.pop(name)) for name in _COLUMNS}
        pairs = {name: tuple((first, second) for first, second in values.pop(name)) for name in _PAIRS}
        made: dict[str, Any] = {"fingerprint": values.pop("of"), **values, **columns, **pairs}
        index = ShardIndex(**made)
        _check(index)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: is not an index of a shard ({error}): {_REMAKE}") from None
    _require_same(shard, index)
    return index


def _integers(name: str, values: object) -> Integers:
    column = np.array(values)
    if column.ndim != 1 or (column.size and column.dtype != np.int64):
        raise ValueError(f"{name} must be a list of integers")
    if column.size and column.min() < 0:
        raise ValueError(f"{name} must not be negative")
    return column.astype(np.int64)


def _check(index: ShardIndex) -> None:
    """Raises a ValueError if the columns do not describe clips of a shard of its size."""
    columns = [getattr(index, name) for name in _COLUMNS]
    if len({len(column) for column in columns}) != 1:
        raise ValueError("columns of different lengths")
    for name, low, high in (("size", 0, 1 << 62), ("sample_rate", 1, MAX_SAMPLE_RATE_HZ)):
        value = getattr(index, name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")
    if not isinstance(index.fingerprint, str):
        raise ValueError("of must be a string")
    if len(np.unique(index.rows)) != len(index.rows):
        raise ValueError("a row is repeated")
    if len(index.sizes) and (index.sizes > index.size - np.minimum(index.offsets, index.size)).any():
        raise ValueError("a clip lies beyond the end of the shard")
    for name, kind in (("probes", int), ("bad", str)):
        if not all(type(first) is int and type(second) is kind for first, second in getattr(index, name)):
            raise ValueError(f"{name} must be pairs of an integer and {kind.__name__}")
    if any(at < 0 for at, _ in index.probes):
        raise ValueError("probes must not be negative")


def _require_same(shard: Path, index: ShardIndex) -> None:
    """Rejects the shard of another index; clips of a damaged shard are checked when they are read."""
    size = shard.stat().st_size
    within = [(at, check) for at, check in index.probes if at + _PROBE_BYTES <= min(size, index.size)]
    with shard.open("rb", buffering=0) as stream:
        alike = sum(zlib.crc32(os.pread(stream.fileno(), _PROBE_BYTES, at)) == check for at, check in within)
    if size > index.size or 2 * alike < len(within):
        raise DataError(
            f"{shard}: does not belong to {index_path(shard).name} ({size} bytes, not {index.size}): "
            f"{_REMAKE}"
        )


def read_range(
    shard: Path, member: int, index: ShardIndex | None = None, part: tuple[int, int] | None = None
) -> bytes:
    """Reads the bytes of a clip, or some of them.

    Args:
        shard: The shard.
        member: Index of the clip in it.
        index: Of the shard, if it is known.
        part: First byte and last + 1 within the clip; parts have no checksum.

    Raises:
        AudioError: If they are damaged, or beyond the end of the shard.
        DataError: If the shard has no such clip, no index, or that of another shard.
    """
    index = index or find_index(shard)
    if not 0 <= member < len(index.sizes):
        raise DataError(f"{shard}: member must be 0 to {len(index.sizes) - 1}, got {member}")
    first, last = part or (0, int(index.sizes[member]))
    if not 0 <= first <= last <= index.sizes[member]:
        raise AudioError(
            f"{shard}, clip {member}: has {index.sizes[member]} bytes, not {last}: make it again"
        )
    handle = _handle(shard, shard.stat().st_mtime_ns, os.getpid())
    content = os.pread(handle.file, last - first, int(index.offsets[member]) + first)
    if len(content) < last - first:
        raise AudioError(f"{shard}, clip {member}: the shard is cut off before the end of this clip")
    if part is None and zlib.crc32(content) != index.checks[member]:
        raise AudioError(f"{shard}, clip {member}: damaged: the checksum does not match")
    return content


class _Handle:
    """A file descriptor, closed with the last reference."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.file)


@lru_cache(maxsize=64)
def _handle(shard: Path, changed: int, process: int) -> _Handle:
    return _Handle(shard)
