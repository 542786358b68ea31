"""Manifests: tables of clips and their labels.

Conventions: a CSV file in UTF-8 with a header. Required columns: ``path`` (absolute, or relative to the audio
folder, by default the manifest's own) and ``labels`` (separated by ``;``; empty: the clip belongs to no
class). Optional: ``fold``, an integer, 0 for clips that are in every training set and in no evaluation;
``unknown``, labels whose presence is unknown, separated by ``;``; ``member``, the row of a clip in an HDF5
file or its index in a shard; ``labelled``, "no" for clips without any known label; ``id``, the clip's name.
All other columns are kept as text. Blanks around labels are dropped; each clip has one row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from earmark.errors import DataError
from earmark.model_file.tables import read_table

SEPARATOR = ";"


@dataclass(frozen=True)
class Clip:
    """One row of a manifest: an audio file, its labels, and further columns."""

    path: Path
    labels: tuple[str, ...]
    fold: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = True
    """Whether its labels are known; off: all of its targets are unknown."""
    unknown: tuple[str, ...] = ()
    """Labels whose presence is unknown."""
    member: int | None = None
    """Index of the clip within ``path``, an HDF5 file or a shard."""

    @property
    def id(self) -> str:
        """The clip's name in tables of scores: its ``id``, or its file name without the suffix."""
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
        audio: Folder of relative paths; default: the manifest's own.
        labelled: Whether its labels are known; off: they are ignored.
        columns: Names of a manifest's columns in another table: {"path": "filename", "labels":
            "category"}.

    Raises:
        DataError: If the file or a required column is missing, a row has another number of fields, a clip has
            two rows, a fold or member is not an integer, or there is no clip.
    """
    file = Path(path)
    root = file.parent if audio is None else Path(audio)
    named = {"path": "path", "labels": "labels"} | dict(columns)
    rows = read_table(file, sorted(set(named.values())), what="the manifest")
    if not rows:
        raise DataError(f"{file}: the manifest has no clips")
    theirs = set(named.values())
    paths: dict[str, Path] = {}  # each path once: there may be millions of clips in a few files
    seen: dict[tuple[str, str], int] = {}
    clips = []
    for line, row in rows:
        values = {key: value for key, value in row.items() if key not in theirs}
        values |= {ours: row[name] for ours, name in named.items()}
        key = values["path"], values.get("member", "").strip()
        if seen.setdefault(key, line) != line:
            raise DataError(
                f"{file}, line {line}: {values['path']!r} is on line {seen[key]} too: give a clip one row, "
                f"with its labels separated by {SEPARATOR!r}"
            )
        clips.append(_clip(_Place(file, line), values, root, labelled, paths))
    return clips


class _Place(NamedTuple):
    """A line of a manifest, for errors."""

    file: Path
    line: int

    def error(self, message: str) -> DataError:
        return DataError(f"{self.file}, line {self.line}: {message}")


def _clip(place: _Place, values: dict[str, str], root: Path, labelled: bool, paths: dict[str, Path]) -> Clip:
    name, labels = values.pop("path"), _names(values.pop("labels"))
    fold, unknown = values.pop("fold", "").strip() or "0", _names(values.pop("unknown", ""))
    member, known = values.pop("member", "").strip(), values.pop("labelled", "").strip()
    if not name:
        raise place.error("path is empty")
    if known not in _LABELLED:
        raise place.error(f"labelled must be yes, no or empty, got {known!r}")
    both = [label for label in labels if label in unknown]
    if both:
        raise place.error(f"{both[0]!r} is among labels and unknown: remove it from one")
    labelled = labelled and _LABELLED[known]
    return Clip(
        path=paths.setdefault(name, root / name),
        labels=labels if labelled else (),
        fold=_natural(place, "fold", fold),
        extra=values,
        labelled=labelled,
        unknown=unknown if labelled else (),
        member=_natural(place, "member", member) if member else None,
    )


_LABELLED = {"": True, "yes": True, "no": False}


@lru_cache(maxsize=1 << 12)
def _names(text: str) -> tuple[str, ...]:
    """Names without the blanks around them, each once."""
    return tuple(dict.fromkeys(name for name in map(str.strip, text.split(SEPARATOR)) if name))


def _natural(place: _Place, column: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise place.error(f"{column} {text!r} is not an integer of 0 or more")
    return int(text)


def label_set(clips: Iterable[Clip]) -> tuple[str, ...]:
    """All labels of some clips, known and unknown, in alphabetical order."""
    return tuple(sorted({label for clip in clips for label in clip.labels + clip.unknown}))


def targets(clips: Sequence[Clip], labels: Sequence[str]) -> NDArray[np.float32]:
    """Targets of clips: 1 where a clip has a label, NaN where that is unknown, else 0.

    Returns:
        float32, shape (clip, class).

    Raises:
        DataError: If a clip has a label that is not in the list.
    """
    index = {label: position for position, label in enumerate(labels)}
    table = np.zeros((len(clips), len(labels)), np.float32)
    for row, clip in enumerate(clips):
        if not clip.labelled:
            table[row] = np.nan
        for names, value in ((clip.labels, 1), (clip.unknown, np.nan)):
            for label in names:
                if label not in index:
                    raise DataError(f"{clip.path}: label {label!r} is not one of the {len(labels)} labels")
                table[row, index[label]] = value
    return table


def select(clips: Iterable[Clip], keep: Mapping[str, Sequence[str]]) -> list[Clip]:
    """Selects clips by the values of columns, for example ``{"license": ["CC0", "CC-BY"]}``.

    Raises:
        DataError: If a column is missing.
    """
    kept = list(clips)
    for column, allowed in keep.items():
        for clip in kept:
            if column not in clip.extra:
                raise DataError(f"{clip.path}: the manifest has no column {column!r} to select by")
        kept = [clip for clip in kept if clip.extra[column] in allowed]
    return kept


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def clips_hash(clips: Iterable[Clip]) -> str:
    """SHA-256, in hexadecimal, of the ids, labels and folds of clips in their order; paths do not count."""
    digest = hashlib.sha256()
    for clip in clips:
        facts = (clip.id, clip.labels, clip.unknown, clip.labelled, clip.fold)
        digest.update(json.dumps(facts).encode() + b"\n")
    return digest.hexdigest()
