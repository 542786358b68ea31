"""Stored answers of teachers: one file, a folder of shards, or the published file of the PaSST ensemble.

Conventions: a file is an uncompressed .npz of ``ids`` (clip,), ``answers`` float16 (clip, output) and
``heading`` (JSON); of a folder, all files named like ``shard_00000.npz`` count. Rows are found by the clips'
ids and read from the disk when they are needed. No pickle can run code here.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from earmark.errors import DataError
from earmark.model_file.info import Task
from earmark.model_file.labels import read_labels
from earmark.training.distill.label_files import read_index
from earmark.training.distill.losses import Kind

Floats = NDArray[np.float32]

SHARDS = "shard_*.npz"
"""Files of a folder that hold answers."""
INDEX = "fname_to_index.pkl"
"""The published index, beside the published answers."""
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Heading:
    """What a file of answers says of itself.

    Args:
        labels: One per column.
        kind: What the numbers are.
        task: Of the teacher, where it is known.
        teachers: Name and SHA-256 of each teacher.
        manifests: SHA-256 of the tables whose clips were heard.
        shard_clips: Clips that were asked about for each file of a folder; None: one file holds all.
    """

    labels: tuple[str, ...]
    kind: Kind
    task: Task | None
    teachers: tuple[Mapping[str, str], ...]
    manifests: tuple[str, ...] = ()
    shard_clips: int | None = None

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps({"version": 1, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Heading:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ValueError: If the text is no heading.
            TypeError: If it has other fields.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.pop("version", None) != 1:
            raise ValueError("the heading is of another version of earmark")
        for name in ("labels", "teachers", "manifests"):
            values[name] = tuple(values[name])
        if len(set(values["labels"])) != len(values["labels"]):
            raise ValueError("two labels are alike")
        if values.get("kind") not in ("logits", "scores"):
            raise ValueError("the heading says neither logits nor scores")
        return cls(**values)


def packed(heading: Heading, ids: Sequence[str], answers: Floats) -> bytes:
    """The content of a file of answers.

    Args:
        heading: What the file says of itself.
        ids: Of the clips.
        answers: Finite, (clip, output).
    """
    stream = io.BytesIO()
    np.savez(
        stream,
        allow_pickle=False,
        ids=np.array(ids, dtype=np.str_),
        answers=np.clip(answers, -_LARGEST, _LARGEST).astype(np.float16),
        heading=np.array(heading.to_json()),
    )
    return stream.getvalue()


def read_file(path: Path) -> tuple[Heading, list[str], NDArray[np.floating[Any]]]:
    """Opens a file that holds what :func:`packed` made.

    Returns:
        Heading, ids, and the answers (clip, output), which stay on the disk until they are read.

    Raises:
        DataError: If it cannot be read, or is something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            heading = Heading.from_json(str(_read(archive, "heading.npy")))
            ids = [str(name) for name in _read(archive, "ids.npy")]
        answers = _mapped(path, "answers.npy")
    except (OSError, EOFError, ValueError, LookupError, TypeError, struct.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: is no whole file of answers as earmark teach writes them ({error}): make it again"
        ) from None
    if answers.shape != (len(ids), len(heading.labels)):
        raise DataError(
            f"{path}: answers of shape {answers.shape} for {len(ids)} clips and {len(heading.labels)} "
            "labels: make it again"
        )
    return heading, ids, answers


def _read(archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
    with archive.open(member) as stream:
        return np.asarray(npy.read_array(stream, allow_pickle=False))


def _mapped(path: Path, member: str) -> NDArray[Any]:
    """An array of an uncompressed archive, mapped into memory."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(member)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed")
        with archive.open(entry) as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(stream)
            header = stream.tell()
    if dtype not in (np.float16, np.float32):
        raise ValueError(f"its answers are {dtype}")
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # of the entry's own header: lengths of its name and extra field
        name, extra = struct.unpack("<HH", file.read(4))
    begin = entry.header_offset + 30 + name + extra + header
    # an array of no rows cannot be mapped
    return np.memmap(path, dtype, "r", begin, shape) if all(shape) else np.zeros(shape, dtype)


class StoredAnswers:
    """What teachers said of clips, by the clips' ids.

    Args:
        path: A file of :func:`packed`, a folder of shards, or an .npy of answers to AudioSet's 527 classes.
        index: Of an .npy: pickle, JSON or CSV from clip to row; by default the published name beside it.
        labels: Of an .npy: a label set's name or a file of names; by default "audioset".
        kind: Of an .npy; by default logits.

    Raises:
        DataError: If something is missing, damaged, not what it should be, or a clip is there twice.
    """

    def __init__(
        self, path: Path, *, index: Path | None = None, labels: str | None = None, kind: Kind | None = None
    ) -> None:
        self.path = path
        self.heading: Heading
        if path.suffix == ".npy":
            self._open_published(index or path.with_name(INDEX), labels or "audioset", kind or "logits")
        elif index or labels or kind:
            raise DataError(f"{path}: says itself what it holds: leave index, labels and kind out")
        else:
            self._open_own()
        self._ends = np.cumsum([len(table) for table in self._tables])

    def _open_own(self) -> None:
        files = sorted(self.path.glob(SHARDS)) if self.path.is_dir() else [self.path]
        if not files:
            raise DataError(f"{self.path}: holds no answers ({SHARDS}): make them with earmark teach")
        self._tables, self._rows = [], dict[str, int]()
        for number, file in enumerate(files):
            heading, ids, table = read_file(file)
            if number and heading != self.heading:
                raise DataError(f"{file}: holds other answers than {files[0]}: make the folder again")
            self.heading = heading
            first = len(self._rows)
            self._rows |= {name: first + row for row, name in enumerate(ids)}
            if len(self._rows) != first + len(ids):
                raise DataError(f"{file}: holds a clip that is there already: make the answers again")
            self._tables.append(table)

    def _open_published(self, index: Path, labels: str, kind: Kind) -> None:
        try:
            table = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{self.path}: is no whole .npy file ({error}): fetch it again") from None
        names = read_labels(labels)
        wanted = f"float16 or float32 of shape (clips, {len(names)})"
        if table.dtype not in (np.float16, np.float32) or table.shape != (len(table), len(names)):
            raise DataError(f"{self.path}: holds {table.dtype} of shape {table.shape}, not {wanted}")
        self._tables, self._rows = [table], read_index(index)
        outside = [name for name, row in self._rows.items() if not 0 <= row < len(table)]
        if outside:
            raise DataError(
                f"{index}: {len(outside)} of {len(self._rows)} rows, first that of {outside[0]!r}, lie "
                f"outside the {len(table)} of {self.path}: it belongs to another file"
            )
        teacher = {"name": self.path.stem, "sha256": sha256_of([self.path])}
        self.heading = Heading(names, kind, "multi_label", (teacher,))

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._rows)

    def find(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """The row of each clip; -1 where there is none."""
        return np.array([self._rows.get(name, -1) for name in ids], np.int64)

    def read(self, rows: NDArray[np.int64]) -> Floats:
        """Answers of rows as :meth:`find` gives them: float32 (row, output), NaN where there is none."""
        answers = np.full((len(rows), len(self.heading.labels)), np.nan, np.float32)
        for table, end in zip(self._tables, self._ends, strict=True):
            here = (rows >= end - len(table)) & (rows < end) & (rows >= 0)
            answers[here] = table[rows[here] - (end - len(table))]
        return answers

    def require_some(self, ids: Sequence[str]) -> tuple[NDArray[np.int64], int]:
        """The row of each clip, and how many clips have none.

        Raises:
            DataError: If none has one.
        """
        rows = self.find(ids)
        missing = int((rows < 0).sum())
        if ids and missing == len(ids):
            own = next(iter(self._rows), None)
            raise DataError(
                f"{self.path}: none of the run's {missing} clips is among its {len(self)} (the run's first "
                f"is {ids[0]!r}, here it is {own!r}): it holds answers about another corpus"
            )
        return rows, missing


def order_of(labels: Sequence[str], wanted: Sequence[str], teacher: str) -> list[int]:
    """Which of a teacher's columns is each of the labels.

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
            f"{len(names)} of the {whose} {total} labels {lack} ({', '.join(map(repr, names[:3]))})"
            for names, whose, total, lack in (
                (lacking, "run's", len(wanted), "it does not know"),
                (further, "teacher's", len(labels), "the run does not know"),
            )
            if names
        ]
        raise DataError(
            f"{teacher}: {'; '.join(parts)}: distill_weight needs a teacher of the run's labels, "
            "weight takes any"
        )
    position = {label: column for column, label in enumerate(labels)}
    return [position[label] for label in wanted]


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256 of files, one after the other, read piece by piece."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
