"""Label lists: those of published datasets by name, and others from files.

Conventions: a label is spelt as published; labels are in the order of a model's classes. AudioSet's labels
are Google's (CC BY 4.0). Every part of earmark that takes labels reads them with :func:`read_labels`.
"""

from __future__ import annotations

import tomllib
from functools import cache
from os import PathLike
from pathlib import Path

from earmark.errors import DataError, ModelError
from earmark.model_file.ontology import audioset_ontology
from earmark.model_file.tables import read_table, read_text

_SETS = Path(__file__).parent / "label_sets.toml"
_AUDIOSET_CLASSES = 527
_COLUMNS = ("display_name", "label", "name")
"""CSV columns that labels are taken from; AudioSet's class_labels_indices.csv has the first."""


@cache
def _label_sets() -> dict[str, tuple[str, ...]]:
    tables = tomllib.loads(_SETS.read_text(encoding="utf-8"))
    sets = {"audioset": tuple(audioset_ontology().ids)[:_AUDIOSET_CLASSES]}
    return sets | {name: tuple(labels) for name, labels in tables.items()}


def label_set(name: str) -> tuple[str, ...]:
    """The labels of a published dataset.

    Args:
        name: "audioset" (527 sounds), "tau_scenes" (10 acoustic scenes of TAU Urban Acoustic Scenes),
            "fsd50k" (200 sounds), "openmic" (20 instruments of OpenMIC-2018) or "speech_commands" (35 words
            of version 2).

    Raises:
        ModelError: If there is no label set of that name.
    """
    if name not in _label_sets():
        raise ModelError(f"unknown label set {name!r}: choose from {', '.join(sorted(_label_sets()))}")
    return _label_sets()[name]


def read_labels(source: str | PathLike[str]) -> tuple[str, ...]:
    """Reads labels from a file, or takes those of a label set.

    Args:
        source: A CSV file with a header, whose column display_name, label or name holds the labels in order;
            any other file, UTF-8, with one label per line; or, where no file has that name, the name of a
            label set such as "audioset".

    Raises:
        DataError: If the file cannot be read, is empty, lacks the column, or repeats a label; the message
            names the line.
        ModelError: If there is neither such a file nor such a label set.
    """
    path = Path(source)
    if not path.suffix and not path.is_file():
        return label_set(str(source))
    numbered = _csv_column(path) if path.suffix == ".csv" else _lines(path)
    if not numbered:
        raise DataError(f"{path}: has no labels")
    seen: dict[str, int] = {}
    for line, label in numbered:
        if not label:
            raise DataError(f"{path}, line {line}: the label is empty")
        if seen.setdefault(label, line) != line:
            raise DataError(f"{path}, line {line}: label {label!r} is on line {seen[label]} too")
    return tuple(seen)


def _lines(path: Path) -> list[tuple[int, str]]:
    lines = enumerate(map(str.strip, read_text(path).splitlines()), start=1)
    return [(line, label) for line, label in lines if label]


def _csv_column(path: Path) -> list[tuple[int, str]]:
    rows = read_table(path, what="the label file")
    header = rows[0][1] if rows else {}
    column = next((name for name in _COLUMNS if name in header), None)
    if column is None:
        raise DataError(
            f"{path}: needs a column {', '.join(_COLUMNS[:-1])} or {_COLUMNS[-1]} for labels; "
            f"it has {', '.join(header)}"
        )
    return [(line, row[column].strip()) for line, row in rows]
