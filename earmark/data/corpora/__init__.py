"""Clips of published corpora in their own layouts.

Conventions: a corpus is a function from its folder (and the name of a split, where it has several) to a list
of :class:`~earmark.data.manifest.Clip`, in a fixed order; :data:`CORPORA` is the table of them by name. The
layout is checked first; no audio file is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from earmark.data.corpora.audioset import audioset, audioset_hdf5
from earmark.data.corpora.folders import folders, images, speech_commands
from earmark.data.corpora.freesound import esc10, esc50, fsd50k, fsd50k_hdf5, fsdkaggle2018, fsdkaggle2019
from earmark.data.corpora.openmic import openmic, openmic_hdf5
from earmark.data.corpora.tau import tau2020, tau2021, tau2022
from earmark.data.manifest import Clip
from earmark.errors import DataError

__all__ = ["CORPORA", "Corpus", "load_corpus"]


@dataclass(frozen=True)
class Corpus:
    """A corpus in the table of corpora.

    Args:
        read: Reads the clips of a folder and, if there are any, a split.
        splits: Published names of the splits; empty: none; None: names of folders.
        is_images: Whether its clips are images instead of audio.
    """

    read: Callable[..., list[Clip]]
    splits: tuple[str, ...] | None = ()
    is_images: bool = False

    @property
    def name(self) -> str:
        """Its name in recipes."""
        return self.read.__name__

    def check_split(self, split: str) -> None:
        """Checks that the corpus has a split.

        Raises:
            DataError: If it is not one of its splits, or none is named though there are some.
        """
        if self.splits is None or split in self.splits or (not split and not self.splits):
            return
        if not self.splits:
            raise DataError(f"corpus {self.name!r} has no splits, got {split!r}")
        wrong = f"no split {split!r}" if split else "several splits"
        raise DataError(f"corpus {self.name!r} has {wrong}: choose one of {', '.join(self.splits)}")


_AUDIOSET = ("balanced_train", "unbalanced_train", "eval")
_FSD50K = ("train", "val", "eval")
_TAU = ("train", "evaluate", "test")

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(audioset_hdf5, _AUDIOSET),
        Corpus(audioset, _AUDIOSET),
        Corpus(fsd50k_hdf5, _FSD50K),
        Corpus(fsd50k, _FSD50K),
        Corpus(esc50),
        Corpus(esc10),
        Corpus(openmic_hdf5, ("train", "test")),
        Corpus(openmic, ("train", "test")),
        Corpus(tau2020, _TAU),
        Corpus(tau2021, _TAU),
        Corpus(tau2022, _TAU),
        Corpus(fsdkaggle2018, ("train", "test")),
        Corpus(fsdkaggle2019, ("train_curated", "train_noisy", "test")),
        Corpus(speech_commands, ("train", "validation", "testing")),
        Corpus(folders, None),
        Corpus(images, None, is_images=True),
    )
}
"""Every corpus by name."""


def load_corpus(name: str, folder: str | Path, split: str = "") -> list[Clip]:
    """The clips of a corpus, or of one of its splits.

    Args:
        name: In :data:`CORPORA`.
        folder: Of the corpus as published.
        split: One of its splits; omit it if it has none.

    Raises:
        DataError: If there is no such corpus or split, or the layout is not as published.
        MissingExtraError: If it is an HDF5 file and h5py is not installed.
    """
    corpus, place = find_corpus(name), Path(folder)
    corpus.check_split(split)
    if not place.is_dir():
        raise DataError(f"{place}: is not a folder: give the folder of corpus {name!r}")
    clips = corpus.read(place, split) if corpus.splits is None or split else corpus.read(place)
    if not clips:
        raise DataError(f"{place}: {f'split {split!r} of ' if split else ''}corpus {name!r} has no clips")
    return clips


def find_corpus(name: str) -> Corpus:
    """Returns a corpus by name.

    Raises:
        DataError: If there is no corpus of that name; the message names all.
    """
    if name not in CORPORA:
        raise DataError(f"unknown corpus {name!r}: choose from {', '.join(CORPORA)}")
    return CORPORA[name]
