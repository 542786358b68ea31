"""Finds recordings in folders.

Conventions: recordings in a folder are recognised by their suffix, and come in order of their names. Only
regular files are listed, and each folder once, whatever links lead to it. What cannot be listed is an item of
the listing, and does not end it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from earmark.audio.formats import SUFFIXES
from earmark.audio.remote import find_remote, is_remote
from earmark.audio.sources import printable, reason
from earmark.errors import AudioError

__all__ = ["SUFFIXES", "find_recordings"]


def find_recordings(
    paths: Iterable[str | os.PathLike[str]], recursive: bool = False
) -> Iterator[str | AudioError]:
    """Lists recordings: files as given, and the recordings in folders.

    Args:
        paths: Files, folders, or "-"; files, folders and patterns at addresses (``s3://bucket/yard/*.wav``).
        recursive: Whether to search subfolders; hidden ones are skipped.

    Yields:
        A path, or an AudioError for a folder that cannot be read or has no recordings, and for a pipe, socket
        or device in a folder that has the name of a recording.
    """
    seen: set[tuple[int, int]] = set()
    for path in [os.fspath(path) for path in paths]:
        if is_remote(path):
            yield from find_remote(path, recursive, SUFFIXES)
            continue
        if not os.path.isdir(path):
            yield path
            continue
        count = 0
        for count, item in enumerate(_in_folder(path, recursive, seen), start=1):  # noqa: B007
            yield item
        if not count:
            advice = "" if recursive else " (--recursive searches subfolders)"
            yield AudioError(f"{printable(path)}: no recordings in this folder{advice}")


def _in_folder(folder: str, recursive: bool, seen: set[tuple[int, int]]) -> Iterator[str | AudioError]:
    try:
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) in seen:
            return
        seen.add((found.st_dev, found.st_ino))
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield AudioError(f"{printable(folder)}: {reason(error)}")
        return
    for name in names:
        if name.startswith("."):
            continue
        path = os.path.join(folder, name)
        is_recording = os.path.splitext(name)[1].lower() in SUFFIXES
        if os.path.isdir(path):
            if recursive:
                yield from _in_folder(path, recursive, seen)
        elif is_recording and _is_special(path):
            yield AudioError(
                f"{printable(path)}: a pipe, socket or device, not a file: name it itself to read it"
            )
        elif is_recording:
            yield path


def _is_special(path: str) -> bool:
    """Whether a path leads to neither a regular file nor nothing; opening it reports the latter."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
