"""Finds recordings in folders, in lists of paths, and by patterns.

Conventions: recordings in a folder are recognised by their suffix, and come in order of their names. Only
regular files are listed, and each folder once, whatever links lead to it. What cannot be listed is an item of
the listing, and does not end it. Lists and patterns are read as their paths are needed, so that they may have
millions; a pattern's matches come in the order of the file system.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from earmark.audio.formats import SUFFIXES
from earmark.audio.remote import find_remote, is_remote
from earmark.audio.sources import printable, reason
from earmark.errors import AudioError

__all__ = ["SUFFIXES", "find_recordings"]

LIST_SUFFIX = ".txt"
"""Suffix of a list of paths."""


def find_recordings(
    paths: Iterable[str | os.PathLike[str]], recursive: bool = False
) -> Iterator[str | AudioError]:
    """Lists recordings: files as given, and the recordings in folders.

    Args:
        paths: Files, folders, patterns (``yard/**/*.wav``) or "-"; lists, which are text files (.txt) with a
            path on each line; files, folders and patterns at addresses (``s3://bucket/yard/*.wav``).
        recursive: Whether to search subfolders; hidden ones are skipped.

    Yields:
        A path, or an AudioError for a folder or list that cannot be read or has no recordings, a pattern that
        nothing matches, and for a pipe, socket or device in a folder that has the name of a recording.
    """
    seen: set[tuple[int, int]] = set()
    for path in [os.fspath(path) for path in paths]:
        if _is_list(path):
            for line in _lines(path):
                yield from [line] if isinstance(line, AudioError) else _found(line, recursive, seen)
        else:
            yield from _found(path, recursive, seen)


def _is_list(path: str) -> bool:
    """Whether a file is a text of that suffix; a recording has zero bytes near its start."""
    if os.path.splitext(path)[1].lower() != LIST_SUFFIX or is_remote(path) or not os.path.isfile(path):
        return False
    with suppress(OSError), open(path, "rb") as file:
        return b"\0" not in file.read(4096)
    return False


def _lines(path: str) -> Iterator[str | AudioError]:
    """The lines of a list that are not empty."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            yield from filter(None, (line.rstrip("\n") for line in file))
    except OSError as error:
        yield AudioError(f"{printable(path)}: {reason(error)}")


def _found(path: str, recursive: bool, seen: set[tuple[int, int]]) -> Iterator[str | AudioError]:
    """The recordings of a file, folder, pattern or address."""
    if is_remote(path):
        yield from find_remote(path, recursive, SUFFIXES)
        return
    if os.path.isdir(path):
        found, nothing = _in_folder(path, recursive, seen), "no recordings in this folder"
        nothing += "" if recursive else " (--recursive searches subfolders)"
    elif glob.has_magic(path) and not os.path.lexists(path):
        found, nothing = _matches(path), "no recording matches this pattern"
    else:
        yield path
        return
    count = 0
    for count, item in enumerate(found, start=1):  # noqa: B007
        yield item
    if not count:
        yield AudioError(f"{printable(path)}: {nothing}")


def _matches(pattern: str) -> Iterator[str]:
    for path in glob.iglob(pattern, recursive=True):
        is_recording = os.path.splitext(path)[1].lower() in SUFFIXES
        if is_recording and not _is_special(path) and not os.path.isdir(path):
            yield path


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
