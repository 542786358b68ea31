"""Results as text: a table to read; JSON, JSON lines and CSV for programs.

Conventions: a text is a head, one piece per result with a separator between them, and a tail, so that results
can be written as they come. The tags are those that :meth:`Result.filter` left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from earmark.events.formats import csv_rows
from earmark.events.layout import Format, Layout

if TYPE_CHECKING:
    from earmark.inference.result import Result


def layout(form: Format, width: int = 80, blocks: bool = True, windows: bool = False) -> Layout[Result]:
    """Returns the layout of a format of tags.

    Args:
        form: "table", "json", "jsonl" or "csv".
        width: Characters in a line of a table, at least 40.
        blocks: Whether a table uses block characters; else ASCII.
        windows: Whether a table has a line for each window, and CSV the tags of each window in place of those
            of the recording.
    """
    if form is Format.JSON:
        return Layout("[", ",\n ", "]\n", lambda result: result.to_json())
    if form is Format.JSONL:
        return Layout("", "", "", lambda result: result.to_json() + "\n")
    if form is Format.CSV:
        head = csv_rows([("path", "label", "score", "start_s", "end_s", "calibrated")])
        return Layout(head, "", "", _csv_of_windows if windows else _csv)
    from earmark.inference.table import table  # loads NumPy, whose threads a command sets before

    return Layout("", "\n", "", lambda result: table(result, width, blocks, windows))


def _csv(result: Result) -> str:
    path, calibrated = result.path or "", str(result.calibrated).lower()
    return csv_rows(
        (path, tag.label, f"{tag.score:.4f}", f"{tag.start_s:.3f}", f"{tag.end_s:.3f}", calibrated)
        for tag in result.tags
    )


def _csv_of_windows(result: Result) -> str:
    return "".join(_csv(replace(result, windows=(window,))) for window in result.windows)
