"""OpenMIC-2018: twenty instruments, each annotated in some clips only.

Conventions: a clip has an instrument if its relevance is above one half; instruments without annotation are
``Clip.unknown``.
"""

from __future__ import annotations

import math
from pathlib import Path

from earmark.data.corpora.checks import complete, known, require, table, text_lines
from earmark.data.hdf5 import read_table
from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.model_file.labels import label_set
from earmark.model_file.strict_json import parse_json

_MIN_RELEVANCE = 0.5


def openmic_hdf5(folder: Path, split: str) -> list[Clip]:
    """OpenMIC-2018 in the HDF5 files of PaSST and EfficientAT.

    Layout: ``openmic_SPLIT.csv_mp3.hdf`` with ``audio_name``, ``mp3`` and ``target`` (20 probabilities, then
    20 times whether the probability is known).

    Source: EfficientAT's datasets; golden hdf5/index.json.
    """
    path = require(folder / f"openmic_{split}.csv_mp3.hdf", "the clips of this split")
    classes = label_set("openmic")
    names, target = read_table(path, 2 * len(classes), "float32")
    present, asked = target[:, : len(classes)] > _MIN_RELEVANCE, target[:, len(classes) :] > _MIN_RELEVANCE
    return [
        Clip(
            path,
            labels=tuple(
                label for label, yes in zip(classes, present[member] & asked[member], strict=True) if yes
            ),
            unknown=tuple(label for label, no in zip(classes, ~asked[member], strict=True) if no),
            extra={"id": name.removesuffix(".mp3")},
            member=member,
        )
        for member, name in enumerate(names)
    ]


def openmic(folder: Path, split: str) -> list[Clip]:
    """OpenMIC-2018 as published.

    Layout: ``audio/000/000046_3840.ogg`` and so on, ``openmic-2018-aggregated-labels.csv`` (sample_key,
    instrument, relevance), ``class-map.json`` and ``partitions/split01_SPLIT.csv``.

    Source: Humphrey, Durand and McFee, "OpenMIC-2018", ISMIR 2018.
    """
    audio = require(folder / "audio", "the folder of audio files")
    path = folder / "openmic-2018-aggregated-labels.csv"
    classes = _class_map(folder / "class-map.json")
    relevance: dict[str, dict[str, float]] = {}
    for row in table(path, ("sample_key", "instrument", "relevance"), "the labels of all clips"):
        clip, instrument = row["sample_key"], row["instrument"]
        known([instrument], classes, f"{path}, {clip}")
        relevance.setdefault(clip, {})[instrument] = _number(path, row["relevance"])
    partition = folder / "partitions" / f"split01_{split}.csv"
    clips = []
    for line in text_lines(partition, "the clips of this split"):
        key = line.strip()
        if key not in relevance:
            raise DataError(f"{partition}: clip {key!r} has no row in {path}")
        asked = relevance[key]
        clips.append(
            Clip(
                audio / key[:3] / f"{key}.ogg",
                labels=tuple(label for label in classes if asked.get(label, 0) > _MIN_RELEVANCE),
                unknown=tuple(label for label in classes if label not in asked),
            )
        )
    return complete(clips, partition)


def _class_map(path: Path) -> list[str]:
    try:
        indices = parse_json("\n".join(text_lines(path, "the classes and their indices")))
        return sorted(indices, key=indices.__getitem__)
    except (ValueError, TypeError, AttributeError):
        raise DataError(f"{path}: is not a JSON object of classes and their indices") from None


def _number(path: Path, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise DataError(f"{path}: relevance must be a number from 0 to 1, got {text!r}")
    return value
