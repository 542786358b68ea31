"""Decoded clips on disk, shared by processes and kept between runs.

No library replaces this: diskcache stores pickles and evicts by age alone, with which a random order of more
clips than there is room for finds none of them again.

Conventions: an entry is a clip as decoded and resampled, in 16 bit, under a SHA-256 of its encoded bytes, the
sample rate and the version of earmark: a changed file has another entry, a moved one the same. Entries are
written atomically, and verified when a run first reads them; a damaged one is replaced. A folder that is full
drops entries that no run has used since this one began, the oldest first, then takes no more.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.data.manifest import Clip
from earmark.data.read_clip import encoded_audio, read_clip, read_piece
from earmark.errors import DataError
from earmark.model_file.atomic import write_atomically
from earmark.model_file.lock import try_lock
from earmark.version import __version__

Samples = NDArray[np.int16]
Waveform = NDArray[np.float32]

_HEADER = struct.Struct("<4sIQ")  # mark, CRC-32 of the samples, their number
_MARK = b"EMC1"
_SCALE = 32767
_KEY_BYTES = 20  # of the hash, which is enough to tell clips apart
_TOTAL = "total"  # file with the bytes of all entries, written or about to be
_KEPT = 0.95  # of the limit, after old entries have been removed
_BLOCK = 1 << 20
_CLOCK_S = 1.0
"""How much older than the clock the times of new files may be."""


@dataclass(frozen=True)
class Entry:
    """A file of the cache: path, bytes, and the time of its last use."""

    path: Path
    size: int
    used: float


class ClipCache:
    """A folder of decoded clips.

    Args:
        folder: Created if it is missing; any number of runs may share it.
        limit: Bytes that all entries may take.

    Raises:
        DataError: If the folder cannot be created.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._began, self._is_full = time.time() - _CLOCK_S, False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be created: {error.strerror}: choose another folder") from None

    def read(self, key: str) -> Samples | None:
        """Reads and verifies an entry, and notes its use; None if it is missing or damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        if len(content) < _HEADER.size:
            return None
        mark, check, count = _HEADER.unpack_from(content)
        body = memoryview(content)[_HEADER.size :]
        if (mark, check, 2 * count) != (_MARK, zlib.crc32(body), len(body)):
            return None
        return np.frombuffer(body, "<i2")

    def read_piece(self, key: str, cut: Callable[[int], slice]) -> Samples | None:
        """Reads a piece of an entry that has been verified; None if the entry is gone.

        Args:
            key: Of the entry.
            cut: Returns the piece, given the number of samples.
        """
        try:
            with self._path(key).open("rb", buffering=0) as stream:
                count = (os.fstat(stream.fileno()).st_size - _HEADER.size) // 2
                piece = cut(count)
                first, last, _ = piece.indices(count)
                stream.seek(_HEADER.size + 2 * first)
                content = stream.read(2 * (last - first))
        except OSError:
            return None
        return np.frombuffer(content, "<i2") if len(content) == 2 * (last - first) > 0 else None

    def add(self, key: str, samples: Samples) -> bool:
        """Writes an entry; returns whether it has been written. A full disk is a full folder."""
        body = samples.astype("<i2", copy=False).tobytes()
        content = _HEADER.pack(_MARK, zlib.crc32(body), len(samples)) + body
        try:
            if self._is_full or not self._reserve(len(content)):
                return False
            write_atomically(self._path(key), content)
        except OSError:
            self._is_full = True
            return False
        return True

    def entries(self) -> list[Entry]:
        """All files of entries, unfinished ones of killed runs too, the one that was used last at the end."""
        found = []
        for path in self.folder.glob("??/*"):
            with suppress(OSError):  # removed by another process
                state = path.stat()
                found.append(Entry(path, state.st_size, state.st_mtime))
        return sorted(found, key=lambda entry: entry.used)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _reserve(self, size: int) -> bool:
        """Adds to the total before anything is written: a run that is killed leaves it too high at most."""
        if size > self.limit:
            return False
        with _locked(self.folder / _TOTAL) as stream:
            text = stream.read()
            total = int(text) if text.isdigit() else sum(entry.size for entry in self.entries())
            if total + size > self.limit:
                total = self._make_room(size)
            self._is_full = total + size > self.limit
            stream.seek(0)
            stream.truncate()
            stream.write(str(total if self._is_full else total + size).encode())
        return not self._is_full

    def _make_room(self, size: int) -> int:
        """Removes what has not been used since this run began, oldest first; returns the bytes that stay."""
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        for entry in entries:
            if entry.used >= self._began or total + size <= _KEPT * self.limit:
                break
            entry.path.unlink(missing_ok=True)
            total -= entry.size
        return total


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, open and locked; processes wait for one another."""
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with cast(BinaryIO, os.fdopen(opened, "r+b")) as stream:
        while not try_lock(stream):
            time.sleep(0.001)
        yield stream
        stream.flush()


class CachedClips:
    """Reads clips, each of which is decoded once.

    Processes to which this object is passed share what it knows: a clip's file is read once in a run, to find
    its entry; from then on its entry is read alone.

    Args:
        clips: To read.
        sample_rate: Of the waveforms, in Hz.
        cache: Folder of their entries; None: clips are decoded whenever they are read. Clips of array shards
            are decoded already, and always read from there.
    """

    def __init__(self, clips: Sequence[Clip], sample_rate: int, cache: ClipCache | None) -> None:
        self.clips, self.sample_rate, self._cache = clips, sample_rate, cache
        self._keys = torch.zeros(len(clips), _KEY_BYTES, dtype=torch.uint8)
        self._keys.share_memory_()  # type: ignore[no-untyped-call]

    def read(self, index: int) -> Waveform:
        """Reads a clip: as :func:`earmark.data.read_clip.read_clip`, rounded to 16 bit if it is cached."""
        if self._cache is None or self._is_array(index):
            return read_clip(self.clips[index], self.sample_rate)
        return self._read(self._cache, index, lambda count: slice(count))

    def read_piece(self, index: int, length: int, start: Callable[[int], int]) -> Waveform:
        """Reads a piece of a clip: as :func:`earmark.data.read_clip.read_piece`, rounded if it is cached."""
        if self._cache is None or self._is_array(index):
            return read_piece(self.clips[index], self.sample_rate, length, start)

        def cut(count: int) -> slice:
            first = start(count - length) if count > length else 0
            return slice(first, first + length)

        return self._read(self._cache, index, cut)

    def _is_array(self, index: int) -> bool:
        clip = self.clips[index]
        return clip.member is not None and clip.path.suffix == ".npy"

    def _read(self, cache: ClipCache, index: int, cut: Callable[[int], slice]) -> Waveform:
        key, samples = bytes(self._keys[index].tolist()), None
        if any(key):
            samples = cache.read_piece(key.hex(), cut)
        if samples is None:
            samples = self._verified(cache, index)
            samples = samples[cut(len(samples))]
        return samples.astype(np.float32) / np.float32(_SCALE)

    def _verified(self, cache: ClipCache, index: int) -> Samples:
        """All samples of a clip: from its entry if there is one, else decoded and written there."""
        clip = self.clips[index]
        try:
            key = _key(clip, self.sample_rate)
        except OSError:
            return _rounded(read_clip(clip, self.sample_rate))  # raises an error that names the clip
        samples = cache.read(key.hex())
        if samples is None:
            samples = _rounded(read_clip(clip, self.sample_rate))
            if not cache.add(key.hex(), samples):
                return samples
        self._keys[index] = torch.frombuffer(bytearray(key), dtype=torch.uint8)
        return samples


def _rounded(waveform: Waveform) -> Samples:
    return np.round(np.clip(waveform, -1, 1) * _SCALE).astype(np.int16)


def _key(clip: Clip, sample_rate: int) -> bytes:
    """The hash of all that decides about a clip's samples; processors have instructions for SHA-256."""
    source = encoded_audio(clip)
    # A damaged file of its own is read as far as it goes, a damaged member of another is refused.
    kind = "file" if isinstance(source, Path) else "member"
    digest = hashlib.sha256(f"{__version__} {sample_rate} {kind} ".encode())
    with source.open("rb") if isinstance(source, Path) else source as stream:
        for block in iter(partial(stream.read, _BLOCK), b""):
            digest.update(block)
    return digest.digest()[:_KEY_BYTES]
