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
    from earmark.tagger import Result


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


def layout(form: Format, top: int | None, threshold: float | None, heard: float | None) -> Layout:
    """The layout of a format.

    Args:
        form: Which.
        top: At most so many tags of a recording; None: all.
        threshold: Only tags of at least this score; None: any.
        heard: The score from which the table marks a tag as heard; None: marks nothing.
    """
    if form is Format.JSON:
        return Layout("[", ",\n ", "]\n", lambda result: _json(result, top, threshold))
    if form is Format.JSONL:
        return Layout("", "", "", lambda result: _json(result, top, threshold) + "\n")
    if form is Format.CSV:
        head = _csv_rows([("path", "label", "score", "start_s", "end_s")])
        return Layout(head, "", "", lambda result: _csv(result, top, threshold))
    return Layout("", "\n", "", lambda result: _table(result, top, threshold, heard))


def _json(result: Result, top: int | None, threshold: float | None) -> str:
    return json.dumps(result.to_dict(top, threshold), ensure_ascii=False)


def _csv(result: Result, top: int | None, threshold: float | None) -> str:
    return _csv_rows(
        (result.path or "", tag.label, f"{tag.score:.4f}", f"{tag.start_s:.3f}", f"{tag.end_s:.3f}")
        for tag in result.chosen(top, threshold)
    )


def _csv_rows(rows: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def _table(result: Result, top: int | None, threshold: float | None, heard: float | None) -> str:
    tags = result.chosen(top, threshold)
    width = max((len(tag.label) for tag in tags), default=0)
    lines = [f"{result.path or 'samples'}  ({result.duration_s:.1f} s, {result.model})"]
    for tag in tags:
        mark = "*" if heard is not None and tag.score >= heard else " "
        lines.append(f" {mark} {tag.score:.3f}  {tag.label:<{width}}  {tag.start_s:.1f} - {tag.end_s:.1f} s")
    if heard is not None and not any(tag.score >= heard for tag in result.tags):
        lines.append(f"   no label here reaches the model's threshold of {heard:g}")
    return "\n".join(lines) + "\n"
