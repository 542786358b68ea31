"""Writes files whole or not at all.

Conventions: a reader never sees half a file; a killed run leaves the previous one as it was.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PARTIAL = ".partial"
"""What the name of a file that is being written ends in."""


def remove_partial(folder: str | os.PathLike[str]) -> None:
    """Removes what killed runs had begun to write into a folder; none may be running."""
    for left in Path(folder).glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Replaces a file by new content in one step: temporary file beside it, fsync, rename.

    Args:
        path: The file; its folder is made where it is missing.
        content: Bytes, or text to be written as UTF-8.

    Raises:
        OSError: If the folder cannot be written or the disk is full; the previous file is then untouched.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(PARTIAL, f".{target.name}.", target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
