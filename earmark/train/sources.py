"""The clips of a recipe's sources: from manifests or from a published corpus.

Conventions: clips come in the order of the tables, one manifest or split after the other.
"""

from __future__ import annotations

from dataclasses import replace

from earmark.data.corpora import load_corpus
from earmark.data.manifest import Clip, read_manifest
from earmark.data.stratify import deal
from earmark.train.recipe import Source


def source_clips(source: Source) -> list[Clip]:
    """Reads all clips of a source, and puts them into folds as it says.

    Raises:
        DataError: If a manifest is damaged, or a corpus is not laid out as published.
        MissingExtraError: If reading it needs a package that is not installed.
    """
    if source.corpus is None or source.folder is None:
        columns = {str(ours): theirs for ours, theirs in source.columns.items()}
        clips = [
            clip
            for path in source.manifests
            for clip in read_manifest(path, source.audio, source.labelled, columns)
        ]
    else:
        clips = [
            clip
            for split in source.split or ("",)
            for clip in load_corpus(source.corpus, source.folder, split)
        ]
        if not source.labelled:
            clips = [replace(clip, labels=(), unknown=(), labelled=False) for clip in clips]
    if source.deal_folds:
        clips = deal(clips, source.deal_folds)
    if source.fold is not None:
        clips = [replace(clip, fold=source.fold) for clip in clips]
    return clips
