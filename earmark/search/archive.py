"""Reads the embeddings of an archive: Parquet files, filtered through Arrow.

    from earmark.search.archive import EmbeddingArchive

    archive = EmbeddingArchive("results/")
    for rows, embeddings in archive.batches():
        ...

Conventions: an archive is a folder that ``earmark embed`` wrote, or one Parquet file of embeddings; a path
with "://" is opened through fsspec. Rows are read in batches of a fixed size in bytes, so memory does not
grow with the archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import DataError, extra, first_line
from earmark.model_file.strict_json import parse_json
from earmark.search.conditions import Condition

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import dataset as arrow_dataset

Floats = NDArray[np.float32]

BATCH_BYTES = 32_000_000
"""Bytes of the embeddings that are read at once."""
SPAN = ("path", "start_s", "end_s")
"""Columns that name a row: a recording, and the part of it in seconds."""
LABEL_TABLES = ("tags", "events")


@dataclass(frozen=True)
class Filters:
    """Which rows of an archive to search.

    Args:
        labels: Keep rows that overlap a tag or event of one of these labels; empty: all rows.
        conditions: Keep rows that meet all of these.
        label_folder: Archive with the ``tags`` or ``events`` of the same recordings; "": the archive itself.
    """

    labels: Sequence[str] = ()
    conditions: Sequence[Condition] = ()
    label_folder: str = ""

    def __bool__(self) -> bool:
        return bool(self.labels or self.conditions)


class EmbeddingArchive:
    """The embeddings of many recordings.

    Args:
        path: A folder with the table ``embeddings``, or a Parquet file of embeddings.

    Attributes:
        path: As given.
        model: Name of the model that computed the embeddings.
        lengths: The window_s and hop_s, in seconds, that it was asked for.
        model_sha256: SHA-256 of the files of the model; empty if not known.
        channels: Length of an embedding.
        data: The Arrow dataset of the embeddings.

    Raises:
        DataError: If there are no embeddings, or they differ in length.
        MissingExtraError: If pyarrow is not installed, or fsspec where the path needs it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.is_folder = not self.path.endswith(".parquet")
        with _reading(self.path):
            self.data = _open(_joined(self.path, "embeddings") if self.is_folder else self.path)
            form = self.data.schema
            metadata: dict[bytes, bytes] = form.metadata or {}
            settings = parse_json(metadata.get(b"settings", b"{}"))
        missing = [name for name in (*SPAN, "embedding") if name not in form.names]
        if missing:
            raise DataError(f"{self.path}: has no column {missing[0]}: write it with earmark embed")
        size = getattr(form.field("embedding").type, "list_size", -1)
        if size < 1:
            raise DataError(f"{self.path}: embeddings must be lists of one length, of float32")
        self.channels: int = size
        self.model = metadata.get(b"model", b"").decode("utf-8", "replace")
        settings = settings if isinstance(settings, dict) else {}
        self.lengths = {name: settings.get(name) for name in ("window_s", "hop_s")}
        self.model_sha256: list[str] = settings.get("model_sha256") or []

    def batches(self, filters: Filters | None = None) -> Iterator[tuple[pyarrow.Table, Floats]]:
        """Reads the rows in their order.

        Args:
            filters: Which rows to read; default: all.

        Yields:
            The columns path, start_s and end_s, and the embeddings, float32, shape (row, channel).

        Raises:
            DataError: If a file cannot be read, or a filter needs a table or column that is not there.
        """
        import pyarrow

        filters = filters or Filters()
        with _reading(self.path):
            expression = self._expression(filters.conditions)
            labelled = self._labelled(filters)
            size = max(1, BATCH_BYTES // (4 * self.channels))
            columns = [*SPAN, "embedding"]
            for batch in self.data.to_batches(columns=columns, filter=expression, batch_size=size):
                table = pyarrow.Table.from_batches([batch])
                if labelled is not None:
                    table = _overlapping(table, labelled)
                if len(table):
                    yield table.select(SPAN), to_matrix(table["embedding"], self.channels)

    def _expression(self, conditions: Sequence[Condition]) -> Any:
        """The conditions as one Arrow expression over the columns of the embeddings; None: none."""
        from pyarrow import compute

        own = [one for one in conditions if one.column in SPAN]
        of_files = [one for one in conditions if one.column not in SPAN]
        expressions = [one.expression(self.data.schema) for one in own]
        if of_files:
            expressions.append(compute.field("path").isin(self._paths(of_files)))
        return _all(expressions)

    def _paths(self, conditions: Sequence[Condition]) -> pyarrow.Array:
        """Paths of the recordings that meet conditions on the columns of ``files``."""
        if not self.is_folder:
            columns = ", ".join(SPAN)
            raise DataError(
                f"{self.path}: one file has only the columns {columns}: --where needs one of them"
            )
        files = _open(_joined(self.path, "files"))
        for one in conditions:
            if one.column not in files.schema.names:
                known = ", ".join(dict.fromkeys([*SPAN, *files.schema.names]))
                raise DataError(f"{self.path}: has no column {one.column!r}: known are {known}")
        found = files.to_table(["path"], filter=_all([one.expression(files.schema) for one in conditions]))
        return found["path"].combine_chunks()

    def _labelled(self, filters: Filters) -> pyarrow.Table | None:
        """The spans of the wanted labels: path, label_start_s, label_end_s."""
        from pyarrow import compute

        if not filters.labels:
            return None
        folder = filters.label_folder or self.path
        name = next((name for name in LABEL_TABLES if _is_folder(_joined(folder, name))), None)
        if name is None:
            raise DataError(
                f"{folder}: has no tables {' or '.join(LABEL_TABLES)}: name the folder that earmark tag "
                "wrote of the same recordings (--tags)"
            )
        table = _open(_joined(folder, name))
        wanted = compute.field("label").isin(list(filters.labels))
        return table.to_table(list(SPAN), filter=wanted).rename_columns(
            ["path", "label_start_s", "label_end_s"]
        )


def to_matrix(column: Any, channels: int) -> Floats:
    """A column of lists of one length as float32, shape (row, channel)."""
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    chunks = getattr(array, "chunks", [array])
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate(values).astype(np.float32, copy=False).reshape(-1, channels)


def _overlapping(table: pyarrow.Table, labelled: pyarrow.Table) -> pyarrow.Table:
    """The rows of a table that overlap a span of their recording."""
    import pyarrow
    from pyarrow import compute

    numbered = table.select(SPAN).append_column("row", pyarrow.array(np.arange(len(table))))
    joined = numbered.join(labelled, "path", join_type="inner")
    before_end = compute.less(joined["start_s"], joined["label_end_s"])
    after_start = compute.greater(joined["end_s"], joined["label_start_s"])
    rows = compute.unique(joined.filter(compute.and_(before_end, after_start))["row"])
    return table.take(np.sort(rows.to_numpy()))


def _all(expressions: Sequence[Any]) -> Any:
    """The conjunction of Arrow expressions; None of none."""
    whole = None
    for one in expressions:
        whole = one if whole is None else whole & one
    return whole


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns Arrow's errors into one line that names the archive."""
    with extra("searching an archive", "search"):
        import pyarrow
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an archive of embeddings: {first_line(error)}") from None


def _open(path: str) -> arrow_dataset.Dataset:
    from pyarrow import dataset

    if "://" in path:
        with extra("reading from a bucket", "remote"):
            from fsspec.core import url_to_fs
        filesystem, path = url_to_fs(path)
        return dataset.dataset(path, format="parquet", filesystem=filesystem)
    return dataset.dataset(path, format="parquet")


def _is_folder(path: str) -> bool:
    if "://" in path:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(path)
        return bool(filesystem.isdir(path))
    return os.path.isdir(path)


def _joined(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
