"""Writes files whole or not at all.

Conventions: a reader never sees half a file; a killed run leaves the previous one as it was.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

PARTIAL = ".partial"
"""What the name of a file that is being written ends in."""


def remove_partial(folder: str | os.PathLike[str]) -> None:
    """Removes what killed runs had begun to write into a folder; none may be running."""
    for left in Path(folder).glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to that becomes the named one when the block ends well: beside it, fsync, rename.

    Args:
        path: The file; its folder is made where it is missing.

    Yields:
        The open file; its ``name`` is where it lies meanwhile.

    Raises:
        OSError: If the folder cannot be written or the disk is full; the previous file is then untouched.
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
    """Replaces a file by new content in one step.

    Args:
        path: The file; its folder is made where it is missing.
        content: Bytes, or text to be written as UTF-8.

    Raises:
        OSError: As :func:`replacing`.
    """
    with replacing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def write_together(contents: Mapping[Path, bytes | str]) -> None:
    """Replaces several files that belong together: none before all of them lie on the disk.

    Args:
        contents: Bytes of each file, or text to be written as UTF-8.

    Raises:
        OSError: As :func:`replacing`.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            stream = stack.enter_context(replacing(path))
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()  # a full disk is found here, before the first file is replaced
