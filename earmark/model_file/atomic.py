"""Writes files atomically: completely or not at all.

Conventions: a reader never sees a partial file; if the program is killed, the previous file is unchanged.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

PARTIAL = ".partial"
"""Suffix of a file that is being written."""


def remove_partial(folder: str | os.PathLike[str]) -> None:
    """Removes unfinished files of killed programs from a folder; nothing may be writing to it."""
    for left in Path(folder).glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)


@contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces ``path`` when the block ends without an error.

    It lies in the same folder; it is synced to disk before it is renamed.

    Args:
        path: The file; its folder is created if necessary.

    Yields:
        The open binary file; its ``name`` is its temporary path.

    Raises:
        OSError: If the folder is not writable or the disk is full; the previous file is then unchanged.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(PARTIAL, f".{target.name}.", target.parent)
    try:
        with open(temporary, "w+b") as stream:
            os.close(handle)
            yield cast(BinaryIO, stream)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes a file in one step.

    Args:
        path: The file; its folder is created if necessary.
        content: Bytes, or text to be encoded as UTF-8.

    Raises:
        OSError: As :func:`atomic_writer`.
    """
    with atomic_writer(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def write_all_atomically(contents: Mapping[Path, bytes | str]) -> None:
    """Writes several files that belong together; none is replaced before all have been written.

    Args:
        contents: Path -> bytes, or text to be encoded as UTF-8.

    Raises:
        OSError: As :func:`atomic_writer`.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            stream = stack.enter_context(atomic_writer(path))
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()  # a full disk is found here, before the first file is replaced
