"""What is done with each recording of an archive: a model, its settings, and the rows that come of a path.

Conventions: an analysis can be pickled, and is what every worker holds, whatever runs the workers. A
recording that cannot be read has a row in ``files/`` with its error, and no others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.batch.tables import (
    FILES,
    Kind,
    Row,
    TableInfo,
    embedding_rows,
    event_rows,
    file_row,
    schema,
    tag_rows,
)
from earmark.errors import EarmarkError, contained
from earmark.events.options import EventOptions
from earmark.hub import registry
from earmark.inference.lengths import WindowLength
from earmark.inference.result import Result, Threshold
from earmark.inference.tagger import Tagger
from earmark.version import __version__

if TYPE_CHECKING:
    import pyarrow

Rows = Mapping[str, Sequence[Row]]
"""Table -> rows of one recording."""

_PACKAGES = ("numpy", "onnxruntime", "openvino", "av", "soxr", "pyarrow")


@dataclass(frozen=True)
class Filter:
    """Which tags are kept; as the arguments of :meth:`earmark.Result.filter`."""

    labels: tuple[str, ...] | None = None
    rollup: bool = False
    threshold: Threshold | None = None
    top: int | None = None

    def apply(self, result: Result) -> Result:
        """Returns the result with the tags that are kept."""
        return result.filter(self.labels, rollup=self.rollup, threshold=self.threshold, top=self.top)


@dataclass(frozen=True)
class Analysis:
    """What is done with each recording.

    Args:
        tagger: The model; for several workers opened with one thread.
        kind: What is written besides ``files/``.
        window_s: As for :meth:`earmark.Tagger.tag`.
        hop_s: As for :meth:`earmark.Tagger.tag`.
        filter: For "tags" and "events": which are kept.
        events: For "events": how they are detected.
        by_window: For "embeddings": whether each window has a row, not each recording.
        more_settings: Other settings that the rows depend on, such as the engine; JSON values.
    """

    tagger: Tagger
    kind: Kind = "tags"
    window_s: WindowLength = None
    hop_s: float | None = None
    filter: Filter = Filter()
    events: EventOptions | None = None
    by_window: bool = False
    more_settings: Mapping[str, Any] | None = None

    def __call__(self, path: str) -> Rows:
        """Returns the rows of a recording."""
        found = _state(path)
        try:
            result = self.tagger.tag(path, window_s=self.window_s, hop_s=self.hop_s)
            rows = self._rows(path, result)
        except Exception as error:
            return self.failed(path, contained(error, path), found)
        return {self.kind: rows, FILES: [file_row(path, result, result.model, found)]}

    def failed(self, path: str, error: EarmarkError, found: os.stat_result | None = None) -> Rows:
        """Returns the rows of a recording that could not be read."""
        row = file_row(path, error, self.tagger.info.name, found or _state(path))
        return {self.kind: [], FILES: [row]}

    def schemas(self) -> dict[str, pyarrow.Schema]:
        """Table -> its Arrow schema, that of the recordings last.

        Raises:
            MissingExtraError: If pyarrow is not installed.
        """
        tables = (self.kind, FILES)
        return {table: schema(table, self.info, self.tagger.info.embedding_size) for table in tables}

    @property
    def info(self) -> TableInfo:
        """The metadata of the tables."""
        model = self.tagger.info
        settings: dict[str, Any] = {
            "window_s": model.window_s if self.window_s is None else self.window_s,
            "hop_s": self.hop_s,
        }
        if self.kind == "embeddings":
            settings["by_window"] = self.by_window
        else:
            settings |= {"calibrated": model.calibration is not None, **asdict(self.filter)}
        if self.events is not None:
            settings["events"] = asdict(self.events)
        versions = {"earmark": __version__} | {name: _version(name) for name in _PACKAGES}
        known = {name: number for name, number in versions.items() if number}
        return TableInfo(self.kind, model.name, {**settings, **(self.more_settings or {})}, known)

    def _rows(self, path: str, result: Result) -> list[Row]:
        if self.kind == "embeddings":
            if not self.by_window:
                return embedding_rows(path, [(0.0, result.windows[-1].end_s)], result.embedding[None])
            spans = [(window.start_s, window.end_s) for window in result.windows]
            return embedding_rows(path, spans, [window.embedding for window in result.windows])
        result = self.filter.apply(result)
        if self.kind == "tags":
            return tag_rows(path, result.tags)
        return event_rows(path, result.events(options=self.events))


def model_digests(models: Sequence[str | os.PathLike[str]] | None) -> list[str]:
    """SHA-256 of the files of models, by name or path; None: of the default model."""
    digests = []
    for path in [registry.find(model) for model in models] if models else [registry.find()]:
        with Path(path).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests


def _state(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return ""
