"""Checks of the published layout of a corpus.

Conventions: a deviation is a DataError that names the file and what is expected there.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from earmark.data.manifest import Clip
from earmark.errors import DataError


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
    try:
        text = require(path, what).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    return [line for line in text.splitlines() if line.strip()]


def table(path: Path, columns: Sequence[str], what: str, delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a table with a header.

    Args:
        path: The file.
        columns: Required columns.
        what: Its content, for the error.
        delimiter: Between columns.

    Raises:
        DataError: If the file or a column is missing, or a row is too short.
    """
    reader = csv.DictReader(text_lines(path, what), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        rows = [{key: value or "" for key, value in row.items() if key is not None} for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not a table ({error})") from None
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path}: lacks the column {missing[0]!r}: required are {', '.join(columns)}, "
            f"it has {', '.join(reader.fieldnames or ()) or 'none'}"
        )
    for number, row in enumerate(rows, start=2):
        if not row[columns[0]]:
            raise DataError(f"{path}, line {number}: {columns[0]} is empty")
    return rows


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
    """Checks that the files of all clips exist, and returns the clips.

    Args:
        clips: Of a table.
        source: The table, for the error.

    Raises:
        DataError: If files are missing; the message counts them and names the first.
    """
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
