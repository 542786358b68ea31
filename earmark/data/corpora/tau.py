"""TAU Urban Acoustic Scenes mobile, the data of the DCASE challenges of 2020, 2021 and 2022.

Conventions: ``Clip.extra`` holds ``device`` (a, b, c, s1 ... s6) and ``city``, where they are known.
"""

from __future__ import annotations

from pathlib import Path

from earmark.data.corpora.checks import complete, known, require, table
from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.model_file.labels import label_set

_UNKNOWN = "unknown"


def tau2020(folder: Path, split: str) -> list[Clip]:
    """TAU Urban Acoustic Scenes 2020 Mobile: clips of 10 s, ten scenes; split test is without labels.

    Layout: ``audio/``, ``meta.csv`` (filename, scene_label, identifier, source_label = device) and
    ``evaluation_setup/fold1_SPLIT.csv`` (filename, scene_label), all separated by tabs; an evaluation set has
    no ``meta.csv`` and split test only.

    Source: Heittola, Mesaros and Virtanen, DCASE 2020, task 1A.
    """
    return _tau(folder, split, name_parts=5, year="2020")


def tau2021(folder: Path, split: str) -> list[Clip]:
    """The 2021 challenge: its development set is that of 2020, its evaluation set has split test only.

    Layout: as ``tau2020``.

    Source: Martín-Morató et al., DCASE 2021, task 1A.
    """
    return _tau(folder, split, name_parts=5, year="2021")


def tau2022(folder: Path, split: str) -> list[Clip]:
    """TAU Urban Acoustic Scenes 2022 Mobile: the same recordings as clips of 1 s.

    Layout: as ``tau2020``.

    Source: Martín-Morató et al., DCASE 2022, task 1.
    """
    return _tau(folder, split, name_parts=6, year="2022")


def _tau(folder: Path, split: str, name_parts: int, year: str) -> list[Clip]:
    labelled = split != "test"
    path = folder / "evaluation_setup" / f"fold1_{split}.csv"
    columns = ("filename", "scene_label") if labelled else ("filename",)
    rows = table(path, columns, "the clips of this split", delimiter="\t")
    require(folder / "audio", "the folder of audio files")
    sources = _sources(folder / "meta.csv", required=labelled)
    clips = []
    for row in rows:
        name = row["filename"]
        labels: tuple[str, ...] = ()
        device, city = sources.get(name, (_UNKNOWN, _UNKNOWN))
        if labelled:
            labels = (row["scene_label"],)
            known(labels, label_set("tau_scenes"), f"{path}, {name}")
            if name not in sources:
                raise DataError(f"{path}: clip {name} has no row in {folder / 'meta.csv'}")
            if len(Path(name).stem.split("-")) != name_parts:
                raise DataError(
                    f"{path}: {name} is not a clip of TAU {year}: is it the corpus of another year?"
                )
        clips.append(Clip(folder / name, labels, extra={"device": device, "city": city}, labelled=labelled))
    return complete(clips, path)


def _sources(path: Path, required: bool) -> dict[str, tuple[str, str]]:
    """Device and city of every clip."""
    if not required and not path.exists():
        return {}
    columns = ("filename", "scene_label", "identifier", "source_label")
    rows = table(path, columns, "devices and places of all clips", delimiter="\t")
    return {row["filename"]: (row["source_label"], row["identifier"].split("-")[0]) for row in rows}
