"""Recordings at an address, such as ``s3://bucket/street.wav``, opened and listed through fsspec.

Conventions: an address is a scheme, ``://`` and a path. fsspec chooses the package for the scheme, which
reads its usual credentials and retries as it is configured to. A recording is read in blocks as it is
decoded, of which a few are kept; it is never held as a whole.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from earmark.errors import AudioError, extra, first_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BLOCK_BYTES = 1 << 20
BLOCKS_KEPT = 8

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_GLOB = re.compile(r"[*?\[]")


def is_remote(path: str) -> bool:
    """Whether a path is an address."""
    return _ADDRESS.match(path) is not None


def filesystem_of(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it.

    Raises:
        MissingExtraError: If fsspec is not installed.
        OSError: If no installed package handles the scheme.
    """
    with extra(f"reading {address.partition('://')[0]}:// addresses", "remote"):
        from fsspec.core import url_to_fs
    with _system_errors():
        found: tuple[AbstractFileSystem, str] = url_to_fs(address)
    return found


def open_remote(address: str, resources: ExitStack) -> BinaryIO:
    """Opens the file at an address for reading; it can seek.

    Args:
        address: The address.
        resources: Closes it.

    Raises:
        MissingExtraError: If fsspec is not installed.
        OSError: If it cannot be opened.
    """
    filesystem, path = filesystem_of(address)
    with _system_errors():
        handle = filesystem.open(
            path,
            "rb",
            block_size=BLOCK_BYTES,
            cache_type="blockcache",
            cache_options={"maxblocks": BLOCKS_KEPT},
        )
    resources.callback(handle.close)
    return cast(BinaryIO, _RemoteFile(handle))


def find_remote(address: str, recursive: bool, suffixes: Container[str]) -> Iterator[str | AudioError]:
    """Lists the recordings at an address: a file as given, those of a folder, or the matches of a pattern.

    Args:
        address: The address; may have ``*``, ``?`` and ``[...]``.
        recursive: Whether to list subfolders; hidden ones are skipped.
        suffixes: Those of recordings, in lower case.

    Yields:
        An address, or an AudioError if the folder cannot be listed.
    """
    if _suffix(address) in suffixes and not _GLOB.search(address):
        yield address
        return
    try:
        filesystem, path = filesystem_of(address)
        with _system_errors():
            if _GLOB.search(path):
                found = iter(sorted(filesystem.glob(path)))
            elif filesystem.isdir(path):
                found = _in_folder(filesystem, path, recursive, suffixes)
            else:
                yield address
                return
            for one in found:
                yield str(filesystem.unstrip_protocol(one))
    except OSError as error:
        yield AudioError(f"{address}: cannot be listed: {error.strerror or first_line(error)}")


class _RemoteFile:
    """A file of fsspec whose errors, of whatever package, are OSErrors."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _system_errors():
            return int(self._handle.seek(offset, whence))

    def read(self, count: int = -1) -> bytes:
        with _system_errors():
            return bytes(self._handle.read(count))


def _in_folder(
    filesystem: AbstractFileSystem, path: str, recursive: bool, suffixes: Container[str]
) -> Iterator[str]:
    for folder, _, names in filesystem.walk(path, maxdepth=None if recursive else 1):
        if any(part.startswith(".") for part in folder.removeprefix(path).split("/")):
            continue
        for name in sorted(names):
            if _suffix(name) in suffixes and not name.startswith("."):
                yield posixpath.join(folder, name)


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


@contextmanager
def _system_errors() -> Iterator[None]:
    """Packages for file systems raise errors of their own kinds, for instance if a bucket does not answer."""
    try:
        yield
    except (OSError, GeneratorExit):
        raise
    except Exception as error:
        raise OSError(errno.EIO, first_line(error)) from error
