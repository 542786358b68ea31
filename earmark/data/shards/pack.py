"""A pack as a source of clips: what it is, and the table of what it holds.

Conventions: ``pack.json`` is written last, so a folder without it is no whole pack. ``clips.csv`` is a
manifest like any other, of every column that the clips had.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from earmark.data.hdf5 import read_names
from earmark.data.manifest import SEPARATOR, Clip, read_manifest
from earmark.data.shards.index import VERSION, find_index
from earmark.errors import DataError

Format = Literal["shards", "hdf5", "memmap"]
HEADING, TABLE, BAD = "pack.json", "clips.csv", "bad.csv"
HDF5 = "clips_mp3.hdf"
"""The one file of a pack in format hdf5."""


@dataclass(frozen=True)
class Heading:
    """What a pack says of itself.

    Args:
        of: Fingerprint of the clips and choices that it was made from.
        format: Of its files.
        codec: Of its recordings; "pcm" where they are samples as they are.
        sample_rate: In Hz.
        labels: Every class that its clips may have.
        labelled: Whether somebody knows what is heard in any of them.
        clips: How many it holds.
        bad: How many were left out.
        seconds: Of sound.
        files: Names of the files that hold recordings.
        names: Of format hdf5: SHA-256 of the names in the file.
    """

    of: str
    format: Format
    codec: str
    sample_rate: int
    labels: tuple[str, ...]
    labelled: bool
    clips: int
    bad: int
    seconds: float
    files: tuple[str, ...]
    names: str = ""

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps({"version": VERSION, **asdict(self)}, ensure_ascii=False, indent=1)


def read_heading(folder: Path) -> Heading:
    """What a pack says of itself.

    Raises:
        DataError: If the folder is no pack, or not a whole one.
    """
    path = folder / HEADING
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        if values.pop("version") != VERSION:
            raise ValueError("it is of another version of earmark")
        values |= {name: tuple(values[name]) for name in ("labels", "files")}
        return Heading(**values)
    except FileNotFoundError:
        begun = any(folder.glob("*.index.json")) or (folder / ".parts").is_dir()
        what = "the pack is not finished: run the same earmark pack command again" if begun else "is no pack"
        raise DataError(f"{folder}: {what} (it has no {HEADING})") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is no whole heading of a pack ({error}): make the pack again") from None


def table_of(path: str | Path) -> Path:
    """The manifest that is meant: a pack's table, or the file itself.

    Raises:
        DataError: If a folder is no whole pack.
    """
    file = Path(path)
    if not file.is_dir():
        return file
    check(file)
    return file / TABLE


def load_pack(folder: str | Path) -> tuple[Heading, list[Clip]]:
    """What a pack says of itself, and its clips, with all that their manifest said of them.

    Raises:
        DataError: If the folder is no whole pack, a file is missing, or an index is older than its shard.
        MissingExtraError: If it is an HDF5 file and h5py is not installed.
    """
    heading = check(Path(folder))
    clips = read_manifest(Path(folder) / TABLE)
    if len(clips) != heading.clips:
        raise DataError(
            f"{folder}: {TABLE} has {len(clips)} clips, {HEADING} says {heading.clips}: make the pack again"
        )
    return heading, clips


def check(folder: Path) -> Heading:
    """Checks that the files of a pack belong together; errors as :func:`load_pack`."""
    heading = read_heading(folder)
    for name in heading.files:
        if heading.format != "hdf5":
            find_index(folder / name)
        elif names_hash(read_names(folder / name)) != heading.names:
            raise DataError(
                f"{folder / name}: holds other recordings than {TABLE} was made for: "
                "run the same earmark pack command again"
            )
    return heading


def names_hash(names: Iterable[str]) -> str:
    """SHA-256 of names, in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def require_same_labels(packs: Sequence[tuple[Path, Heading]]) -> None:
    """Refuses packs whose classes differ: a class that one lacks would count as absent from all its clips.

    Args:
        packs: Those whose labels are used; a pack without any class goes with every other.

    Raises:
        DataError: Naming two of them and where they differ.
    """
    known = [(folder, set(heading.labels)) for folder, heading in packs if heading.labels]
    for folder, labels in known[1:]:
        first, wanted = known[0]
        if labels != wanted:
            lacks, more = sorted(wanted - labels)[:3], sorted(labels - wanted)[:3]
            parts = [
                f"{how} {', '.join(some)}" for how, some in (("lacks", lacks), ("has also", more)) if some
            ]
            raise DataError(
                f"{folder}: its {len(labels)} labels are not the {len(wanted)} of {first}, it "
                f"{' and '.join(parts)}: pack both with the same --labels, or list the classes in data.labels"
            )


def table(clips: Iterable[Clip]) -> str:
    """The manifest of clips that lie in a pack."""
    clips = list(clips)
    columns = sorted({column for clip in clips for column in clip.extra} - {"id"})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("path", "member", "id", "labels", "unknown", "labelled", "fold", *columns))
    for clip in clips:
        labels, unknown = SEPARATOR.join(clip.labels), SEPARATOR.join(clip.unknown)
        own = (
            clip.path.name,
            clip.member,
            clip.id,
            labels,
            unknown,
            "" if clip.labelled else "no",
            clip.fold,
        )
        writer.writerow((*own, *(clip.extra.get(column, "") for column in columns)))
    return stream.getvalue()
