"""Opens what a recording is read from: paths, standard input, bytes and open files.

Conventions: a source becomes a binary handle that can seek; one that cannot is copied to a temporary file.
Labels start error messages, and are printable.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from typing import BinaryIO, cast

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def open_source(source: Source, resources: ExitStack) -> BinaryIO:
    """Opens a source as a handle that can seek; ``resources`` close it unless the caller opened it."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        if os.fspath(source) == "-":
            return _spool(sys.stdin.buffer, resources)
        handle = resources.enter_context(open(source, "rb", buffering=0))  # noqa: SIM115
        return cast(BinaryIO, handle) if handle.seekable() else _spool(cast(BinaryIO, handle), resources)
    return source if source.seekable() else _spool(source, resources)


def _spool(handle: BinaryIO, resources: ExitStack) -> BinaryIO:
    copy = resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    shutil.copyfileobj(handle, copy, 1 << 16)
    return cast(BinaryIO, copy)


def path_and_label(source: Source) -> tuple[str, str]:
    """The path of a source as results report it, and a printable form for error messages."""
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
    else:
        path = str(getattr(source, "name", "audio data"))
    label = "standard input" if path == "-" else path
    return path, label if label.isprintable() and label else repr(label)


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
