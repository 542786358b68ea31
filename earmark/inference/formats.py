"""Results as text: a table for people; JSON, JSON lines and CSV for programs.

Conventions: a writer is made of a head, a piece for each result, what stands between pieces, and a tail, so
that long runs are written as they go.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark.inference.tagger import Limit, Result


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


@dataclass(frozen=True)
class Layout:
    """The parts of a format: ``head``, results with ``between``, ``tail``."""

    head: str
    between: str
    tail: str
    render: Callable[[Result], str]


def layout(form: Format, top: int | None, threshold: Limit | None) -> Layout:
    """The layout of a format.

    Args:
        form: Which.
        top: At most so many tags of a recording; None: all.
        threshold: Only tags of at least this score; "auto": the model's own; None: any.
    """
    if form is Format.JSON:
        return Layout("[", ",\n ", "]\n", lambda result: _json(result, top, threshold))
    if form is Format.JSONL:
        return Layout("", "", "", lambda result: _json(result, top, threshold) + "\n")
    if form is Format.CSV:
        head = _csv_rows([("path", "label", "score", "start_s", "end_s", "calibrated")])
        return Layout(head, "", "", lambda result: _csv(result, top, threshold))
    return Layout("", "\n", "", lambda result: _table(result, top, threshold))


def _json(result: Result, top: int | None, threshold: Limit | None) -> str:
    return json.dumps(result.to_dict(top, threshold), ensure_ascii=False)


def _csv(result: Result, top: int | None, threshold: Limit | None) -> str:
    path, calibrated = result.path or "", str(result.calibrated).lower()
    return _csv_rows(
        (path, tag.label, f"{tag.score:.4f}", f"{tag.start_s:.3f}", f"{tag.end_s:.3f}", calibrated)
        for tag in result.chosen(top, threshold)
    )


def _csv_rows(rows: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def _table(result: Result, top: int | None, threshold: Limit | None) -> str:
    """A star marks what reaches the model's own threshold."""
    tags, heard = result.chosen(top, threshold), {tag.label for tag in result.heard}
    width = max((len(tag.label) for tag in tags), default=0)
    meaning = ", probabilities" if result.calibrated else ""
    lines = [f"{result.path or 'samples'}  ({result.duration_s:.1f} s, {result.model}{meaning})"]
    for tag in tags:
        mark = "*" if tag.label in heard else " "
        lines.append(f" {mark} {tag.score:.3f}  {tag.label:<{width}}  {tag.start_s:.1f} - {tag.end_s:.1f} s")
    if result.thresholds is not None and not heard:
        alike = len(set(result.thresholds)) == 1
        which = f"the model's threshold of {result.thresholds[0]:g}" if alike else "its threshold"
        lines.append(f"   no label here reaches {which}")
    return "\n".join(lines) + "\n"
