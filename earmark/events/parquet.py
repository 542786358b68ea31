r"""Events as a Parquet file: one row per event, written while recordings are processed.

Conventions: the columns are those of the CSV format; times of day are in UTC, to the millisecond, or null. A
path that is not valid UTF-8 has its other bytes as ``\xff``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO

from earmark.errors import extra

if TYPE_CHECKING:
    import pyarrow

    from earmark.events.event import RecordingEvents

ROWS = 10_000
"""Rows that are collected for a row group."""


def event_schema(model: str) -> pyarrow.Schema:
    """The Arrow schema of a file of events.

    Args:
        model: Name of the model, in the metadata.

    Raises:
        MissingExtraError: If pyarrow is not installed.
    """
    with extra("writing Parquet", "parquet"):
        import pyarrow

    text, seconds, score = pyarrow.string(), pyarrow.float64(), pyarrow.float32()
    columns = {"path": text, "label": text, "start_s": seconds, "end_s": seconds}
    columns |= {"peak": score, "mean": score, "resolution_s": seconds, "calibrated": pyarrow.bool_()}
    columns |= dict.fromkeys(("start_time", "end_time"), pyarrow.timestamp("ms", tz="UTC"))
    return pyarrow.schema(list(columns.items()), metadata={"model": model})


@contextmanager
def parquet_writer(stream: BinaryIO, model: str) -> Iterator[Callable[[RecordingEvents], None]]:
    """Writes a Parquet file of events into a stream.

    Args:
        stream: Open for writing.
        model: Name of the model.

    Yields:
        Takes the events of a recording.

    Raises:
        MissingExtraError: If pyarrow is not installed.
    """
    schema = event_schema(model)
    import pyarrow
    from pyarrow import parquet

    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(stream, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            rows.clear()

        def add(found: RecordingEvents) -> None:
            rows.extend(_rows(found))
            if len(rows) >= ROWS:
                flush()

        yield add
        flush()


def _rows(found: RecordingEvents) -> Iterator[dict[str, Any]]:
    path = os.fsencode(found.recording.path or "").decode("utf-8", "backslashreplace")
    start = found.recorded_at and found.recorded_at.astimezone(UTC)
    for event in found.events:
        yield {
            "path": path,
            "label": event.label,
            "start_s": event.start_s,
            "end_s": event.end_s,
            "peak": event.peak,
            "mean": event.mean,
            "resolution_s": event.resolution_s,
            "calibrated": found.recording.calibrated,
            "start_time": start and start + timedelta(seconds=event.start_s),
            "end_time": start and start + timedelta(seconds=event.end_s),
        }
