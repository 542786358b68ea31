"""The index of a shard: where each clip lies in it, and whether the two belong together.

Conventions: ``000000.tar`` has its index in ``000000.index.json``. Positions are bytes from the start. Clocks
are not asked (copies change them): an index is held against the content of its shard. A shard that ends early
still serves the clips in front of the cut. Files are opened where they are first read, once in each process.
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

Whole = NDArray[np.int64]
VERSION = 1
_PROBES = 9
_PROBE_BYTES = 512
_COLUMNS = ("rows", "offsets", "sizes", "samples", "checks")


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """What a shard holds, one entry of each column per clip.

    Args:
        of: Fingerprint of the clips and choices that the shard was made from.
        size: Of the shard, in bytes.
        sample_rate: Of its recordings, in Hz.
        rows: Position of the clip among all that were to be packed.
        offsets: Where its recording begins.
        sizes: Its bytes.
        samples: Its length.
        checks: CRC-32 of its bytes.
        probes: Position and CRC-32 of a few blocks of the shard, by which it is known.
        bad: Position, and what was wrong, of clips that were left out.
    """

    of: str
    size: int
    sample_rate: int
    rows: Whole
    offsets: Whole
    sizes: Whole
    samples: Whole
    checks: Whole
    probes: tuple[tuple[int, int], ...]
    bad: tuple[tuple[int, str], ...]

    def write(self, shard: Path) -> None:
        """Writes the index beside its shard."""
        columns = {name: getattr(self, name).tolist() for name in _COLUMNS}
        facts = {"version": VERSION, "of": self.of, "size": self.size, "sample_rate": self.sample_rate}
        write_atomically(
            index_path(shard), json.dumps({**facts, **columns, "probes": self.probes, "bad": self.bad})
        )


def index_path(shard: Path) -> Path:
    """Where the index of a shard lies."""
    return shard.with_suffix(".index.json")


def probes(stream: BinaryIO, blocks: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """What a shard is known by.

    Args:
        stream: The shard, just written.
        blocks: Where its clips begin (their headers, where they have some).
    """
    spread = {int(place) for place in np.linspace(0, len(blocks) - 1, _PROBES)} if blocks else set()
    found = []
    for place in sorted(spread):
        stream.seek(blocks[place])
        found.append((blocks[place], zlib.crc32(stream.read(_PROBE_BYTES))))
    return tuple(found)


def find_index(shard: Path) -> ShardIndex:
    """The index of a shard, held against the shard.

    Raises:
        DataError: If either is missing, or the index is of another state of the shard.
    """
    path = index_path(shard)
    states = []
    for file, lacks in ((path, "its index"), (shard, "this shard")):
        try:
            state = file.stat()
        except OSError as error:
            raise DataError(f"{file}: the pack lacks {lacks} ({error.strerror}): {_REMAKE}") from None
        states += [state.st_mtime_ns, state.st_size]
    return _found(shard, tuple(states))


_REMAKE = "run the same earmark pack command again, it makes this shard and its index anew"


@lru_cache(maxsize=1 << 14)
def _found(shard: Path, states: tuple[int, ...]) -> ShardIndex:
    path = index_path(shard)
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        if values.pop("version") != VERSION:
            raise ValueError("it is of another version of earmark")
        columns = {name: np.array(values.pop(name), np.int64) for name in _COLUMNS}
        if len({len(column) for column in columns.values()}) != 1:
            raise ValueError("its columns are not equally long")
        pairs = {name: tuple(map(tuple, values.pop(name))) for name in ("probes", "bad")}
        made: dict[str, Any] = {**values, **columns, **pairs}
        index = ShardIndex(**made)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is no whole index of a shard ({error}): {_REMAKE}") from None
    _require_same(shard, index)
    return index


def _require_same(shard: Path, index: ShardIndex) -> None:
    """Refuses a shard that was made anew; of one that is damaged each clip is checked when it is read."""
    size = shard.stat().st_size
    within = [(at, check) for at, check in index.probes if at + _PROBE_BYTES <= min(size, index.size)]
    with shard.open("rb", buffering=0) as stream:
        alike = sum(zlib.crc32(os.pread(stream.fileno(), _PROBE_BYTES, at)) == check for at, check in within)
    if size > index.size or 2 * alike < len(within):
        raise DataError(
            f"{shard}: is not the shard that {index_path(shard).name} was made for ({size} bytes, "
            f"{index.size} in the index): the index is older, or of another pack: {_REMAKE}"
        )


def read_range(
    shard: Path, member: int, index: ShardIndex | None = None, part: tuple[int, int] | None = None
) -> bytes:
    """The bytes of a clip, or some of them.

    Args:
        shard: The shard.
        member: Place of the clip in it.
        index: Of the shard, where it is at hand.
        part: First byte wanted, and last + 1, counted within the recording; such parts are not checked.

    Raises:
        AudioError: If they are damaged, or beyond the end of the shard.
        DataError: If the shard has no such clip, no index, or that of another state.
    """
    index = index or find_index(shard)
    if not 0 <= member < len(index.sizes):
        raise DataError(f"{shard}: there is no clip {member}: it has {len(index.sizes)}, counted from 0")
    first, last = part or (0, int(index.sizes[member]))
    handle = _handle(shard, shard.stat().st_mtime_ns, os.getpid())
    content = os.pread(handle.file, last - first, int(index.offsets[member]) + first)
    if len(content) < last - first:
        raise AudioError(f"{shard}, clip {member}: the shard is cut off before the end of this clip")
    if part is None and zlib.crc32(content) != index.checks[member]:
        raise AudioError(f"{shard}, clip {member}: damaged: its bytes are not those that were packed")
    return content


class _Handle:
    """An open file, closed when it is forgotten."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.file)


@lru_cache(maxsize=64)
def _handle(shard: Path, changed: int, process: int) -> _Handle:
    return _Handle(shard)
