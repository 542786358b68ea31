"""Checks of the published layout of a corpus.

Conventions: a deviation is a DataError that names the file and what is expected there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.model_file.tables import read_table, read_text


def require(path: Path, what: str) -> Path:
    """Checks that a file or folder exists.

    Args:
        path: Of the file or folder.
        what: Its content, for the error.

    Raises:
        DataError: If it is missing.
    """
    if not path.exists():
        raise DataError(f"{path}: is missing, expected {what}")
    return path


def require_one(folder: Path, names: Iterable[str], what: str) -> Path:
    """The first of some files or folders that exists; errors as :func:`require`."""
    names = list(names)
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder}: has no {' or '.join(names)}, expected {what}")


def text_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        DataError: If it is missing or not UTF-8.
    """
    return [line for line in read_text(require(path, what)).splitlines() if line.strip()]


def table(path: Path, columns: Sequence[str], what: str, delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a table with a header.

    Args:
        path: The file.
        columns: Required columns.
        what: Its content, for the error.
        delimiter: Between columns.

    Raises:
        DataError: If the file or a column is missing, or a row has another number of fields.
    """
    rows = read_table(require(path, what), columns, delimiter=delimiter, skip_blanks=True)
    for line, row in rows:
        if not row[columns[0]]:
            raise DataError(f"{path}, line {line}: {columns[0]} is empty")
    return [row for _, row in rows]


def integer(path: Path, text: str, column: str) -> int:
    """An integer of a table.

    Raises:
        DataError: If it is not an integer.
    """
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{path}: {column} {text!r} is not an integer") from None


def complete(clips: list[Clip], source: Path) -> list[Clip]:
    """Checks that each clip of a table is there once and has its file, and returns the clips.

    Args:
        clips: Of a table.
        source: The table, for the error.

    Raises:
        DataError: If a clip is repeated, or files are missing; the message counts them and names the first.
    """
    repeated = [path for path, count in Counter(clip.path for clip in clips).items() if count > 1]
    if repeated:
        raise DataError(f"{source}: {repeated[0].name} has several rows: each clip must have one")
    missing = absent(clips)
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of its {len(clips)} clips are missing, the first is "
            f"{missing[0].path}: unpack the corpus completely"
        )
    return clips


def absent(clips: Iterable[Clip]) -> list[Clip]:
    """Clips whose files do not exist; each folder is listed once."""
    listed: dict[Path, frozenset[str]] = {}
    missing = []
    for clip in clips:
        folder = clip.path.parent
        if folder not in listed:
            listed[folder] = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
        if clip.path.name not in listed[folder]:
            missing.append(clip)
    return missing


def known(labels: Iterable[str], classes: Collection[str], where: str) -> None:
    """Checks that labels are classes of a corpus.

    Raises:
        DataError: If one is not.
    """
    foreign = [label for label in labels if label not in classes]
    if foreign:
        raise DataError(
            f"{where}: label {foreign[0]!r} is not one of the {len(classes)} classes of this corpus"
        )
