"""Finds recordings in folders.

Conventions: recordings in a folder are recognised by their suffix, and come in order of their names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from earmark.errors import AudioError

# fmt: off
SUFFIXES = frozenset((
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b",
    ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".w64",
    ".wav", ".wave", ".weba", ".webm", ".wma", ".wv",
))
# fmt: on
"""Suffixes of files that are taken from folders; a file given by its own path may have any name."""


def find_recordings(
    paths: Iterable[str | os.PathLike[str]], recursive: bool = False
) -> Iterator[str | AudioError]:
    """Lists recordings: files as given, and the recordings in folders.

    Args:
        paths: Files, folders, or "-".
        recursive: Whether to search subfolders; hidden ones are skipped.

    Yields:
        A path, or an AudioError for a folder without recordings.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield os.fspath(path)
            continue
        found = list(_in_folder(Path(path), recursive))
        yield from map(os.fspath, found)
        if not found:
            advice = "" if recursive else " (--recursive searches subfolders)"
            yield AudioError(f"{os.fspath(path)}: no recordings in this folder{advice}")


def _in_folder(folder: Path, recursive: bool) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if recursive:
                yield from _in_folder(entry, recursive)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry
