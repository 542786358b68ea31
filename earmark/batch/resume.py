"""The folder of an archive: Parquet files, and the rows since the last of them, so that no run is lost.

Conventions: rows are appended to Arrow streams in the folder ``.unfinished`` as they come, those of the
recordings after those of what was found in them, and become a Parquet file of each table when there are
enough. A recording is done when its row in ``files/`` is in a stream or a Parquet file: a run that was killed
goes on from there. Parquet files are written whole or not at all, that of ``files/`` last; rows of other
tables that have none in ``files/`` are removed.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.batch.done_paths import DonePaths
from earmark.batch.tables import FILES, TABLES, Row, TableInfo, text_of_path, to_table
from earmark.errors import DataError, first_line
from earmark.model_file.atomic import atomic_writer, remove_partial
from earmark.model_file.lock import locked_folder

if TYPE_CHECKING:
    import pyarrow

UNFINISHED = ".unfinished"
SHARD_BYTES = 32 << 20
"""Size of the streams, uncompressed, that become one Parquet file of each table."""
GROUP = 64
GROUP_S = 0.25
"""Recordings, and seconds, after which rows are written to the streams."""


class Archive:
    """Writes the tables of an archive; :func:`open_archive` opens one.

    Args:
        folder: The folder.
        schemas: Table -> its Arrow schema; "files" last.

    Attributes:
        already_done: Number of recordings of earlier runs.
    """

    def __init__(self, folder: Path, schemas: Mapping[str, pyarrow.Schema]) -> None:
        self._folder, self._schemas = folder, schemas
        self._streams: dict[str, _Stream] = {}
        self._rows: dict[str, list[Row]] = {table: [] for table in schemas}
        self._written_at = time.monotonic()
        self._part = 0
        self._recover()
        self._done = DonePaths(self._paths())
        self.already_done = len(self._done)

    def is_done(self, path: str) -> bool:
        """Whether an earlier run has done a recording."""
        return text_of_path(path) in self._done

    def add(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Adds the rows of one recording.

        Args:
            rows: Table -> rows.

        Raises:
            OSError: If they cannot be written, for instance to a full disk; what was written before stays.
        """
        for table, added in rows.items():
            self._rows[table] += added
        if len(self._rows[FILES]) >= GROUP or time.monotonic() - self._written_at > GROUP_S:
            self._write()
            if sum(stream.size for stream in self._streams.values()) >= SHARD_BYTES:
                self._finish_part()

    def finish(self) -> None:
        """Writes all rows to Parquet files, and removes the streams.

        Raises:
            OSError: As :meth:`add`.
        """
        self._write()
        if self._streams:
            self._finish_part()
        for table, form in self._schemas.items():
            if not self._part:  # nothing at all was found: tables without rows can still be read
                self._write_parquet(table, form.empty_table())
        with suppress(OSError):
            (self._folder / UNFINISHED).rmdir()

    def close(self) -> None:
        """Keeps what was added, as far as it can be written, for a run that resumes this one."""
        with suppress(OSError):
            self._write()
        self._close_streams()

    def _write(self) -> None:
        """Writes the rows that were added to the streams."""
        if self._rows[FILES]:
            self._streams = self._streams or self._begun()
            for table, stream in self._streams.items():
                stream.write(to_table(self._rows[table], self._schemas[table]))
                self._rows[table] = []
        self._written_at = time.monotonic()

    def _close_streams(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self._streams = {}

    def _begun(self) -> dict[str, _Stream]:
        (self._folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
        return {table: _Stream(self._stream_path(table), form) for table, form in self._schemas.items()}

    def _finish_part(self) -> None:
        """The streams become a Parquet file of each table."""
        import pyarrow.compute

        self._close_streams()
        streams = {table: self._stream_path(table) for table in self._schemas}
        recordings = _read_stream(streams[FILES], self._schemas[FILES])
        done = recordings.column("path").combine_chunks()
        for table, stream in streams.items():
            if table != FILES:
                rows = _read_stream(stream, self._schemas[table])
                self._write_parquet(table, rows.filter(pyarrow.compute.is_in(rows.column("path"), done)))
        self._write_parquet(FILES, recordings)
        self._part += 1
        for stream in streams.values():
            stream.unlink(missing_ok=True)

    def _write_parquet(self, table: str, content: pyarrow.Table) -> None:
        from pyarrow import parquet

        with atomic_writer(self._part_path(table)) as stream:
            parquet.write_table(content, stream, compression="zstd")

    def _recover(self) -> None:
        """Completes what an earlier run left behind."""
        parts = _parts(self._folder / FILES)
        self._part = 1 + int(parts[-1].stem.removeprefix("part-")) if parts else 0
        for table in self._schemas:
            remove_partial(self._folder / table)
            self._part_path(table).unlink(missing_ok=True)  # its rows are still in the streams
        if self._stream_path(FILES).exists():
            self._finish_part()
        for left in (self._folder / UNFINISHED).glob("*.arrows"):
            left.unlink()

    def _paths(self) -> Iterator[str]:
        """Paths that are done, as the tables hold them."""
        from pyarrow import parquet

        for part in _parts(self._folder / FILES):
            for batch in parquet.ParquetFile(part).iter_batches(columns=["path"]):
                yield from batch.column(0).to_pylist()

    def _part_path(self, table: str) -> Path:
        return self._folder / table / f"part-{self._part:05}.parquet"

    def _stream_path(self, table: str) -> Path:
        return self._folder / UNFINISHED / f"{self._part:05}.{table}.arrows"


class _Stream:
    """An Arrow stream in a file; what cannot be written whole is not written.

    Args:
        path: The file, which must not exist.
        form: Schema of the rows.
    """

    def __init__(self, path: Path, form: pyarrow.Schema) -> None:
        import pyarrow

        self._path, self._buffer, self.size = path, io.BytesIO(), 0
        self._file = path.open("xb", buffering=0)
        self._writer = pyarrow.ipc.new_stream(self._buffer, form)

    def write(self, rows: pyarrow.Table) -> None:
        """Appends rows.

        Raises:
            OSError: Naming the file, if it cannot be written.
        """
        self._writer.write_table(rows)
        left = self._buffer.getbuffer()[:]
        size = len(left)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._file.truncate(self.size)
            raise type(error)(error.errno, error.strerror, str(self._path)) from None
        finally:
            left.release()
        self.size += size
        self._buffer.seek(0)
        self._buffer.truncate()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _read_stream(path: Path, form: pyarrow.Schema) -> pyarrow.Table:
    """The rows of a stream, of which the last may have been written in part."""
    import pyarrow

    batches = []
    with pyarrow.OSFile(str(path)) as file, suppress(pyarrow.ArrowException, OSError, StopIteration):
        reader = pyarrow.ipc.open_stream(file)
        while True:
            batches.append(reader.read_next_batch())
    return pyarrow.Table.from_batches([batch.cast(form) for batch in batches], form)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


@contextmanager
def open_archive(
    folder: Path, schemas: Mapping[str, pyarrow.Schema], *, resume: bool = False, force: bool = False
) -> Iterator[Archive]:
    """Opens the folder of an archive, which no other process may write to meanwhile.

    Args:
        folder: The folder; created if necessary.
        schemas: Table -> its Arrow schema, with the metadata of :class:`TableInfo`.
        resume: Go on with what is there.
        force: Remove the tables that are there.

    Raises:
        DataError: If there are tables and neither is asked for, they are of another model or other settings,
            they are damaged, or the folder is in use.
        OSError: If it cannot be written.
    """
    with locked_folder(folder):
        if force:
            _remove(folder)
        elif (found := _existing(folder)) is not None:
            if not resume:
                raise DataError(
                    f"{folder}: holds the tables of an earlier run: continue it with --resume, replace it "
                    "with --force, or choose another folder"
                )
            require_same(folder, found, TableInfo.from_metadata(schemas[FILES].metadata))
        archive = Archive(folder, schemas)
        try:
            yield archive
        finally:
            archive.close()


def _existing(folder: Path) -> TableInfo | None:
    """The metadata of the tables in a folder; None if it has none."""
    import pyarrow
    from pyarrow import parquet

    for path in (*_parts(folder / FILES), *sorted((folder / UNFINISHED).glob(f"*.{FILES}.arrows"))):
        try:
            if path.suffix == ".parquet":
                return TableInfo.from_metadata(parquet.read_schema(path).metadata or {})
            with pyarrow.OSFile(str(path)) as file:
                return TableInfo.from_metadata(pyarrow.ipc.open_stream(file).schema.metadata or {})
        except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
            if path.suffix == ".parquet":
                raise DataError(
                    f"{path}: is not a table of earmark, or damaged ({first_line(error)})"
                ) from None
    return None


def require_same(folder: Path | str, there: TableInfo, here: TableInfo) -> None:
    """Checks that rows of two runs belong into one archive."""
    before = {"kind": there.kind, "model": there.model, **there.settings}
    now = {"kind": here.kind, "model": here.model, **here.settings}
    different = [
        f"{name} was {before.get(name)}, is now {now.get(name)}"
        for name in (*now, *(set(before) - set(now)))
        if before.get(name) != now.get(name)
    ]
    if different:
        raise DataError(
            f"{folder}: cannot be resumed with other settings: {'; '.join(different)}: use the same ones, or "
            "choose another folder"
        )


def _remove(folder: Path) -> None:
    """Removes the tables of an archive, and nothing else."""
    for path in (folder / UNFINISHED).glob("*.arrows"):
        path.unlink()
    for table in TABLES:
        remove_partial(folder / table)
        for path in _parts(folder / table):
            path.unlink()
