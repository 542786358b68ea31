"""Packs as sources of clips: description and manifest of a pack.

Conventions: ``pack.json`` is written last, so a folder without it is not a complete pack. ``clips.csv`` is a
manifest with all columns of the packed clips.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from earmark.data.hdf5 import read_names
from earmark.data.manifest import SEPARATOR, Clip, read_manifest
from earmark.data.shards.index import VERSION, find_index
from earmark.errors import DataError
from earmark.model_file.strict_json import parse_json

Format = Literal["shards", "hdf5", "memmap"]
PACK_FILE, MANIFEST_FILE, SKIPPED_FILE = "pack.json", "clips.csv", "bad.csv"
HDF5 = "clips_mp3.hdf"
"""The one file of a pack in format hdf5."""


@dataclass(frozen=True)
class PackInfo:
    """Description of a pack.

    Args:
        fingerprint: Of the clips and options that it was made from.
        format: Of its files.
        codec: Of its clips; "pcm" for arrays of samples.
        sample_rate: In Hz.
        labels: All classes that its clips may have.
        labelled: Whether the labels of any clip are known.
        clips: Number of clips.
        bad: Number of skipped clips.
        seconds: Total duration.
        files: Names of the files with clips.
        names: For HDF5: SHA-256 of the names in the file.
    """

    fingerprint: str
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
        """The content of ``pack.json``."""
        values = asdict(self)
        values = {"version": VERSION, "of": values.pop("fingerprint"), **values}
        return json.dumps(values, ensure_ascii=False, indent=1)


def read_pack_info(folder: Path) -> PackInfo:
    """Reads the description of a pack.

    Raises:
        DataError: If the folder is not a complete pack.
    """
    path = folder / PACK_FILE
    try:
        values: dict[str, Any] = parse_json(path.read_bytes())
        if values.pop("version") != VERSION:
            raise ValueError("of another version of earmark")
        values |= {name: tuple(values[name]) for name in ("labels", "files")}
        info = PackInfo(fingerprint=values.pop("of"), **values)
        _check(info)
        return info
    except FileNotFoundError:
        begun = any(folder.glob("*.index.json")) or (folder / ".parts").is_dir()
        what = (
            "the pack is not finished: run the same earmark pack command again" if begun else "is not a pack"
        )
        raise DataError(f"{folder}: {what} (it has no {PACK_FILE})") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is damaged ({error}): make the pack again") from None


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("fingerprint", "codec", "names"), str),
    **dict.fromkeys(("clips", "bad", "sample_rate"), int),
    "labelled": bool,
    "seconds": (int, float),
}


def _check(info: PackInfo) -> None:
    """Raises a ValueError if a field is of another type, or a file lies elsewhere."""
    for name, kind in _KINDS.items():
        if not isinstance(getattr(info, name), kind):
            raise ValueError(f"{name} is {getattr(info, name)!r}")
    if info.format not in get_args(Format) or min(info.clips, info.bad, info.sample_rate) < 0:
        raise ValueError("its format is unknown, or a number is negative")
    for text in (*info.labels, *info.files):
        if not isinstance(text, str) or not text:
            raise ValueError(f"{text!r} is not a name")
    if any(Path(name).name != name for name in info.files):
        raise ValueError("a file lies outside the pack")


def manifest_of(path: str | Path) -> Path:
    """The manifest of a pack, or the manifest itself.

    Args:
        path: Folder of a pack, or a manifest.

    Raises:
        DataError: If a folder is not a complete pack.
    """
    file = Path(path)
    if not file.is_dir():
        return file
    check(file)
    return file / MANIFEST_FILE


def load_pack(folder: str | Path) -> tuple[PackInfo, list[Clip]]:
    """Reads the description and the clips of a pack.

    Raises:
        DataError: If the folder is not a complete pack, a file is missing, or an index does not match its
            shard.
        MissingExtraError: If it is an HDF5 file and h5py is not installed.
    """
    info = check(Path(folder))
    clips = read_manifest(Path(folder) / MANIFEST_FILE)
    if len(clips) != info.clips:
        raise DataError(
            f"{folder}: {MANIFEST_FILE} has {len(clips)} clips, {PACK_FILE} {info.clips}: make the pack again"
        )
    return info, clips


def check(folder: Path) -> PackInfo:
    """Checks that the files of a pack belong together; errors as :func:`load_pack`."""
    info = read_pack_info(folder)
    for name in info.files:
        if info.format != "hdf5":
            find_index(folder / name)
        elif names_hash(read_names(folder / name)) != info.names:
            raise DataError(
                f"{folder / name}: has other clips than {MANIFEST_FILE}: "
                "run the same earmark pack command again"
            )
    return info


def rate_warnings(folder: Path, info: PackInfo, sample_rate: int) -> tuple[str, ...]:
    """A warning if the clips of a pack are stored at another rate than a model takes.

    Args:
        folder: Of the pack.
        info: Its description.
        sample_rate: Of the model, in Hz.
    """
    rate = info.sample_rate
    if rate == sample_rate:
        return ()
    lost = f": nothing above {rate / 2:g} Hz is left, so pack the clips again" if rate < sample_rate else ""
    return (f"{folder}: resampled from {rate} Hz to the model's {sample_rate} Hz{lost}",)


def names_hash(names: Iterable[str]) -> str:
    """SHA-256 of names, in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def require_same_labels(packs: Sequence[tuple[Path, PackInfo]]) -> None:
    """Checks that packs have the same classes: a class that one lacks would count as absent from its clips.

    Args:
        packs: Packs whose labels are used; a pack without any class fits every other.

    Raises:
        DataError: Naming two of them and where they differ.
    """
    known = [(folder, set(info.labels)) for folder, info in packs if info.labels]
    for folder, labels in known[1:]:
        first, expected = known[0]
        if labels != expected:
            lacks, more = sorted(expected - labels)[:3], sorted(labels - expected)[:3]
            parts = [
                f"{how} {', '.join(some)}" for how, some in (("lacks", lacks), ("has also", more)) if some
            ]
            raise DataError(
                f"{folder}: its {len(labels)} labels are not the {len(expected)} of {first}, it "
                f"{' and '.join(parts)}: pack both with the same --labels, or list the classes in data.labels"
            )


def manifest_csv(clips: Iterable[Clip]) -> str:
    """The content of ``clips.csv``."""
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
