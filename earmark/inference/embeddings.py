"""Embeddings of recordings, and files of them: NumPy's npz, or Parquet.

Conventions: a file has one row per recording or per window, with ``path``, ``start_s``, ``end_s`` and
``embedding``; the row of a recording is the mean over its windows.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earmark.errors import DataError, extra
from earmark.inference.pooling import pool_windows
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    from earmark.inference.result import Result


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embeddings of one recording.

    Args:
        windows: One vector per window, float32, shape (window, channel).
        start_s: Start of each window in seconds, shape (window,).
        end_s: End of each window in seconds, shape (window,); of the last one, the end of the recording.
        model: Name of the model.
        warnings: Faults of the recording that did not prevent embedding, one line each.
        path: Path of the recording if it was a file.
    """

    windows: NDArray[np.float32]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    model: str
    warnings: tuple[str, ...] = ()
    path: str | None = None

    @classmethod
    def from_result(cls, result: Result) -> Embeddings:
        """Returns the embeddings of a result."""
        return cls(
            windows=np.stack([window.embedding for window in result.windows]),
            start_s=np.array([window.start_s for window in result.windows]),
            end_s=np.array([window.end_s for window in result.windows]),
            model=result.model,
            warnings=result.warnings,
            path=result.path,
        )

    @cached_property
    def clip(self) -> NDArray[np.float32]:
        """Embedding of the recording: the mean over its windows, float32 (channel,)."""
        return pool_windows(self.windows, "mean")


@dataclass(frozen=True, eq=False)
class _Table:
    """The columns of a file; ``embedding`` is (row, channel)."""

    path: list[str]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    embedding: NDArray[np.float32]
    model: str


def file_writer(path: str | os.PathLike[str]) -> Callable[[Sequence[Embeddings], bool], None]:
    """Returns a function that writes a file of embeddings, so that errors are raised before any work.

    Args:
        path: Ends in ".npz" (readable without pickle) or ".parquet".

    Returns:
        Takes embeddings, at least one, all of one model, and whether each window gets a row; writes the file,
        whole or not at all.

    Raises:
        DataError: If the path has another suffix.
        MissingExtraError: If pyarrow is needed and not installed.
    """
    target = Path(path)
    encoders = {".npz": _npz, ".parquet": _parquet}
    if target.suffix not in encoders:
        raise DataError(f"{target}: the file name must end in {' or '.join(encoders)}")
    if target.suffix == ".parquet":
        _require_pyarrow()

    def write(embeddings: Sequence[Embeddings], by_window: bool) -> None:
        write_atomically(target, encoders[target.suffix](_table(embeddings, by_window)))

    return write


def _table(found: Sequence[Embeddings], by_window: bool) -> _Table:
    paths = [one.path or "" for one in found]
    if by_window:
        repeated = [path for path, one in zip(paths, found, strict=True) for _ in one.start_s]
        starts, ends = (
            np.concatenate([getattr(one, name) for one in found]) for name in ("start_s", "end_s")
        )
        return _Table(repeated, starts, ends, np.concatenate([one.windows for one in found]), found[0].model)
    ends = np.array([one.end_s[-1] for one in found])
    return _Table(paths, np.zeros(len(found)), ends, np.stack([one.clip for one in found]), found[0].model)


def _npz(table: _Table) -> bytes:
    file = io.BytesIO()
    np.savez(
        file,
        path=np.array(table.path),
        start_s=table.start_s,
        end_s=table.end_s,
        embedding=table.embedding,
        model=np.array(table.model),
    )
    return file.getvalue()


def _parquet(table: _Table) -> bytes:
    import pyarrow
    from pyarrow import parquet

    values = pyarrow.array(table.embedding.ravel())
    columns = {
        # names that are not valid UTF-8 get replacement characters
        "path": [os.fsencode(path).decode("utf-8", "replace") for path in table.path],
        "start_s": table.start_s,
        "end_s": table.end_s,
        "embedding": pyarrow.FixedSizeListArray.from_arrays(values, table.embedding.shape[1]),
    }
    file = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns, metadata={"model": table.model}), file)
    return bytes(file.getvalue())


def _require_pyarrow() -> None:
    with extra("writing Parquet", "parquet"):
        import pyarrow  # noqa: F401
