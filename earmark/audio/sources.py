"""Opens what a recording is read from: paths, addresses, standard input, bytes and open files.

Conventions: a source becomes a :class:`ByteRange`, a binary file that can seek; one that cannot is copied to
a temporary file. Labels start error messages, and are printable.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import BinaryIO, cast

from earmark.audio.remote import is_remote, open_remote

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
_CHUNK = 1 << 20


class ByteRange(io.RawIOBase):
    """A part of a file, as a file of its own.

    Decoders call it from C, where an exception cannot pass: positions are clipped, and where reading fails
    the file ends and ``failure`` holds the reason.

    Args:
        handle: The file; can seek; stays open.
        first: Position of its first byte.
        end: Position after its last byte.
    """

    def __init__(self, handle: BinaryIO, first: int, end: int) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self._handle, self._first, self.size = handle, first, max(0, end - first)
        self._at = 0

    def part(self, first: int, end: int | None = None) -> ByteRange:
        """The bytes from ``first`` to ``end`` (default: to the end) of this range."""
        end = self.size if end is None else min(end, self.size)
        return ByteRange(self._handle, self._first + first, self._first + end)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As usual, but a position outside the file, from a damaged header, is clipped."""
        origin = (0, self._at, self.size)[whence]
        self._at = min(max(0, origin + offset), self.size)
        return self._at

    def tell(self) -> int:
        """As usual."""
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As usual."""
        content = self.read_at(self._at, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def read_at(self, at: int, count: int) -> bytes:
        """Reads up to ``count`` bytes at a position, without moving the file's own."""
        count = min(count, self.size - at)
        if count <= 0 or at < 0:
            return b""
        try:
            self._handle.seek(self._first + at)
            return self._handle.read(count) or b""
        except OSError as error:
            self.failure = error
            return b""

    def find(self, pattern: re.Pattern[bytes], longest: int, first: int = 0) -> int | None:
        """Position of the first match of a pattern of at most ``longest`` bytes; None if there is none."""
        for at in range(first, self.size, _CHUNK):
            if found := pattern.search(self.read_at(at, _CHUNK + longest - 1)):
                return at + found.start()
        return None

    def first_where(self, first: int, differs: Callable[[bytes], bytes]) -> int:
        """Position, from ``first`` on, of the first byte that ``differs`` leaves of a chunk."""
        while chunk := self.read_at(first, _CHUNK):
            if rest := differs(chunk):
                return first + len(chunk) - len(rest)
            first += len(chunk)
        return first


def open_source(source: Source, resources: ExitStack) -> ByteRange:
    """Opens a source; ``resources`` close it unless the caller opened it.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If its path has a NUL, or the file is closed.
    """
    handle = _open(source, resources)
    return ByteRange(handle, 0, handle.seek(0, os.SEEK_END))


def _open(source: Source, resources: ExitStack) -> BinaryIO:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if is_remote(path):
            return open_remote(path, resources)
        if path == "-":
            if sys.stdin is None:
                raise OSError("standard input is closed")
            return _spool(sys.stdin.buffer, resources)
        handle = resources.enter_context(open(source, "rb", buffering=0))  # noqa: SIM115
        return cast(BinaryIO, handle) if handle.seekable() else _spool(cast(BinaryIO, handle), resources)
    return source if source.seekable() else _spool(source, resources)


def _spool(handle: BinaryIO, resources: ExitStack) -> BinaryIO:
    copy = resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    shutil.copyfileobj(handle, copy, 1 << 16)
    return cast(BinaryIO, copy)


def path_and_label(source: Source) -> tuple[str, str]:
    """The path of a source as results report it, and a printable form for messages."""
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
    else:
        path = str(getattr(source, "name", "audio data"))
    return path, "standard input" if path == "-" else printable(path)


def printable(path: str) -> str:
    """A path as messages show it: quoted, with escapes, where it is not printable."""
    return path if path.isprintable() and path else repr(path)


def reason(error: Exception) -> str:
    """Why a file could not be opened, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "this is a directory, not a recording"
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied)"
    return getattr(error, "strerror", None) or first_line(error)


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error) or type(error).__name__).splitlines()[0]
