"""Corpora made of Freesound's recordings: FSD50K, FSDKaggle2018 and 2019, ESC-50 and ESC-10.

Conventions: labels are spelt as published (``Bass_drum``, ``clock_tick``); other columns of the tables are in
``Clip.extra``.
"""

from __future__ import annotations

from pathlib import Path

from earmark.data.corpora.checks import complete, integer, known, require, require_one, table, text_lines
from earmark.data.hdf5 import read_table, unpack_labels
from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.model_file.labels import label_set


def fsd50k_hdf5(folder: Path, split: str) -> list[Clip]:
    """FSD50K in the HDF5 files of PaSST and EfficientAT.

    Layout: ``FSD50K.SPLIT_mp3.hdf`` with ``audio_name``, ``mp3`` and ``target`` (200 bits in 25 bytes, in the
    alphabetical order of ``vocabulary.csv``).

    Source: EfficientAT's datasets; golden hdf5/index.json.
    """
    path = require(folder / f"FSD50K.{split}_mp3.hdf", "the clips of this split")
    classes = label_set("fsd50k")
    names, target = read_table(path, len(classes) // 8, "uint8")
    return [
        Clip(path, labels, extra={"id": name.removesuffix(".mp3")}, member=member)
        for member, (name, labels) in enumerate(zip(names, unpack_labels(target, classes), strict=True))
    ]


def fsd50k(folder: Path, split: str) -> list[Clip]:
    """FSD50K as published.

    Layout: ``FSD50K.dev_audio/`` and ``FSD50K.eval_audio/`` with ``FNAME.wav``, and ``FSD50K.ground_truth/``
    with ``dev.csv`` (fname, labels, mids, split), ``eval.csv`` (fname, labels, mids) and ``vocabulary.csv``.

    Source: Fonseca et al., arXiv:2010.00475.
    """
    part = "eval" if split == "eval" else "dev"
    truth = folder / "FSD50K.ground_truth"
    classes = _vocabulary(truth / "vocabulary.csv")
    path = truth / f"{part}.csv"
    columns = ("fname", "labels", "mids") if part == "eval" else ("fname", "labels", "mids", "split")
    audio = require(folder / f"FSD50K.{part}_audio", "the audio files of this split")
    clips = []
    for row in table(path, columns, "the labels of this split"):
        if part == "eval" or row["split"] == split:
            labels = tuple(row["labels"].split(","))
            known(labels, classes, f"{path}, {row['fname']}")
            clips.append(Clip(audio / f"{row['fname']}.wav", labels))
    return complete(clips, path)


def _vocabulary(path: Path) -> list[str]:
    """The classes of a table without header: index, label, and what may follow."""
    rows = [line.split(",") for line in text_lines(path, "the list of classes")]
    if min(map(len, rows), default=0) < 2:
        raise DataError(f"{path}: each line must be an index and a class, separated by a comma")
    return [row[1].strip() for row in rows]


def fsdkaggle2018(folder: Path, split: str) -> list[Clip]:
    """FSDKaggle2018 as published on Zenodo: one of 41 classes each.

    Layout: ``FSDKaggle2018.audio_train/``, ``FSDKaggle2018.audio_test/``, and ``FSDKaggle2018.meta/`` with
    ``train_post_competition.csv`` (fname, label, manually_verified) and
    ``test_post_competition_scoring_clips.csv`` (fname, label).

    Source: Fonseca et al., arXiv:1807.09902.
    """
    name = {"train": "train_post_competition.csv", "test": "test_post_competition_scoring_clips.csv"}[split]
    path = folder / "FSDKaggle2018.meta" / name
    columns = ("fname", "label", "manually_verified") if split == "train" else ("fname", "label")
    audio = require(folder / f"FSDKaggle2018.audio_{split}", "the audio files of this split")
    clips = [
        Clip(audio / row.pop("fname"), (row.pop("label"),), extra=row)
        for row in table(path, columns, "the labels of this split")
    ]
    return complete(clips, path)


def fsdkaggle2019(folder: Path, split: str) -> list[Clip]:
    """FSDKaggle2019 as published on Zenodo: some of 80 classes each.

    Layout: ``FSDKaggle2019.audio_SPLIT/``, and ``FSDKaggle2019.meta/`` with ``SPLIT_post_competition.csv``
    (fname, labels) and ``vocabulary.csv``.

    Source: Fonseca et al., arXiv:1906.02975.
    """
    meta = folder / "FSDKaggle2019.meta"
    path = meta / f"{split}_post_competition.csv"
    classes = _vocabulary(meta / "vocabulary.csv")
    audio = require(folder / f"FSDKaggle2019.audio_{split}", "the audio files of this split")
    clips = []
    for row in table(path, ("fname", "labels"), "the labels of this split"):
        labels = tuple(row.pop("labels").split(","))
        known(labels, classes, f"{path}, {row['fname']}")
        clips.append(Clip(audio / row.pop("fname"), labels, extra=row))
    return complete(clips, path)


def esc50(folder: Path) -> list[Clip]:
    """ESC-50 with its five folds; subsets of it in the same form too.

    Layout: ``meta/esc50.csv`` (or ``meta.csv``; filename, fold, category, esc10), and the recordings in
    ``audio/`` or ``audio_32k/``.

    Source: Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015.
    """
    path = require_one(folder, ["meta/esc50.csv", "meta.csv"], "the table of clips and folds")
    rows = table(path, ("filename", "fold", "category", "esc10"), "the table of clips and folds")
    audio = require_one(folder, ["audio", "audio_32k"], "the folder of recordings")
    clips = [
        Clip(
            audio / row.pop("filename"),
            (row.pop("category"),),
            integer(path, row.pop("fold"), "fold"),
            extra=row,
        )
        for row in rows
    ]
    return complete(clips, path)


def esc10(folder: Path) -> list[Clip]:
    """ESC-10, the ten classes of ESC-50 that are easiest to distinguish, with their five folds.

    Layout: as ``esc50``; its rows with esc10 = True.

    Source: Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015.
    """
    clips = [clip for clip in esc50(folder) if clip.extra["esc10"] == "True"]
    if not clips:
        raise DataError(f"{folder}: no clip has esc10 = True")
    return clips
