"""Formats of results and events, and texts that are written piece by piece.

Conventions: a text is a head, one piece per recording with a separator between them, and a tail, so that it
can be written while recordings are processed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Format(StrEnum):
    """Formats of tags (the first four) and of events (all)."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    AUDACITY = "audacity"
    RAVEN = "raven"
    RTTM = "rttm"
    WEBVTT = "webvtt"
    TEXTGRID = "textgrid"
    LABEL_STUDIO = "label-studio"


TAG_FORMATS = (Format.TABLE, Format.JSON, Format.JSONL, Format.CSV)
"""Formats of tags."""


@dataclass(frozen=True)
class Layout(Generic[Item]):
    """The parts of a text format, for one text: pieces may depend on those before them.

    Args:
        head: What the text begins with.
        between: What stands between two pieces.
        tail: What it ends with.
        render: The piece of an item, called once for each, in order.
        suffix: Of the names of its files.
        one_recording: Whether a text is about one recording, which it does not name.
    """

    head: str
    between: str
    tail: str
    render: Callable[[Item], str]
    suffix: str = ".txt"
    one_recording: bool = False
