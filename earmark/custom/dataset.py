"""Reads own sounds as people have them: a folder per class, a CSV file, or annotated recordings.

Conventions: an example without labels is background: a clip in which none of the sounds occurs. Folders and
labels named ``background``, ``noise``, ``other``, ``negative`` or ``none`` mean background. What cannot be
used is named in ``Dataset.problems`` and does not end the reading.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from earmark.audio.find import find_recordings
from earmark.custom.annotations import annotated_recordings, read_regions
from earmark.custom.example import Example
from earmark.custom.sources import group_takes
from earmark.errors import DataError, EarmarkError
from earmark.model_file.tables import read_table

BACKGROUND = frozenset(
    {"background", "noise", "other", "negative", "negatives", "none", "_background_noise_"}
)
"""Names of folders and labels that mean background."""
SEPARATOR = ";"
_PATH_COLUMNS = ("path", "filename", "file_name", "file", "fname")
_LABEL_COLUMNS = ("labels", "label", "category", "class", "tags")
_GROUP_COLUMNS = ("group", "source", "src_file", "recording")


@dataclass(frozen=True)
class Dataset:
    """Labelled examples.

    Args:
        examples: In the order of their paths.
        problems: What could not be used, one line each.
    """

    examples: tuple[Example, ...]
    problems: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in alphabetical order."""
        return tuple(sorted({label for example in self.examples for label in example.labels}))

    @property
    def exclusive(self) -> bool:
        """Whether each example has exactly one label."""
        return all(len(example.labels) == 1 for example in self.examples)

    def counts(self) -> dict[str, int]:
        """Number of examples of each label, and of background ("") where there is any."""
        return dict(Counter(label for one in self.examples for label in one.labels or ("",)))

    def without(self, dropped: Iterable[int], problems: Iterable[str] = ()) -> Dataset:
        """Returns the dataset without some examples, with further problems."""
        gone = set(dropped)
        kept = tuple(one for number, one in enumerate(self.examples) if number not in gone)
        return Dataset(kept, (*self.problems, *problems))


def read_dataset(path: str | os.PathLike[str], audio: str | os.PathLike[str] | None = None) -> Dataset:
    """Reads examples.

    Args:
        path: A folder with a folder per class (subfolders of a class are sources); a folder of recordings
            with Audacity label tables or Raven selection tables beside them; or a CSV file with a column
            ``path`` or ``filename``, a column ``labels`` (separated by ``;``), ``label`` or ``category``, and
            optionally ``start_s``, ``end_s`` and ``group``.
        audio: Folder of the recordings that a CSV file names; default: that of the CSV file.

    Raises:
        DataError: If the folder or file cannot be read, or has no examples.
    """
    source = Path(path)
    problems: list[str] = []
    if source.is_dir():
        examples = list(_from_folder(source, problems))
    elif source.suffix.lower() in (".csv", ".tsv"):
        examples = list(_from_table(source, source.parent if audio is None else Path(audio), problems))
    else:
        raise DataError(f"{source}: must be a folder with a folder per class, or a CSV file")
    if not examples:
        raise DataError("; ".join([f"{source}: has no examples", *problems[:3]]))
    return Dataset(tuple(group_takes(examples)), tuple(problems))


def merged(datasets: Sequence[Dataset]) -> Dataset:
    """Returns the examples of several datasets as one, those of the same file and region once."""
    found = {
        (one.path.resolve(), one.start_s, one.end_s): one for dataset in datasets for one in dataset.examples
    }
    return Dataset(tuple(found.values()), tuple(text for dataset in datasets for text in dataset.problems))


def _from_folder(folder: Path, problems: list[str]) -> Iterator[Example]:
    annotated = annotated_recordings(folder)
    if annotated:
        for recording, table in annotated:
            yield from _regions(recording, table, problems)
        return
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    if not names:
        raise DataError(
            f"{folder}: has no folders: expected one for each class, or label tables beside the recordings"
        )
    for name in names:
        label = clean_label(name)
        if label is None:
            problems.append(f"{name!a}: the name of this folder is no valid text: rename it")
            continue
        labels = () if label.lower() in BACKGROUND else (label,)
        inside = folder / name
        found = 0
        for item in find_recordings([inside], recursive=True):
            if isinstance(item, EarmarkError):
                problems.append(str(item))
                continue
            found += 1
            parts = Path(item).relative_to(inside).parts
            yield Example(Path(item), labels, group=f"{name}/{parts[0]}" if len(parts) > 1 else "")
        if not found and not any(str(inside) in problem for problem in problems):
            problems.append(f"{inside}: has no recordings: the class is left out")


def _regions(recording: Path, table: Path, problems: list[str]) -> Iterator[Example]:
    try:
        for start_s, end_s, text in read_regions(table):
            labels = _labels(text)
            if labels is None:
                problems.append(f"{table}: a label is empty or no valid text: {text!r}")
            elif end_s <= start_s:
                problems.append(f"{table}: {text!r} at {start_s:g} s is a point: only regions become clips")
            else:
                yield Example(recording, labels, str(recording), start_s, end_s)
    except DataError as error:
        problems.append(str(error))


def _from_table(file: Path, root: Path, problems: list[str]) -> Iterator[Example]:
    rows = read_table(file, what="the table", delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
    if not rows:
        raise DataError(f"{file}: the table has no clips")
    header = rows[0][1]
    path, label = _column(file, header, _PATH_COLUMNS), _column(file, header, _LABEL_COLUMNS)
    group = next((name for name in _GROUP_COLUMNS if name in header), None)
    if {"start_s", "end_s"} & set(header) and not {"start_s", "end_s"} <= set(header):
        raise DataError(f"{file}: regions need both columns, start_s and end_s")
    single = label not in ("labels", "tags")
    merged: dict[tuple[str, str, str], Example] = {}
    for line, row in rows:
        labels = _labels(row[label], single)
        place = f"{file}, line {line}"
        if labels is None:
            problems.append(f"{place}: the label is no valid text: {row[label]!r}")
            continue
        span = _span(row)
        if span is None or not row[path].strip():
            problems.append(f"{place}: needs a path, and 0 <= start_s < end_s")
            continue
        key = (row[path].strip(), row.get("start_s", ""), row.get("end_s", ""))
        named = row[group].strip() if group else ""
        example = Example(root / key[0], labels, named, *span)
        earlier = merged.get(key)
        if earlier is not None:  # a row for each label
            both = tuple(dict.fromkeys(earlier.labels + labels))
            example = replace(earlier, labels=both)
        merged[key] = example
    for example in merged.values():
        whole = example.end_s is None
        yield example if whole or example.group else replace(example, group=str(example.path))


def _column(file: Path, header: Iterable[str], names: Sequence[str]) -> str:
    found = next((name for name in names if name in header), None)
    if found is None:
        raise DataError(f"{file}: needs a column {' or '.join(names)}; it has {', '.join(header)}")
    return found


def _span(row: dict[str, str]) -> tuple[float, float | None] | None:
    """Start and end of a row; None if they are no region."""
    if not row.get("end_s", "").strip():
        return 0.0, None
    try:
        start_s, end_s = float(row["start_s"] or 0), float(row["end_s"])
    except ValueError:
        return None
    return (start_s, end_s) if 0 <= start_s < end_s < float("inf") else None


def _labels(text: str, single: bool = False) -> tuple[str, ...] | None:
    """Labels in a text, without those that mean background; None if one is no valid text."""
    parts = [text] if single else text.split(SEPARATOR)
    names = [clean_label(part) for part in parts if part.strip()]
    if any(name is None for name in names):
        return None
    return tuple(dict.fromkeys(name for name in names if name and name.lower() not in BACKGROUND))


def clean_label(text: str) -> str | None:
    """A label without blanks around it and in Unicode's composed form; None if it is no valid text."""
    label = unicodedata.normalize("NFC", text.strip())
    if not label or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label):
        return None
    return label
