"""An approximate index beside an archive, for archives of millions of vectors.

Source: hierarchical navigable small worlds (Malkov and Yashunin, arXiv:1603.09320), by usearch.

Conventions: the index is the file ``embeddings.usearch`` in the archive's folder, with the state of the
Parquet files that it was built from beside it; it is rebuilt when they have changed. Its candidates are
ranked by their exact similarity.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.errors import DataError, extra, first_line
from earmark.model_file.atomic import atomic_writer, write_atomically
from earmark.search.archive import SPAN, EmbeddingArchive, to_matrix
from earmark.search.similar import Hit, best_hits, cosines, hits_of, unit_vector

INDEX, STATE = "embeddings.usearch", "embeddings.usearch.json"
OVERSAMPLING = 10
"""Candidates that the index is asked for, per hit: recordings have several rows, and it rounds to 16 bits."""


class EmbeddingIndex:
    """An approximate index of an archive; built on first use.

    Args:
        archive: A local folder.

    Raises:
        DataError: If the archive is not a local folder, or the index cannot be written.
        MissingExtraError: If usearch is not installed.
    """

    def __init__(self, archive: EmbeddingArchive) -> None:
        with extra("an index of embeddings", "search"):
            from usearch.index import Index
        if "://" in archive.path or not archive.is_folder:
            raise DataError(f"{archive.path}: an index needs a local folder of embeddings: search without it")
        self.archive = archive
        self._fragments = list(archive.data.get_fragments())
        self._ends = np.cumsum([fragment.count_rows() for fragment in self._fragments])
        folder = Path(archive.path)
        state = _state(self._fragments, archive.channels)
        if not _is_current(folder, state):
            _build(archive, folder / INDEX)
            write_atomically(folder / STATE, state)
        self._index: Any = Index.restore(os.fspath(folder / INDEX), view=True)
        if self._index is None or len(self._index) != self._rows:
            raise DataError(f"{folder / INDEX}: is damaged: delete it, it is built again")

    @property
    def _rows(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def most_similar(self, query: ArrayLike, top: int = 20, *, every_window: bool = False) -> list[Hit]:
        """Searches the archive approximately.

        Args:
            query: As for :func:`earmark.search.similar.most_similar`.
            top: Number of hits, at least 1.
            every_window: Count every row; default: only the best row of each recording.

        Returns:
            At most ``top`` hits with their exact similarities, the most similar first.

        Raises:
            DataError: As for :func:`earmark.search.similar.most_similar`.
        """
        unit = unit_vector(query, self.archive.channels)
        if top < 1:
            raise DataError(f"top must be at least 1, got {top}")
        count = min(self._rows, OVERSAMPLING * top)
        while True:
            keys = np.unique(self._index.search(unit, count).keys).astype(np.int64)
            hits = best_hits(self._exact(keys, unit), top, every_window)
            if len(hits) == top or count >= self._rows:
                return hits
            count = min(self._rows, OVERSAMPLING * count)

    def _exact(self, keys: NDArray[np.int64], unit: NDArray[np.float32]) -> list[Hit]:
        """The rows of these numbers as hits."""
        hits: list[Hit] = []
        owners = np.searchsorted(self._ends, keys, side="right")
        for owner in np.unique(owners):
            start = self._ends[owner - 1] if owner else 0
            rows = keys[owners == owner] - start
            table = self._fragments[owner].scanner(columns=[*SPAN, "embedding"]).take(rows)
            hits += hits_of(table, cosines(to_matrix(table["embedding"], self.archive.channels), unit))
        return hits


def _state(fragments: list[Any], channels: int) -> bytes:
    """The Parquet files of an archive as they are now."""
    found = [(os.path.basename(one.path), os.stat(one.path)) for one in fragments]
    files = [[name, state.st_size, state.st_mtime_ns] for name, state in found]
    return json.dumps({"channels": channels, "files": files}).encode()


def _is_current(folder: Path, state: bytes) -> bool:
    try:
        return (folder / STATE).read_bytes() == state and (folder / INDEX).is_file()
    except OSError:
        return False


def _build(archive: EmbeddingArchive, target: Path) -> None:
    """Writes the index of all rows, numbered in the order of the archive; rows of zeros and NaN too."""
    from usearch.index import Index

    index, rows = Index(ndim=archive.channels, metric="cos", dtype="f16"), 0
    for table, embeddings in archive.batches():
        index.add(np.arange(rows, rows + len(table)), np.nan_to_num(embeddings))
        rows += len(table)
    try:
        with atomic_writer(target) as file:
            index.save(file.name)
    except RuntimeError as error:
        raise DataError(f"{target}: cannot be written: {first_line(error)}") from None
