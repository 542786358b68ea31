"""Files and folders -> the recordings in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from earmark.errors import AudioError

SUFFIXES = frozenset(
    {
        ".aif",
        ".aifc",
        ".aiff",
        ".au",
        ".caf",
        ".flac",
        ".mp2",
        ".mp3",
        ".oga",
        ".ogg",
        ".opus",
        ".rf64",
        ".snd",
    }
    | {
        ".w64",
        ".wav",
        ".wave",
        ".aac",
        ".ac3",
        ".amr",
        ".ape",
        ".m4a",
        ".m4b",
        ".mka",
        ".mkv",
        ".mov",
        ".mp4",
    }
    | {".weba", ".webm", ".wma", ".wv"}
)
"""Of the files that are taken from a folder; a file that is named itself may be called anything."""


def find_recordings(
    paths: Iterable[str | os.PathLike[str]], recursive: bool = False
) -> Iterator[str | AudioError]:
    """Lists recordings: each path itself, or where it is a folder the recordings in it, by name.

    Args:
        paths: Files, folders, or "-".
        recursive: Whether folders within folders are searched too; hidden ones are not.

    Yields:
        A path, or the error that a folder holds no recording.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield os.fspath(path)
            continue
        found = list(_in_folder(Path(path), recursive))
        yield from map(os.fspath, found)
        if not found:
            advice = "" if recursive else " (--recursive searches the folders within)"
            yield AudioError(f"{os.fspath(path)}: the folder holds no recordings{advice}")


def _in_folder(folder: Path, recursive: bool) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if recursive:
                yield from _in_folder(entry, recursive)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry
