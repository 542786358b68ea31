"""Events as text: a table to read; JSON, JSON lines and CSV for programs; formats of annotation tools.

Conventions: times are seconds from the start of the recording; where it is known when a recording started,
JSON and CSV have the time of day too.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from earmark.errors import ModelError
from earmark.events.annotation_formats import audacity, label_studio, raven, rttm, textgrid, webvtt
from earmark.events.layout import Format, Layout

if TYPE_CHECKING:
    from earmark.events.event import RecordingEvents

COLUMNS = ("path", "label", "start_s", "end_s", "peak", "mean", "resolution_s", "calibrated")
TIME_COLUMNS = ("start_time", "end_time")


def event_layout(form: Format, *, times: bool = False) -> Layout[RecordingEvents]:
    """Returns the layout of a format, for one text.

    Args:
        form: Any format but "table", which is for terminals, and "parquet", which is not text.
        times: Whether the times of day are written, where the format has a place for them.

    Raises:
        ModelError: If the format is another one.
    """
    layouts: dict[Format, Callable[[], Layout[RecordingEvents]]] = {
        Format.JSON: lambda: Layout("[", ",\n ", "]\n", _json, ".json"),
        Format.JSONL: lambda: Layout("", "", "", lambda found: _json(found) + "\n", ".jsonl"),
        Format.CSV: lambda: _csv(times),
        Format.AUDACITY: audacity,
        Format.RAVEN: lambda: raven(times),
        Format.RTTM: rttm,
        Format.WEBVTT: webvtt,
        Format.TEXTGRID: textgrid,
        Format.LABEL_STUDIO: label_studio,
    }
    if form not in layouts:
        raise ModelError(f"format must be one of {', '.join(layouts)}, got {form}")
    return layouts[form]()


def _json(found: RecordingEvents) -> str:
    return json.dumps(found.to_dict(), ensure_ascii=False)


def _csv(times: bool) -> Layout[RecordingEvents]:
    def render(found: RecordingEvents) -> str:
        return csv_rows(_cells(found, times))

    return Layout(csv_rows([COLUMNS + TIME_COLUMNS if times else COLUMNS]), "", "", render, ".csv")


def _cells(found: RecordingEvents, times: bool) -> Iterator[Sequence[str]]:
    path, calibrated = found.recording.path or "", str(found.recording.calibrated).lower()
    for event in found.events:
        span = (event.start_s, event.end_s)
        yield (
            path,
            event.label,
            *(f"{position_s:.3f}" for position_s in span),
            *(f"{score:.4f}" for score in (event.peak, event.mean)),
            f"{event.resolution_s:.3f}",
            calibrated,
            *(found.time_at(position_s) or "" for position_s in span if times),
        )


def csv_rows(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV with line feeds."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
