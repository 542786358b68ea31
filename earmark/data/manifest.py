"""A manifest: the table of clips that a training or an evaluation is about.

Conventions: a CSV file in UTF-8 with a header. ``path`` (absolute, or relative to the audio folder: by
default the manifest's own) and ``labels`` (names separated by ``;``, empty where none of the classes is
heard) are required; ``fold`` is a whole number, 0 for clips that are in every training set and never judged;
``unknown`` names labels, in the same way, of which nobody knows whether they are heard; ``member`` is the row
of a clip in an HDF5 file, or its place in a shard, that holds many; ``labelled`` is "no" for clips of which
nobody knows what is heard; all other columns are kept as text; ``id``, where it is there, is the clip's name.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from earmark.errors import DataError

SEPARATOR = ";"


@dataclass(frozen=True)
class Clip:
    """One row of a manifest: a recording, its labels, and what else the table says of it."""

    path: Path
    labels: tuple[str, ...]
    fold: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = True
    """Off: what is heard in it is not known, which is not the same as none of the classes."""
    unknown: tuple[str, ...] = ()
    """Labels of which nobody knows whether they are heard, though of the others somebody does."""
    member: int | None = None
    """Row or place of the clip where ``path`` is a file that holds many: HDF5, or a shard of a pack."""

    @property
    def id(self) -> str:
        """What tables of scores know the clip by: its ``id``, or its file's name without the end."""
        return self.extra.get("id") or self.path.stem


def read_manifest(
    path: str | Path,
    audio: str | Path | None = None,
    labelled: bool = True,
    columns: Mapping[str, str] = MappingProxyType({}),
) -> list[Clip]:
    """Reads the clips of a manifest, in the order of the file.

    Args:
        path: The CSV file.
        audio: Folder that relative paths start from; by default the manifest's own.
        labelled: Whether its labels say all that is heard; off, they are not looked at.
        columns: What the table calls a column of a manifest where it is no manifest: {"path": "filename",
            "labels": "category"}.

    Raises:
        DataError: If the file or a required column is missing, a fold is not a number, or no clip is listed.
    """
    file = Path(path)
    root = file.parent if audio is None else Path(audio)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: the manifest cannot be read ({error})") from None
    if not rows:
        raise DataError(f"{file}: the manifest lists no clip")
    wanted = {"path": "path", "labels": "labels"} | dict(columns)
    missing = sorted(set(wanted.values()) - set(rows[0]))
    if missing:
        raise DataError(
            f"{file}: the manifest lacks the column {', '.join(missing)}; it has {', '.join(rows[0])}"
        )
    names = {theirs: ours for ours, theirs in wanted.items()}
    paths: dict[str, Path] = {}  # of millions of clips in a few files, each path is kept once
    return [
        _clip(file, number, {names.get(key, key): value for key, value in row.items()}, root, labelled, paths)
        for number, row in enumerate(rows, start=2)
    ]


def _clip(
    file: Path, number: int, row: dict[str, str], root: Path, labelled: bool, paths: dict[str, Path]
) -> Clip:
    values = {key: value or "" for key, value in row.items() if key is not None}
    name, labels, fold = values.pop("path"), values.pop("labels"), values.pop("fold", "") or "0"
    unknown, member = values.pop("unknown", ""), values.pop("member", "")
    labelled = values.pop("labelled", "") != "no" and labelled
    if not name:
        raise DataError(f"{file}, line {number}: no path")
    return Clip(
        path=paths.setdefault(name, root / name),
        labels=_names(labels) if labelled else (),
        fold=_whole(file, number, "fold", fold),
        extra=values,
        labelled=labelled,
        unknown=_names(unknown) if labelled else (),
        member=_whole(file, number, "member", member) if member else None,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(SEPARATOR) if name)


def _whole(file: Path, number: int, column: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{file}, line {number}: {column} {text!r} is not a whole number") from None


def label_set(clips: Iterable[Clip]) -> tuple[str, ...]:
    """Every label that is known or unknown of a clip, in alphabetical order."""
    return tuple(sorted({label for clip in clips for label in clip.labels + clip.unknown}))


def targets(clips: Sequence[Clip], labels: Sequence[str]) -> NDArray[np.float32]:
    """One row per clip with 1 where a label is set, and NaN where nobody knows.

    Returns:
        float32, shape (clip, class).

    Raises:
        DataError: If a clip carries a label that is not in the list.
    """
    index = {label: position for position, label in enumerate(labels)}
    table = np.zeros((len(clips), len(labels)), np.float32)
    for row, clip in enumerate(clips):
        if not clip.labelled:
            table[row] = np.nan
        for names, value in ((clip.labels, 1), (clip.unknown, np.nan)):
            for label in names:
                if label not in index:
                    raise DataError(
                        f"{clip.path}: label {label!r} is none of the {len(labels)} labels of this run"
                    )
                table[row, index[label]] = value
    return table


def select(clips: Iterable[Clip], keep: Mapping[str, Sequence[str]]) -> list[Clip]:
    """The clips whose columns hold one of the wanted values, for example ``{"license": ["CC0", "CC-BY"]}``.

    Raises:
        DataError: If a column is missing.
    """
    kept = list(clips)
    for column, wanted in keep.items():
        for clip in kept:
            if column not in clip.extra:
                raise DataError(f"{clip.path}: the manifest has no column {column!r} to choose by")
        kept = [clip for clip in kept if clip.extra[column] in wanted]
    return kept


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal, to trace a score to the very table it came from."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def clips_hash(clips: Iterable[Clip]) -> str:
    """SHA-256, in hexadecimal, of what is said about clips: for corpora what ``file_hash`` is for a table.

    Where the clips lie does not count; their order, ids, labels and folds do.
    """
    digest = hashlib.sha256()
    for clip in clips:
        facts = (clip.id, clip.labels, clip.unknown, clip.labelled, clip.fold)
        digest.update(json.dumps(facts).encode() + b"\n")
    return digest.hexdigest()
