"""HEAR's evaluation of a model on a dataset: an embedding of each clip, and shallow networks on them.

Source: Turian et al., arXiv:2203.03022; see :mod:`earmark.evaluation.embedding_probe`.

Conventions: datasets are manifests or packs with the column ``fold``. A dataset whose clips have one label
each is a single-label task, any other a multi-label one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip, read_manifest
from earmark.data.read_clip import read_clip
from earmark.data.shards.pack import manifest_of
from earmark.errors import DataError, EarmarkError, extra
from earmark.integrations.hear import HearModel, get_scene_embeddings

with extra("probing an embedding", "train"):
    from earmark.evaluation.embedding_probe import ProbeResult, probe

Floats = NDArray[np.float32]


def probe_model(
    model: HearModel,
    dataset: Path | Sequence[Clip],
    *,
    audio: Path | None = None,
    count: int = 8,
    seed: int = 0,
    progress: Callable[[str], object] = lambda text: None,
    on_error: Callable[[str], object] = lambda reason: None,
) -> ProbeResult:
    """Rates the embedding of a model on a dataset.

    Args:
        model: Of :func:`earmark.integrations.hear.load_model`.
        dataset: Path of a manifest or a pack, or clips.
        audio: Folder of a manifest's relative paths; default: its own.
        count: Settings of the networks to try, of 16.
        seed: Of the networks.
        progress: Called with what is worked on.
        on_error: Called with the reason when a clip cannot be read; it is left out.

    Raises:
        DataError: If the dataset cannot be read, no clip can be read or has a label, or it has fewer than
            three folds.
    """
    given = read_manifest(manifest_of(dataset), audio) if isinstance(dataset, Path) else list(dataset)
    clips, vectors = [], []
    for number, clip in enumerate(given):
        progress(f"{number + 1} of {len(given)} clips  {clip.path}")
        try:
            waveform = read_clip(clip, model.sample_rate)
        except EarmarkError as error:
            on_error(str(error))
            continue
        clips.append(clip)
        vectors.append(get_scene_embeddings(waveform[None], model)[0])
    labels = sorted({label for clip in clips for label in clip.labels})
    if not labels:
        raise DataError("the dataset has no clip that can be read and has a label")
    targets = np.array([[label in clip.labels for label in labels] for clip in clips], np.float32)
    single = all(len(clip.labels) == 1 for clip in clips)
    return probe(
        np.stack(vectors).astype(np.float32),
        targets,
        [clip.fold for clip in clips],
        "single_label" if single else "multi_label",
        count=count,
        seed=seed,
        progress=progress,
    )
