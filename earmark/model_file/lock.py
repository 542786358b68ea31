"""Locks on folders and files that only one process may write to.

Conventions: the kernel holds a lock (flock) for a process, so none outlives it, however it ends. A folder's
lock is the file ``.lock`` in it, which says who holds it; a file without a lock on it means nothing. File
systems without locks are not protected.
"""

from __future__ import annotations

import datetime
import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

from earmark.errors import DataError

LOCK_FILE = ".lock"

_held: set[BinaryIO] = set()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Holds a folder for this process.

    Args:
        folder: Created if it is missing.

    Raises:
        DataError: If it is held already; the message says by which process, on which machine, since when.
        OSError: If it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    stream = _acquired(path)
    if stream is None:
        raise DataError(
            f"{folder}: is in use by {_read(path) or 'another process'}: wait for it to end, or choose "
            "another folder"
        )
    _close_in_forked_children()
    _held.add(stream)
    owner = os.getpid()
    try:
        now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        stream.truncate(0)
        stream.write(f"process {owner} on {socket.gethostname()} since {now}".encode())
        yield
    finally:
        if os.getpid() == owner:  # not in a forked child
            _held.discard(stream)
            path.unlink(missing_ok=True)  # while it is locked: nobody else can have begun to use it
            stream.close()


def try_lock(stream: BinaryIO) -> bool:
    """Locks an open file, unless another process has; the lock ends when the file is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
    return True


def _acquired(path: Path) -> BinaryIO | None:
    """The locked file, or None if another process holds it."""
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        stream = cast(BinaryIO, os.fdopen(opened, "r+b", buffering=0))
        if not try_lock(stream):
            stream.close()
            return None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(opened)):
            return stream
        stream.close()  # its holder removed it just now


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        return ""


@cache
def _close_in_forked_children() -> None:
    """Keeps forked children from holding the lock of a parent that is killed."""

    def close() -> None:
        for stream in _held:
            stream.close()
        _held.clear()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)
