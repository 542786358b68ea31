"""AudioSet: mp3 in HDF5 files, or a folder of clips beside the published tables of segments.

Conventions: labels are the published display names; a clip's id is its YouTube id. No copy of AudioSet is
complete, so segments without an audio file are skipped; a warning counts them.
"""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from earmark.audio.find import SUFFIXES
from earmark.data.corpora.checks import known, require_one, text_lines
from earmark.data.hdf5 import read_table, unpack_labels
from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.model_file.labels import label_set
from earmark.model_file.ontology import audioset_ontology

_HEADER = "# YTID, start_seconds, end_seconds, positive_labels"


def audioset_hdf5(folder: Path, split: str) -> list[Clip]:
    """AudioSet in the HDF5 files of PaSST and EfficientAT.

    Layout: ``SPLIT_segments_mp3.hdf`` with ``audio_name``, ``mp3`` and ``target`` (527 bits in 66 bytes).

    Source: EfficientAT's datasets; golden hdf5/index.json.
    """
    path = require_one(folder, [f"{split}_segments_mp3.hdf"], "the clips of this split")
    classes = label_set("audioset")
    names, target = read_table(path, -(-len(classes) // 8), "uint8")
    return [
        Clip(path, labels, extra={"id": _youtube_id(path, name)}, member=member)
        for member, (name, labels) in enumerate(zip(names, unpack_labels(target, classes), strict=True))
    ]


def _youtube_id(path: Path, name: str) -> str:
    """``04/Y-0RWZT-miFs.mp3`` -> ``-0RWZT-miFs``."""
    _, y, rest = name.partition("Y")
    if not y or not rest.endswith(".mp3"):
        raise DataError(f"{path}: names must be Y, a YouTube id and .mp3, got {name!r}")
    return rest.removesuffix(".mp3")


def audioset(folder: Path, split: str) -> list[Clip]:
    """AudioSet as a folder of recordings beside Google's tables of segments.

    Layout: ``SPLIT_segments.csv`` and the recordings in ``SPLIT_segments/``, ``audio/SPLIT_segments/`` or
    ``audio/``, in folders within too, named by their YouTube id: ``ID.wav`` or ``YID.wav`` (any format), also
    with ``_START`` or ``_START_END`` in seconds or milliseconds behind. Missing files are skipped.

    Source: Gemmeke et al., "Audio Set", ICASSP 2017, and the tables that Google publishes with it.
    """
    path = folder / f"{split}_segments.csv"
    places = (f"{split}_segments", f"audio/{split}_segments", "audio")
    audio = require_one(folder, places, "the audio files of this split")
    recordings = {file.stem: file for file in _recordings(audio)}
    clips, segments = [], 0
    for id_, start, end, labels in _segments(path):
        segments += 1
        stem = next((stem for stem in _stems(id_, start, end) if stem in recordings), None)
        if stem is not None:
            extra = {"id": id_, "start_s": f"{start:g}", "end_s": f"{end:g}"}
            clips.append(Clip(recordings[stem], labels, extra=extra))
    if not clips:
        raise DataError(
            f"{path}: none of its {segments} segments has a file in {audio}: names must be YouTube "
            "ids, such as -0RWZT-miFs.wav or Y-0RWZT-miFs.wav"
        )
    if len(clips) < segments:
        warnings.warn(
            f"{path}: {segments - len(clips)} of its {segments} segments have no file in {audio} and "
            f"are skipped; {len(clips)} are used",
            stacklevel=2,
        )
    return clips


def _segments(path: Path) -> Iterator[tuple[str, float, float, tuple[str, ...]]]:
    """YouTube id, start and end in seconds, and labels of every row."""
    lines = text_lines(path, "Google's table of the segments of this split")
    if _HEADER not in lines[:3]:
        raise DataError(f"{path}: one of the first three lines must be {_HEADER!r}")
    classes = label_set("audioset")
    names = {id_: name for name, id_ in audioset_ontology().ids.items() if name in set(classes)}
    body = [line for line in lines if not line.startswith("#")]
    for row in csv.reader(body, skipinitialspace=True):
        try:
            id_, start, end, mids = row
            times = float(start), float(end)
            if not 0 <= times[0] < times[1] < math.inf:
                raise ValueError
        except (ValueError, csv.Error):
            raise DataError(f"{path}: {','.join(row)!r} is not a row of {_HEADER!r}") from None
        found = mids.split(",")
        known(found, names, f"{path}, {id_}")
        yield id_, *times, tuple(names[mid] for mid in found)


def _stems(id_: str, start: float, end: float) -> Iterator[str]:
    """Possible names of a segment's file, without the suffix."""
    spans = [""]
    for unit, shown in ((1, "g"), (1, ".3f"), (1000, ".0f")):
        first, last = format(start * unit, shown), format(end * unit, shown)
        spans += [f"_{first}", f"_{first}_{last}"]
    for span in spans:
        yield f"Y{id_}{span}"
        yield f"{id_}{span}"


def _recordings(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names if os.path.splitext(name)[1].lower() in SUFFIXES)
