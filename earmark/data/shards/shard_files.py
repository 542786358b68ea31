"""Files of shards: tar files in WebDataset's layout, and memory-mapped arrays.

Conventions: in a tar file a clip is ``KEY.flac`` (or ``.mp3``, ``.ogg``) followed by ``KEY.json``; a key has
no dot. Owners and times are zero, so that the same clips give the same bytes. An array is int16 ``(time,)``,
clip after clip, in units of 1 / 32768.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Sequence
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
_MAX_KEY = 80


class Shard(Protocol):
    """A shard that is being written."""

    blocks: list[int]
    """Positions of its clips, headers included."""

    def add(self, key: str, content: bytes, metadata: dict[str, Any]) -> int:
        """Appends a clip; returns the position of its audio."""

    def finish(self) -> None:
        """Writes the end of the file."""


class TarShard:
    """Writes a tar file.

    Args:
        stream: The file.
        suffix: Of the clips.
    """

    def __init__(self, stream: BinaryIO, suffix: str) -> None:
        self.stream, self.suffix = stream, suffix
        self.blocks: list[int] = []

    def add(self, key: str, content: bytes, metadata: dict[str, Any]) -> int:
        """As :class:`Shard`."""
        self.blocks.append(self.stream.tell())
        offset = self._member(key + self.suffix, content)
        text = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
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
        stream: The file.
    """

    _HEADER = 128

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.blocks: list[int] = []
        stream.write(bytes(self._HEADER))

    def add(self, key: str, content: bytes, metadata: dict[str, Any]) -> int:
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
    """Reads a clip of an array.

    Args:
        shard: The array.
        member: Index of the clip in it.
        sample_rate: Of the waveform, in Hz.

    Returns:
        float32, shape (time,).

    Raises:
        AudioError: If it lies beyond the end of the array.
        DataError: If the array has no such clip, no index, or that of another shard.
    """
    index = find_index(shard)
    samples = _samples(shard, member, index)
    return resample(_read(shard, member, index, 0, samples), index.sample_rate, sample_rate)


def read_array_piece(
    shard: Path, member: int, sample_rate: int, length: int, start: Callable[[int], int]
) -> NDArray[np.float32]:
    """Reads a piece of a clip of an array.

    Args:
        shard: The array.
        member: Index of the clip in it.
        sample_rate: Of the piece, in Hz.
        length: Of the piece, in samples.
        start: Returns the first sample of the piece, given the clip's length beyond ``length``.

    Returns:
        float32, shape (time,): ``length`` samples, or the whole clip if it is not longer.

    Raises:
        AudioError: As :func:`read_array`.
        DataError: As :func:`read_array`.
    """
    index = find_index(shard)
    samples, read = _samples(shard, member, index), partial(_read, shard, member, index)
    piece = cut_piece(read, samples, index.sample_rate, sample_rate, length, start)
    assert piece is not None  # _read returns all samples, or raises
    return piece


def _samples(shard: Path, member: int, index: ShardIndex) -> int:
    if not 0 <= member < len(index.samples):
        raise DataError(f"{shard}: member must be 0 to {len(index.samples) - 1}, got {member}")
    return int(index.samples[member])


def _read(shard: Path, member: int, index: ShardIndex, first: int, count: int) -> NDArray[np.float32]:
    content = read_range(shard, member, index, (2 * first, 2 * (first + count)))
    samples = np.frombuffer(content, "<i2")
    return np.asarray(np.multiply(samples, np.float32(1 / 32768), dtype=np.float32))


def keys_of(clips: Sequence[Clip]) -> list[str]:
    """A unique name for each clip: its id, without characters that tar readers do not accept."""
    keys: list[str] = []
    taken: set[str] = set()
    for row, clip in enumerate(clips):
        key = re.sub(r"[^A-Za-z0-9_-]", "_", clip.id)[:_MAX_KEY] or "_"
        if key in taken:
            key = f"{key}-{row}"
        taken.add(key)
        keys.append(key)
    return keys
