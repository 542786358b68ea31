"""Clips as commands are given them: a manifest, a pack, or the folder of a published corpus.

Conventions: recipes define the same clips with the keys ``manifests``, ``shards``, and ``corpus``, ``folder``
and ``split``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from earmark.data.corpora import find_corpus, load_corpus
from earmark.data.manifest import Clip, clips_hash, file_hash, read_manifest
from earmark.data.shards.pack import (
    MANIFEST_FILE,
    PACK_FILE,
    PackInfo,
    check,
    rate_warnings,
    read_pack_info,
)
from earmark.errors import DataError


@dataclass(frozen=True)
class ClipTable:
    """Clips, and where they are from.

    Args:
        path: Manifest, or folder of the corpus.
        clips: In the order of the table.
        corpus: Name of the corpus, and its splits; empty: it is a manifest or a pack.
        pack: Description of the pack; None: it is no pack.
    """

    path: Path
    clips: tuple[Clip, ...]
    corpus: str = ""
    pack: PackInfo | None = None

    @property
    def name(self) -> str:
        """The manifest's file name, or the corpus and its splits."""
        return self.corpus or self.path.name

    @property
    def sha256(self) -> str:
        """SHA-256 of the manifest; of a corpus: of the ids, labels and folds of its clips."""
        return clips_hash(self.clips) if self.corpus else file_hash(self.path)

    @property
    def origin(self) -> dict[str, str]:
        """Path, corpus and SHA-256, for reports."""
        named = {"corpus": self.corpus} if self.corpus else {}
        return {"path": str(self.path), **named, "sha256": self.sha256}

    def rate_warnings(self, sample_rate: int) -> tuple[str, ...]:
        """A warning if the clips of a pack were stored at another rate than a model takes.

        Args:
            sample_rate: Of the model, in Hz.
        """
        return () if self.pack is None else rate_warnings(self.path.parent, self.pack, sample_rate)


def read_clips(
    path: str | os.PathLike[str],
    *,
    audio: str | Path | None = None,
    corpus: str | None = None,
    splits: Sequence[str] = (),
) -> ClipTable:
    """Reads the clips of a manifest, a pack or a corpus.

    Args:
        path: A manifest, the folder of a pack, or with ``corpus`` the folder of that corpus.
        audio: Folder that relative paths of a manifest start from; None: its own.
        corpus: Name of a published corpus, see :data:`earmark.data.corpora.CORPORA`.
        splits: Of the corpus, one after the other.

    Raises:
        DataError: If the clips cannot be read, or the options do not apply.
        MissingExtraError: If they are in an HDF5 file and h5py is not installed.
    """
    place = Path(path)
    if corpus is None:
        if splits:
            raise DataError(f"split {splits[0]!r} is of a corpus: name the corpus too")
        return _of_manifest(place, audio)
    if audio is not None:
        raise DataError(f"corpus {corpus!r} is read from its own folder: omit the folder of the audio files")
    if find_corpus(corpus).is_images:
        raise DataError(f"corpus {corpus!r} holds images, which only a training reads")
    clips = [clip for split in splits or ("",) for clip in load_corpus(corpus, place, split)]
    return ClipTable(place, tuple(clips), f"{corpus} {'+'.join(splits)}".strip())


def _of_manifest(path: Path, audio: str | Path | None) -> ClipTable:
    pack = None
    if path.is_dir():
        pack, path = check(path), path / MANIFEST_FILE
    elif path.name == MANIFEST_FILE and path.with_name(PACK_FILE).is_file():
        pack = read_pack_info(path.parent)
    return ClipTable(path, tuple(read_manifest(path, audio)), pack=pack)
