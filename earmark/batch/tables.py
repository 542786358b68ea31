r"""The tables of an archive: Arrow schemas, their metadata, and the rows of a recording.

Conventions: an archive is a folder of Parquet files: ``files/`` with one row per recording, and one table of
what was found in them, ``tags/``, ``events/`` or ``embeddings/``, whose rows name their recording by
``path``, its key. Times are seconds from the start of the recording, scores float32 in [0, 1]. A path that is
not valid UTF-8 has its other bytes as ``\xff``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.errors import EarmarkError, extra
from earmark.events.event import Event
from earmark.model_file.strict_json import parse_json
from earmark.version import __version__

if TYPE_CHECKING:
    import pyarrow

Kind = Literal["tags", "events", "embeddings"]
"""What is written of each recording besides its row in ``files/``; also the name of that table."""
Row = dict[str, Any]

FILES = "files"
"""Name of the table of recordings."""
TABLES = ("tags", "events", "embeddings", FILES)
"""All tables; that of the recordings is written last."""
OK, FAILED = "ok", "failed"
"""Values of the column ``status``."""


class Outcome(Protocol):
    """What ``files/`` holds of a recording that was read; a :class:`earmark.Result` is one."""

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the recording in Hz."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Faults that did not prevent reading, one line each."""


class SpannedScore(Protocol):
    """A tag: a label, its score, and where it scores highest; a :class:`earmark.inference.result.Tag`."""

    @property
    def label(self) -> str:
        """Name of the class."""

    @property
    def score(self) -> float:
        """In [0, 1]."""

    @property
    def start_s(self) -> float:
        """Start in seconds."""

    @property
    def end_s(self) -> float:
        """End in seconds."""


@dataclass(frozen=True)
class TableInfo:
    """The metadata of every Parquet file of an archive.

    Args:
        kind: What is written of each recording.
        model: Name of the model.
        settings: What the rows depend on besides the recordings, JSON values: the model's hash, window, hop,
            filters. An archive has rows of one model and one group of settings only.
        versions: Package -> version that wrote the file.
    """

    kind: Kind
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=lambda: {"earmark": __version__})

    def to_metadata(self) -> dict[str, str]:
        """The metadata of an Arrow schema: texts; settings and versions are JSON objects."""
        return {
            "kind": self.kind,
            "model": self.model,
            "settings": json.dumps(dict(self.settings), sort_keys=True, ensure_ascii=False),
            "versions": json.dumps(dict(self.versions), sort_keys=True, ensure_ascii=False),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes]) -> TableInfo:
        """Reads the metadata of an Arrow schema.

        Raises:
            KeyError: If it is not that of an archive.
            ValueError: If it is damaged.
        """
        values: Any = {key: metadata[key.encode()].decode() for key in ("kind", "model")}
        parsed = {key: parse_json(metadata[key.encode()]) for key in ("settings", "versions")}
        return cls(**values, **parsed)


def schema(table: str, info: TableInfo, channels: int = 0) -> pyarrow.Schema:
    """The Arrow schema of a table.

    Args:
        table: "files", "tags", "events" or "embeddings".
        info: Becomes the schema's metadata.
        channels: Values of an embedding; for "embeddings" only.

    Raises:
        MissingExtraError: If pyarrow is not installed.
    """
    with extra("writing Parquet", "parquet"):
        import pyarrow

    text, seconds, score = pyarrow.string(), pyarrow.float64(), pyarrow.float32()
    path = pyarrow.field("path", text, nullable=False)
    span = [pyarrow.field(name, seconds, nullable=False) for name in ("start_s", "end_s")]
    label = pyarrow.field("label", text, nullable=False)
    columns = {
        FILES: [
            path,
            pyarrow.field("size", pyarrow.int64()),
            pyarrow.field("mtime", pyarrow.timestamp("us", tz="UTC")),
            pyarrow.field("duration_s", seconds),
            pyarrow.field("sample_rate", pyarrow.int32()),
            pyarrow.field("status", text, nullable=False),
            pyarrow.field("error", text),
            pyarrow.field("model", text, nullable=False),
            pyarrow.field("warnings", pyarrow.list_(text), nullable=False),
        ],
        "tags": [path, label, pyarrow.field("score", score, nullable=False), *span],
        "events": [
            path,
            label,
            *span,
            pyarrow.field("peak", score, nullable=False),
            pyarrow.field("mean", score, nullable=False),
            pyarrow.field("resolution_s", seconds),
        ],
        "embeddings": [path, *span, pyarrow.field("embedding", pyarrow.list_(score, channels or -1))],
    }
    return pyarrow.schema(columns[table], metadata=info.to_metadata())


def text_of_path(path: str | os.PathLike[str]) -> str:
    r"""A path as the tables hold it: valid UTF-8, its other bytes as ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def file_row(
    path: str | os.PathLike[str], outcome: Outcome | EarmarkError, model: str, found: os.stat_result | None
) -> Row:
    """The row of a recording in ``files/``.

    Args:
        path: Of the recording.
        outcome: What was read, or why it could not be.
        model: Name of the model.
        found: State of the file before it was read; None if it is not there or not a local file.
    """
    failed = isinstance(outcome, EarmarkError)
    return {
        "path": text_of_path(path),
        "size": found and found.st_size,
        "mtime": found and found.st_mtime_ns // 1000,
        "duration_s": None if isinstance(outcome, EarmarkError) else outcome.duration_s,
        "sample_rate": None if isinstance(outcome, EarmarkError) else outcome.sample_rate,
        "status": FAILED if failed else OK,
        "error": text_of_path(str(outcome)) if failed else None,
        "model": model,
        "warnings": [] if isinstance(outcome, EarmarkError) else list(map(text_of_path, outcome.warnings)),
    }


def tag_rows(path: str | os.PathLike[str], tags: Iterable[SpannedScore]) -> list[Row]:
    """The rows of a recording in ``tags/``."""
    text = text_of_path(path)
    return [
        {"path": text, "label": tag.label, "score": tag.score, "start_s": tag.start_s, "end_s": tag.end_s}
        for tag in tags
    ]


def event_rows(path: str | os.PathLike[str], events: Iterable[Event]) -> list[Row]:
    """The rows of a recording in ``events/``."""
    text = text_of_path(path)
    names = ("label", "start_s", "end_s", "peak", "mean", "resolution_s")
    return [{"path": text, **{name: getattr(event, name) for name in names}} for event in events]


def embedding_rows(
    path: str | os.PathLike[str], spans: Sequence[tuple[float, float]], vectors: Iterable[NDArray[np.float32]]
) -> list[Row]:
    """The rows of a recording in ``embeddings/``.

    Args:
        path: Of the recording.
        spans: Start and end of each row in seconds.
        vectors: One for each row, float32 (channel,).
    """
    text = text_of_path(path)
    return [
        {"path": text, "start_s": start_s, "end_s": end_s, "embedding": vector}
        for (start_s, end_s), vector in zip(spans, vectors, strict=True)
    ]


def to_table(rows: Sequence[Row], form: pyarrow.Schema) -> pyarrow.Table:
    """Rows as an Arrow table of a schema."""
    import pyarrow

    return pyarrow.Table.from_pylist(list(rows), schema=form)
