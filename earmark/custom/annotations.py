"""Reads annotations beside long recordings: Audacity's label tables and Raven's selection tables.

Conventions: the table of ``day1.wav`` is ``day1.txt`` (Audacity: start, end and label, separated by tabs) or
``day1.Table.1.selections.txt`` (Raven); times are seconds from the start of the recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from earmark.audio.find import SUFFIXES
from earmark.errors import DataError
from earmark.model_file.tables import read_table, read_text

Region = tuple[float, float, str]
"""Start and end in seconds, and the label."""
_BEGIN, _END = "Begin Time (s)", "End Time (s)"
_RAVEN_LABELS = ("Annotation", "Label", "Species", "Common Name", "Tags", "Class", "Type", "ID")


def annotated_recordings(folder: Path) -> list[tuple[Path, Path]]:
    """Lists the recordings of a folder that have tables beside them, each with a table.

    Args:
        folder: Is not searched for subfolders.
    """
    names = sorted(entry for entry in folder.iterdir() if entry.is_file() and entry.name[0] != ".")
    tables = [path for path in names if path.suffix.lower() == ".txt"]
    recordings = [path for path in names if path.suffix.lower() in SUFFIXES]
    return [
        (recording, table)
        for recording in recordings
        for table in tables
        if table.name == f"{recording.stem}.txt" or table.name.startswith((f"{recording.stem}.Table",))
    ]


def read_regions(table: Path) -> Iterator[Region]:
    """Reads the regions of a table.

    Args:
        table: Of Audacity or Raven.

    Raises:
        DataError: If it is neither, or a time is no number.
    """
    first = next((line for line in read_text(table).splitlines() if line.strip()), "")
    return _raven(table) if _BEGIN in first else _audacity(table)


def _audacity(table: Path) -> Iterator[Region]:
    for number, line in enumerate(read_text(table).splitlines(), start=1):
        if not line.strip() or line.startswith("\\"):  # a backslash: frequencies of the label before it
            continue
        parts = line.split("\t")
        if len(parts) < 3:
            raise DataError(
                f"{table}, line {number}: expected start, end and label, separated by tabs, got {line[:40]!r}"
            )
        yield _number(table, number, parts[0]), _number(table, number, parts[1]), parts[2]


def _raven(table: Path) -> Iterator[Region]:
    rows = read_table(table, (_BEGIN, _END), what="the selection table", delimiter="\t")
    seen: set[Region] = set()
    for line, row in rows:
        column = next((name for name in _RAVEN_LABELS if name in row), None)
        if column is None:
            raise DataError(f"{table}: needs a column {' or '.join(_RAVEN_LABELS)} for labels")
        region = _number(table, line, row[_BEGIN]), _number(table, line, row[_END]), row[column]
        if region not in seen:  # Raven lists a selection once for each of its views
            seen.add(region)
            yield region


def _number(table: Path, line: int, text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = float("nan")
    if not isfinite(value) or value < 0:
        raise DataError(f"{table}, line {line}: {text!r} is no time in seconds")
    return value
