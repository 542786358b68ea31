"""Shards: tar files in WebDataset's layout, and arrays to be mapped into memory.

Conventions: in a tar a clip is ``KEY.flac`` (or ``.mp3``, ``.ogg``) and ``KEY.json`` behind it; a key has no
dot. Owners and times are zero, so that the same clips give the same bytes. An array is int16 ``(time,)``,
clip after clip; k stands for k / 32768.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from earmark.audio import cut_piece, resample
from earmark.data.manifest import Clip
from earmark.data.shards.index import ShardIndex, find_index, read_range
from earmark.errors import DataError

_BLOCK = tarfile.BLOCKSIZE
_LONGEST_KEY = 80


class Shard(Protocol):
    """A shard that is being written."""

    blocks: list[int]
    """Where its clips begin, headers included."""

    def add(self, key: str, content: bytes, facts: dict[str, Any]) -> int:
        """Appends a clip; returns where its recording begins."""

    def finish(self) -> None:
        """Writes what comes last."""


class TarShard:
    """Writes a tar file.

    Args:
        stream: To write to.
        suffix: Of the recordings.
    """

    def __init__(self, stream: BinaryIO, suffix: str) -> None:
        self.stream, self.suffix = stream, suffix
        self.blocks: list[int] = []

    def add(self, key: str, content: bytes, facts: dict[str, Any]) -> int:
        """As :class:`Shard`."""
        self.blocks.append(self.stream.tell())
        offset = self._member(key + self.suffix, content)
        text = json.dumps(facts, ensure_ascii=False, sort_keys=True)
        self._member(f"{key}.json", text.encode())
        return offset

    def _member(self, name: str, content: bytes) -> int:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self.stream.write(info.tobuf(tarfile.USTAR_FORMAT))
        offset = self.stream.tell()
        self.stream.write(content + bytes(-len(content) % _BLOCK))
        return offset

    def finish(self) -> None:
        """As :class:`Shard`."""
        at = self.stream.tell()
        self.stream.write(bytes(2 * _BLOCK + -(at + 2 * _BLOCK) % tarfile.RECORDSIZE))


class ArrayShard:
    """Writes an ``.npy`` file.

    Args:
        stream: To write to.
    """

    _HEADER = 128

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.blocks: list[int] = []
        stream.write(bytes(self._HEADER))

    def add(self, key: str, content: bytes, facts: dict[str, Any]) -> int:
        """As :class:`Shard`; the content is int16."""
        self.blocks.append(self.stream.tell())
        self.stream.write(content)
        return self.blocks[-1]

    def finish(self) -> None:
        """As :class:`Shard`."""
        samples = (self.stream.tell() - self._HEADER) // 2
        self.stream.seek(0)
        npy.write_array_header_1_0(self.stream, {"descr": "<i2", "fortran_order": False, "shape": (samples,)})


def read_array(shard: Path, member: int, sample_rate: int) -> NDArray[np.float32]:
    """A clip of an array, whole.

    Args:
        shard: The array.
        member: Place of the clip in it.
        sample_rate: Wanted, in Hz.

    Returns:
        float32, shape (time,).

    Raises:
        AudioError: If it lies beyond the end of the array.
        DataError: If the array has no such clip, no index, or that of another state.
    """
    index = find_index(shard)
    samples = _samples(shard, member, index)
    return resample(_read(shard, member, index, 0, samples), index.sample_rate, sample_rate)


def read_array_piece(
    shard: Path, member: int, sample_rate: int, length: int, start: Callable[[int], int]
) -> NDArray[np.float32]:
    """A piece of a clip of an array.

    Args:
        shard: The array.
        member: Place of the clip in it.
        sample_rate: Wanted, in Hz.
        length: Samples wanted at that rate.
        start: From the samples that are too many, above 0, to the first one that is wanted.

    Returns:
        float32, shape (time,): ``length`` samples, or all of a clip that is not longer.

    Raises:
        AudioError: As :func:`read_array`.
        DataError: As :func:`read_array`.
    """
    index = find_index(shard)
    samples, read = _samples(shard, member, index), partial(_read, shard, member, index)
    piece = cut_piece(read, samples, index.sample_rate, sample_rate, length, start)
    assert piece is not None  # _read gives what it is asked for, or raises
    return piece


def _samples(shard: Path, member: int, index: ShardIndex) -> int:
    if not 0 <= member < len(index.samples):
        raise DataError(f"{shard}: there is no clip {member}: it has {len(index.samples)}, counted from 0")
    return int(index.samples[member])


def _read(shard: Path, member: int, index: ShardIndex, first: int, count: int) -> NDArray[np.float32]:
    content = read_range(shard, member, index, (2 * first, 2 * (first + count)))
    samples = np.frombuffer(content, "<i2")
    return np.asarray(np.multiply(samples, np.float32(1 / 32768), dtype=np.float32))


def keys_of(clips: Sequence[Clip]) -> list[str]:
    """A name for each clip that no other has: its id, as far as a tar's reader bears it."""
    keys: list[str] = []
    taken: set[str] = set()
    for row, clip in enumerate(clips):
        key = re.sub(r"[^A-Za-z0-9_-]", "_", clip.id)[:_LONGEST_KEY] or "_"
        if key in taken:
            key = f"{key}-{row}"
        taken.add(key)
        keys.append(key)
    return keys


def stream_shard(stream: BinaryIO) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Reads a tar from its start to its end, without an index: from a pipe or a network too.

    Yields:
        What is said of a clip (its ``.json``), and its recording.

    Raises:
        DataError: If the tar is damaged or cut off, or is not laid out as said above.
    """
    recording: tuple[str, bytes] | None = None
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for entry in tar:
                member = tar.extractfile(entry)
                key, _, suffix = entry.name.partition(".")
                content = b"" if member is None else member.read()
                if suffix != "json":
                    recording = key, content
                elif recording is None or recording[0] != key:
                    raise ValueError(f"{entry.name} has no recording in front of it")
                else:
                    yield json.loads(content), recording[1]
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{getattr(stream, 'name', 'the shard')}: damaged or no shard ({error})") from None
