"""The tables of an archive as files that are written once, on disks and in buckets.

Conventions: a Parquet file is written whole: to a bucket in one request, on a disk under another name first.
Rows of other tables belong to an archive only if ``files/`` has a file of the same name.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from earmark.audio.remote import filesystem_of, is_remote
from earmark.batch.analysis import Rows
from earmark.batch.tables import FILES, TABLES, TableInfo, to_table
from earmark.errors import DataError, first_line
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    import pyarrow


class PartFolder:
    """The folder of an archive whose parts are independent of each other.

    Args:
        folder: A local path, or an address that fsspec opens.

    Raises:
        MissingExtraError: If fsspec is needed and not installed.
        OSError: If no installed package handles the address.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        address = folder if is_remote(folder) else f"file://{os.path.abspath(folder)}"
        self._filesystem, self._root = filesystem_of(address)

    def write(self, part: str, rows: Rows, schemas: Mapping[str, pyarrow.Schema]) -> None:
        """Writes a Parquet file of each table, replacing those of the same name; that of the recordings last.

        Args:
            part: Name of the part.
            rows: Table -> rows.
            schemas: Table -> its schema, "files" last.
        """
        from pyarrow import parquet

        for table, form in schemas.items():
            content = io.BytesIO()
            parquet.write_table(to_table(rows[table], form), content, compression="zstd")
            path = self._path(table, part)
            if is_remote(self.folder):
                self._filesystem.pipe_file(path, content.getvalue())
            else:
                write_atomically(path, content.getvalue())

    def has(self, part: str) -> bool:
        """Whether a part is there."""
        return bool(self._filesystem.exists(self._path(FILES, part)))

    def parts(self, table: str = FILES) -> list[str]:
        """Names of the parts of a table."""
        root = f"{self._root}/{table}"
        if not self._filesystem.isdir(root):
            return []
        names = map(os.path.basename, self._filesystem.ls(root, detail=False))
        return sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))

    def remove(self, *, all_parts: bool) -> None:
        """Removes all parts, or those rows of other tables that have none in ``files/``."""
        kept = set() if all_parts else set(self.parts())
        for table in (FILES, *(table for table in TABLES if table != FILES)):
            for part in self.parts(table):
                if part not in kept:
                    self._filesystem.rm_file(self._path(table, part))

    def paths(self) -> Iterator[str]:
        """Paths of the recordings that are done, as the tables hold them."""
        from pyarrow import parquet

        for part in self.parts():
            with self._filesystem.open(self._path(FILES, part), "rb") as file:
                yield from parquet.read_table(file, columns=["path"])["path"].to_pylist()

    def info(self) -> TableInfo | None:
        """The metadata of the tables; None if there are none.

        Raises:
            DataError: If they are not those of an archive.
        """
        import pyarrow
        from pyarrow import parquet

        for part in self.parts()[:1]:
            try:
                with self._filesystem.open(self._path(FILES, part), "rb") as file:
                    return TableInfo.from_metadata(parquet.read_schema(file).metadata or {})
            except (pyarrow.ArrowException, KeyError, ValueError) as error:
                raise DataError(
                    f"{self.folder}: has tables that are not earmark's, or damaged ({first_line(error)})"
                ) from None
        return None

    def _path(self, table: str, part: str) -> str:
        return f"{self._root}/{table}/{part}.parquet"
