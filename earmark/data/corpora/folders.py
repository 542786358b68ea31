"""Corpora with a folder per class: Speech Commands, any other, images.

Conventions: a clip's id is its path within the corpus, without the suffix; hidden folders are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from earmark.audio.find import SUFFIXES
from earmark.data.corpora.checks import require, text_lines
from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.model_file.labels import label_set

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_NOISE = "_background_noise_"


def speech_commands(folder: Path, split: str) -> list[Clip]:
    """Speech Commands v2: one of 35 words each; the folder ``_background_noise_`` is left out.

    Layout: a folder per word, ``validation_list.txt`` and ``testing_list.txt``; what neither lists is split
    train.

    Source: Warden, arXiv:1804.03209.
    """
    words = label_set("speech_commands")
    lists = {
        name: set(text_lines(folder / f"{name}_list.txt", "the list of the clips of this split"))
        for name in ("validation", "testing")
    }
    missing = [word for word in words if not (folder / word).is_dir()]
    if missing:
        raise DataError(
            f"{folder}: lacks the folder {missing[0]!r}: expected one for each of the {len(words)} words of "
            "version 2"
        )
    clips = {
        f"{clip.path.parent.name}/{clip.path.name}": clip
        for clip in _classes(folder, SUFFIXES)
        if clip.labels != (_NOISE,)
    }
    foreign = sorted({clip.labels[0] for clip in clips.values()} - set(words))
    if foreign:
        raise DataError(f"{folder / foreign[0]}: is not one of the {len(words)} words of version 2")
    for name, listed in lists.items():
        lost = sorted(listed - set(clips))
        if lost:
            raise DataError(f"{folder / lost[0]} is missing, though {name}_list.txt names it")
    if split == "train":
        held = lists["validation"] | lists["testing"]
        return [clip for name, clip in clips.items() if name not in held]
    return [clip for name, clip in clips.items() if name in lists[split]]


def folders(folder: Path, split: str = "") -> list[Clip]:
    """Audio files in a folder per class.

    Layout: ``CLASS/*.wav`` (any format), or ``SPLIT/CLASS/*.wav`` with splits of any name.
    """
    return list(_classes(_place(folder, split), SUFFIXES))


def images(folder: Path, split: str = "") -> list[Clip]:
    """Images in a folder per class, as ImageNet's, for pretraining.

    Layout: ``SPLIT/CLASS/*.JPEG`` (or png and others), with splits such as train and val; or without splits.

    Source: Russakovsky et al., arXiv:1409.0575, in the layout that torchvision reads.
    """
    return list(_classes(_place(folder, split), IMAGE_SUFFIXES))


def _place(folder: Path, split: str) -> Path:
    return require(folder / split, "a folder per class") if split else folder


def _classes(folder: Path, suffixes: Collection[str]) -> Iterator[Clip]:
    """All files with one of the suffixes, class by class, in alphabetical order.

    Raises:
        DataError: If there is no class, or a class without a file.
    """
    classes = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")
    )
    if not classes:
        raise DataError(f"{folder}: has no folders, expected one for each class")
    for label in classes:
        names = sorted(
            name for name in os.listdir(folder / label) if os.path.splitext(name)[1].lower() in suffixes
        )
        if not names:
            known = ", ".join(sorted(suffixes)[:4])
            raise DataError(f"{folder / label}: has no files to read ({known}, ...)")
        for name in names:
            yield Clip(folder / label / name, (label,), extra={"id": f"{label}/{os.path.splitext(name)[0]}"})
