"""Reads events from the files that earmark writes: CSV, JSON lines, Parquet, and folders of tables.

Conventions: the format is that of the suffix: .csv, .jsonl or .parquet; a folder has the Parquet files of a
table, or a subfolder ``events`` that has.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from earmark.errors import DataError, extra
from earmark.events.event import Event
from earmark.model_file.strict_json import parse_json
from earmark.model_file.tables import read_table, read_text

COLUMNS = ("path", "label", "start_s", "end_s")
"""What is needed; ``peak`` (or ``score``), ``mean`` and ``resolution_s`` are read if they are there."""
Place = tuple[str, Mapping[str, Any]]
"""Where a row is from, for messages, and its values."""


def read_events(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Reads events.

    Args:
        path: A file of ``earmark tag --events`` in the format csv, jsonl or parquet, or a folder of tables.

    Returns:
        Path of each recording -> its events, in the order of the file.

    Raises:
        DataError: If the file cannot be read, or lacks a column or value.
        MissingExtraError: If pyarrow is needed and not installed.
    """
    source = Path(path)
    if source.is_dir():
        rows = _parquet_rows(source / "events" if (source / "events").is_dir() else source)
    elif source.suffix not in _READERS:
        raise DataError(f"{source}: events are read from {', '.join(_READERS)}, or a folder of tables")
    else:
        rows = _READERS[source.suffix](source)
    found: dict[str, list[Event]] = {}
    for place, row in rows:
        found.setdefault(str(row["path"]), []).append(_event(row, place))
    return found


def _csv_rows(path: Path) -> Iterator[Place]:
    for line, row in read_table(path, COLUMNS, what="the table of events"):
        yield f"{path}, line {line}", row


def _jsonl_rows(path: Path) -> Iterator[Place]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            recording = parse_json(line)
        except ValueError as error:
            raise DataError(f"{place}: is not JSON ({error})") from None
        if not isinstance(recording, dict) or not isinstance(recording.get("events"), list):
            raise DataError(f"{place}: has no list of events: write it with earmark tag --events -f jsonl")
        for event in recording["events"]:
            yield from _complete([{**event, "path": recording.get("path")}], place)


def _parquet_rows(path: Path) -> Iterator[Place]:
    with extra("reading Parquet", "parquet"):
        import pyarrow
        from pyarrow import parquet
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    return _complete(rows, str(path))


def _complete(rows: Iterable[Mapping[str, Any]], place: str) -> Iterator[Place]:
    for row in rows:
        missing = [column for column in COLUMNS if row.get(column) is None]
        if missing:
            raise DataError(f"{place}: an event lacks {', '.join(missing)}")
        yield place, row


_READERS = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}


def _event(row: Mapping[str, Any], place: str) -> Event:
    peak = row.get("peak", row.get("score", 1.0))
    numbers = (row["start_s"], row["end_s"], peak, row.get("mean", peak), row.get("resolution_s", 0.0))
    try:
        start_s, end_s, peak, mean, resolution_s = map(float, numbers)
    except (TypeError, ValueError):
        raise DataError(f"{place}: times and scores must be numbers, got {numbers}") from None
    if not (0 <= start_s < end_s and math.isfinite(end_s)):
        raise DataError(f"{place}: an event must end after its start, got {start_s:g} to {end_s:g} s")
    return Event(str(row["label"]), start_s, end_s, peak, mean, resolution_s)
