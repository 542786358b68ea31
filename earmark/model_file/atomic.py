"""Writes files: regular ones completely or not at all, pipes and devices when all is done.

Conventions: every file that earmark writes goes through this module. A reader never sees a partial file; if
the program fails or is killed, the previous file is unchanged. Symbolic links are followed. What is not a
regular file (a pipe, a device, ``/dev/stdout``) is never replaced: the whole content is written into it.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from earmark.errors import DataError

FilePath = str | os.PathLike[str]

PARTIAL = ".partial"
"""Suffix of a file that is being written."""

_MAX_LINKS = 40


def remove_partial(folder: FilePath) -> None:
    """Removes unfinished files of killed programs from a folder; nothing may be writing to it."""
    for left in Path(folder).glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)


def require_other_files(outputs: Iterable[FilePath], inputs: Iterable[FilePath]) -> None:
    """Refuses outputs that are inputs too, under whatever name: a path, a link, a hard link.

    Args:
        outputs: Files that will be written; they need not exist.
        inputs: Files that are read; they need not exist.

    Raises:
        DataError: Naming the two.
    """
    written = {_identity(path): path for path in outputs}
    written.pop(None, None)
    for path in inputs:
        output = written.get(_identity(path))
        if output is not None:
            raise DataError(
                f"{os.fspath(output)}: the output is the input {os.fspath(path)}: choose another output"
            )


def _identity(path: FilePath) -> tuple[int, int] | None:
    """Device and number of a regular file; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


@contextmanager
def atomic_writer(path: FilePath) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces ``path`` when the block ends without an error.

    It lies in the same folder, and is synced to disk before it is renamed; the permissions of a file that it
    replaces are kept. If ``path`` is not a regular file, the content is copied into it instead.

    Args:
        path: The file; its folder is created if necessary.

    Yields:
        The open binary file, which can seek; its ``name`` is its temporary path.

    Raises:
        OSError: Naming ``path``, if it cannot be written, for instance to a full disk; the previous file is
            then unchanged.
    """
    try:
        special = _open_special(path)
        yield from _replaced(Path(os.path.realpath(path))) if special is None else _filled(special)
    except OSError as error:
        if error.errno is None or not (error.filename is None or str(error.filename).endswith(PARTIAL)):
            raise
        raise type(error)(error.errno, os.strerror(error.errno), os.fspath(path)) from None


def _replaced(target: Path) -> Iterator[BinaryIO]:
    """A temporary file that becomes the target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    handle, temporary = tempfile.mkstemp(PARTIAL, f".{target.name[:100]}.", target.parent)
    try:
        with open(temporary, "w+b") as stream:
            os.close(handle)
            yield cast(BinaryIO, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _filled(special: BinaryIO) -> Iterator[BinaryIO]:
    """A temporary file whose content goes into a pipe or a device."""
    with special, tempfile.NamedTemporaryFile(suffix=PARTIAL) as stream:
        yield cast(BinaryIO, stream)
        stream.seek(0)
        shutil.copyfileobj(stream, special)
        special.flush()


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or those of a new file."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _open_special(path: FilePath) -> BinaryIO | None:
    """Opens what must not be replaced: an open descriptor, a pipe, a device; None for all else."""
    descriptor = _descriptor(os.fspath(path))
    if descriptor is not None:
        return os.fdopen(os.dup(descriptor), "wb")
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        return None
    return os.fdopen(os.open(path, os.O_WRONLY), "wb")  # waits for the reader of a pipe


def _descriptor(path: str) -> int | None:
    """The number of the open file that a path such as ``/dev/stdout`` or ``/dev/fd/3`` stands for.

    Such a path must not be resolved to the name of that file: the program that opened it goes on using it.
    """
    own = {os.path.realpath(folder) for folder in ("/dev/fd", "/proc/self/fd")}
    for _ in range(_MAX_LINKS):
        folder, name = os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path)
        if folder in own and name.isdigit():
            return int(name)
        path = os.path.join(folder, name)
        if not name or not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def write_atomically(path: FilePath, content: bytes | str) -> None:
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
