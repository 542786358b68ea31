"""Stored predictions of teachers: a file, a folder of shards, or the published file of the PaSST ensemble.

Conventions: a file is an uncompressed .npz of ``ids`` (clip,), ``answers`` float16 (clip, output) and
``heading`` (JSON); a folder holds such files, named ``shard_00000.npz`` and so on. Rows are found by clip id
and read from disk on demand. No pickle can run code. The file is long because three layouts share one reader.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from earmark.errors import DataError
from earmark.hub.predictions import published_predictions, pull_predictions
from earmark.model_file.info import Task
from earmark.model_file.labels import read_labels
from earmark.model_file.strict_json import parse_json
from earmark.training.distill.clip_index import read_index
from earmark.training.distill.losses import Kind

Floats = NDArray[np.float32]

SHARDS = "shard_*.npz"
"""Files of a folder that hold predictions."""
INDEX = "fname_to_index.pkl"
"""Name of the published index, next to the published predictions."""
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class PredictionsHeader:
    """Metadata of a file of predictions.

    Args:
        labels: One per column.
        kind: Logits or scores.
        task: Of the teacher, if known.
        teachers: Name and SHA-256 of each teacher.
        manifests: SHA-256 of the manifests of the clips.
        shard_clips: Clips per shard of a folder; None: one file holds all.
    """

    labels: tuple[str, ...]
    kind: Kind
    task: Task | None
    teachers: tuple[Mapping[str, str], ...]
    manifests: tuple[str, ...] = ()
    shard_clips: int | None = None

    def to_json(self) -> str:
        """Serialises the header."""
        return json.dumps({"version": 1, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> PredictionsHeader:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ValueError: If the text is not a header.
            TypeError: If it has other fields.
        """
        values = parse_json(text)
        if not isinstance(values, dict) or values.pop("version", None) != 1:
            raise ValueError("the header is of another version of earmark")
        for name in ("labels", "teachers", "manifests"):
            values[name] = tuple(values[name])
        if not values["labels"] or not all(isinstance(label, str) and label for label in values["labels"]):
            raise ValueError("its labels are not a list of names")
        if len(set(values["labels"])) != len(values["labels"]):
            raise ValueError("a label is repeated")
        if values.get("kind") not in ("logits", "scores"):
            raise ValueError("kind is neither logits nor scores")
        return cls(**values)


def serialize(header: PredictionsHeader, ids: Sequence[str], outputs: Floats) -> bytes:
    """The content of a file of predictions.

    Args:
        header: Its metadata.
        ids: Of the clips.
        outputs: Finite, (clip, output).
    """
    stream = io.BytesIO()
    np.savez(
        stream,
        allow_pickle=False,
        ids=np.array(ids, dtype=np.str_),
        answers=np.clip(outputs, -_LARGEST, _LARGEST).astype(np.float16),
        heading=np.array(header.to_json()),
    )
    return stream.getvalue()


def read_file(path: Path) -> tuple[PredictionsHeader, list[str], NDArray[np.floating[Any]]]:
    """Opens a file that :func:`serialize` made.

    Returns:
        Header, ids, and the outputs (clip, output), mapped from disk.

    Raises:
        DataError: If it cannot be read or is another kind of file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = PredictionsHeader.from_json(str(_read(path, archive, "heading.npy")))
            ids = _read(path, archive, "ids.npy")
            outputs = _mapped(path, archive, "answers.npy")
        if ids.ndim != 1 or ids.dtype.kind not in "US":
            raise ValueError("its ids are not a list of names")
    except (OSError, EOFError, ValueError, LookupError, TypeError, NotImplementedError, *_BROKEN) as error:
        raise DataError(
            f"{path}: is not a complete file of earmark teach ({error}): create it again"
        ) from None
    if outputs.shape != (len(ids), len(header.labels)):
        raise DataError(
            f"{path}: predictions have shape {outputs.shape}, not ({len(ids)}, {len(header.labels)}): create "
            "it again"
        )
    return header, list(map(str, ids)), outputs


_HEADER_ERRORS = (MemoryError, RecursionError, SyntaxError, tokenize.TokenError)
"""Errors of NumPy for headers that are no literal, or nested too deeply, besides ValueError."""
_BROKEN = (struct.error, zipfile.BadZipFile, zlib.error, RuntimeError)
"""Errors of damaged archives, with an encrypted one among them."""


class _Member(NamedTuple):
    """Where an array of an uncompressed archive lies, in bytes from the start of the file, and its type."""

    begin: int
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> _Member:
    """Finds an array of an archive, and checks that its header fits its length."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with archive.open(entry) as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        try:
            shape, fortran_order, dtype = read(stream)
        except _HEADER_ERRORS:
            raise ValueError(f"the header of {name} cannot be read") from None
        header = stream.tell()
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or entry.file_size != header + size:
        raise ValueError(f"{name} must have {size} bytes, as its header says, got {entry.file_size - header}")
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # lengths of name and extra field in the entry's own header
        names, further = struct.unpack("<HH", file.read(4))
    return _Member(entry.header_offset + 30 + names + further + header, shape, fortran_order, dtype)


def _read(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """A small array, read whole and checked by the archive's checksum."""
    dtype = _member(path, archive, name).dtype
    with archive.open(name) as stream:
        values = np.asarray(npy.read_array(stream, allow_pickle=False))
    if dtype.kind == "U" and values.size:  # NumPy does not check that these are characters
        codes = np.ravel(values).view(dtype.byteorder + "u4")
        if codes.max() > sys.maxunicode or ((codes >= 0xD800) & (codes < 0xE000)).any():
            raise ValueError(f"{name} is not valid Unicode")
    return values


def _mapped(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """An array, mapped into memory."""
    begin, shape, fortran_order, dtype = _member(path, archive, name)
    if dtype not in (np.float16, np.float32):
        raise ValueError(f"its predictions are {dtype}")
    # an array without rows cannot be mapped
    order: Literal["F", "C"] = "F" if fortran_order else "C"
    return np.memmap(path, dtype, "r", begin, shape, order) if all(shape) else np.zeros(shape, dtype)


class StoredPredictions:
    """Predictions of teachers, by clip id.

    Args:
        path: A file of :func:`serialize`, a folder of shards, or an .npy table of AudioSet's 527 classes.
        index: Of an .npy: pickle, JSON or CSV from clip to row (default: the published name, next to it).
        labels: Of an .npy: a label set or label file (default: "audioset").
        kind: Of an .npy (default: logits).

    Raises:
        DataError: If something is missing or damaged, or a clip is repeated.
    """

    def __init__(
        self, path: Path, *, index: Path | None = None, labels: str | None = None, kind: Kind | None = None
    ) -> None:
        self.path = path
        self.header: PredictionsHeader
        if path.suffix == ".npy":
            self._open_published(index or path.with_name(INDEX), labels or "audioset", kind or "logits")
        elif index or labels or kind:
            raise DataError(f"{path}: index, labels and kind apply to .npy files only: remove them")
        else:
            self._open_own()
        self._ends = np.cumsum([len(table) for table in self._tables])

    @classmethod
    def published(cls, name: str) -> StoredPredictions:
        """Opens published predictions, which are downloaded and checked on first use.

        Args:
            name: A name of :func:`earmark.hub.predictions.published_predictions`.

        Raises:
            ModelError: If they cannot be downloaded, or are not the published ones.
            DataError: If they are damaged.
        """
        table = pull_predictions(name)
        known = published_predictions()[name]
        index = table.with_name(known.index.name)
        return cls(table, index=index, labels=known.labels, kind=known.kind)

    def _open_own(self) -> None:
        files = sorted(self.path.glob(SHARDS)) if self.path.is_dir() else [self.path]
        if not files:
            raise DataError(f"{self.path}: holds no predictions ({SHARDS}): create them with earmark teach")
        self._tables, self._rows = [], dict[str, int]()
        for number, file in enumerate(files):
            header, ids, table = read_file(file)
            if number and header != self.header:
                raise DataError(f"{file}: does not match {files[0]}: create the folder again")
            self.header = header
            first = len(self._rows)
            self._rows |= {name: first + row for row, name in enumerate(ids)}
            if len(self._rows) != first + len(ids):
                raise DataError(f"{file}: repeats a clip of another file: create the folder again")
            self._tables.append(table)

    def _open_published(self, index: Path, labels: str, kind: Kind) -> None:
        try:
            table = np.lib.format.open_memmap(self.path, mode="r")
        except (OSError, ValueError, EOFError, OverflowError, *_HEADER_ERRORS) as error:
            raise DataError(
                f"{self.path}: is not a complete .npy file ({error}): download it again"
            ) from None
        names = read_labels(labels)
        expected = f"float16 or float32 of shape (clips, {len(names)})"
        if table.dtype not in (np.float16, np.float32) or table.shape != (len(table), len(names)):
            raise DataError(f"{self.path}: must hold {expected}, got {table.dtype} of shape {table.shape}")
        self._tables, self._rows = [table], read_index(index)
        outside = [name for name, row in self._rows.items() if not 0 <= row < len(table)]
        if outside:
            raise DataError(
                f"{index}: {len(outside)} of {len(self._rows)} rows, first {outside[0]!r}, exceed the "
                f"{len(table)} rows of {self.path}: it belongs to another file"
            )
        teacher = {"name": self.path.stem, "sha256": sha256_of([self.path])}
        self.header = PredictionsHeader(names, kind, "multi_label", (teacher,))

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._rows)

    def find(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """The row of each clip; -1 if it has none."""
        return np.array([self._rows.get(name, -1) for name in ids], np.int64)

    def read(self, rows: NDArray[np.int64]) -> Floats:
        """Outputs of rows from :meth:`find`: float32 (row, output), NaN where there is none.

        Raises:
            DataError: If one of them is NaN or infinite.
        """
        outputs = np.full((len(rows), len(self.header.labels)), np.nan, np.float32)
        for table, end in zip(self._tables, self._ends, strict=True):
            here = (rows >= end - len(table)) & (rows < end) & (rows >= 0)
            outputs[here] = table[rows[here] - (end - len(table))]
        if not np.isfinite(outputs[rows >= 0]).all():
            raise DataError(f"{self.path}: holds predictions that are NaN or infinite: create it again")
        return outputs

    def require_rows(self, ids: Sequence[str]) -> tuple[NDArray[np.int64], int]:
        """The row of each clip, and the number of clips without one.

        Raises:
            DataError: If no clip has one.
        """
        rows = self.find(ids)
        missing = int((rows < 0).sum())
        if ids and missing == len(ids):
            own = next(iter(self._rows), None)
            raise DataError(
                f"{self.path}: none of the run's {missing} clips is among the {len(self)} here (the "
                f"run's first clip is {ids[0]!r}, here it is {own!r}): it belongs to another corpus"
            )
        return rows, missing


def column_order(labels: Sequence[str], wanted: Sequence[str], teacher: str) -> list[int]:
    """The teacher's column of each label.

    Args:
        labels: The teacher's.
        wanted: The run's.
        teacher: Its name, for the message.

    Raises:
        DataError: If the two are not the same labels; the message counts them.
    """
    lacking = [label for label in wanted if label not in set(labels)]
    further = [label for label in labels if label not in set(wanted)]
    if lacking or further:
        parts = [
            f"{len(names)} of the {whose} {total} labels {state} ({', '.join(map(repr, names[:3]))})"
            for names, whose, total, state in (
                (lacking, "run's", len(wanted), "are not its own"),
                (further, "teacher's", len(labels), "are not the run's"),
            )
            if names
        ]
        raise DataError(
            f"{teacher}: {'; '.join(parts)}: distill_weight needs a teacher with the run's labels, "
            "imitation_weight takes any"
        )
    position = {label: column for column, label in enumerate(labels)}
    return [position[label] for label in wanted]


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256 of the concatenation of files."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
