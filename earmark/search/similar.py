"""Finds the rows of an archive whose embeddings are most similar to a given one.

    from earmark.search import EmbeddingArchive, most_similar

    query = earmark.load().embed("bark.wav").clip
    for hit in most_similar(query, EmbeddingArchive("results/"), top=20):
        print(hit.similarity, hit.path, hit.start_s)

Conventions: similarity is the cosine, in [-1, 1]. The search is exact, in one pass over the archive.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.errors import DataError
from earmark.search.archive import EmbeddingArchive, Filters

if TYPE_CHECKING:
    import pyarrow

Floats = NDArray[np.float32]


class Hit(NamedTuple):
    """A row that was found: cosine similarity, path of the recording, and span in seconds."""

    similarity: float
    path: str
    start_s: float
    end_s: float


def most_similar(
    query: ArrayLike,
    archive: EmbeddingArchive,
    top: int = 20,
    *,
    filters: Filters | None = None,
    every_window: bool = False,
) -> list[Hit]:
    """Searches an archive.

    Args:
        query: An embedding of the archive's model, shape (channel,).
        archive: The archive.
        top: Number of hits, at least 1.
        filters: Which rows to search; default: all.
        every_window: Count every row; default: only the best row of each recording.

    Returns:
        At most ``top`` hits, the most similar first, rows of equal similarity by path and time.

    Raises:
        DataError: If the query has another length than the embeddings or is not finite, ``top`` is below 1,
            or the archive cannot be read.
    """
    unit = unit_vector(query, archive.channels)
    if top < 1:
        raise DataError(f"top must be at least 1, got {top}")
    hits: list[Hit] = []
    for table, embeddings in archive.batches(filters):
        similarities = cosines(embeddings, unit)
        hits = best_hits([*hits, *_candidates(table, similarities, top, every_window)], top, every_window)
    return hits


def unit_vector(query: ArrayLike, channels: int) -> Floats:
    """A query scaled to length 1; zeros stay zeros.

    Raises:
        DataError: If it is not a finite vector of that length.
    """
    vector = np.asarray(query, np.float32)
    if vector.shape != (channels,):
        raise DataError(
            f"the query has the shape {vector.shape}, the archive's embeddings ({channels},): embed it with "
            "the archive's model"
        )
    if not np.isfinite(vector).all():
        raise DataError("the query has NaN or infinite values")
    norm = np.maximum(np.linalg.norm(vector), np.finfo(np.float32).tiny)
    return np.asarray(vector / norm, np.float32)


def cosines(embeddings: Floats, unit: Floats) -> Floats:
    """Cosine similarities of rows (row, channel) to a unit vector; -1 for rows that are not finite."""
    norms = np.maximum(np.linalg.norm(embeddings, axis=1), np.finfo(np.float32).tiny)
    found = (embeddings @ unit) / norms
    return np.where(np.isfinite(found), found, np.float32(-1)).clip(-1, 1)


def best_hits(hits: Iterable[Hit], top: int, every_window: bool) -> list[Hit]:
    """The best hits in order: of each recording the best row, or all rows."""
    ordered = sorted(hits, key=lambda hit: (-hit.similarity, hit.path, hit.start_s))
    if every_window:
        return ordered[:top]
    best: dict[str, Hit] = {}
    for hit in ordered:
        best.setdefault(hit.path, hit)
    return list(best.values())[:top]


def _candidates(table: pyarrow.Table, similarities: Floats, top: int, every_window: bool) -> list[Hit]:
    """The rows of a batch that may be among the hits."""
    if every_window and len(similarities) > top:
        rows = np.argpartition(-similarities, top - 1)[:top]
    elif every_window:
        rows = np.arange(len(similarities))
    else:
        rows = _best_of_recordings(table, similarities, top)
    return hits_of(table.take(rows), similarities[rows])


def _best_of_recordings(table: pyarrow.Table, similarities: Floats, top: int) -> NDArray[np.int64]:
    """The best row of each of the best recordings."""
    codes = table["path"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(-similarities, kind="stable")
    _, first = np.unique(codes[order], return_index=True)
    return np.asarray(order[np.sort(first)[:top]], np.int64)


def hits_of(table: pyarrow.Table, similarities: Iterable[float]) -> list[Hit]:
    """Rows with their similarities as hits."""
    columns = (table[name].to_pylist() for name in ("path", "start_s", "end_s"))
    return [
        Hit(float(score), *row) for score, row in zip(similarities, zip(*columns, strict=True), strict=True)
    ]
