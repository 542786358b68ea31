"""The clips of a recipe's sources, from manifests or from a published corpus, and how a run takes them.

Conventions: clips come in the order of the tables, one manifest or split after the other. Images are in the
place of log-mels, so they have no front-end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from earmark.data.corpora import load_corpus
from earmark.data.dataset import ClipDataset, Draw, epoch_batches, sampling_weights
from earmark.data.images import ImageDataset, image_features
from earmark.data.manifest import Clip, label_set, read_manifest, select, targets
from earmark.data.shards.pack import load_pack, read_heading, require_same_labels
from earmark.data.shards.sampler import shard_codes
from earmark.data.splits import stratified_folds
from earmark.errors import DataError
from earmark.evaluation.network_predictions import clip_windows
from earmark.features.front_end import FrontEnd
from earmark.model_file.labels import label_set as named_labels
from earmark.models.network import Network
from earmark.models.waveform_network import split_front_end
from earmark.training.config.recipe import Recipe
from earmark.training.config.data import ClipSource


def source_clips(source: ClipSource) -> list[Clip]:
    """Reads all clips of a source, and puts them into folds as it says.

    Raises:
        DataError: If a manifest or a pack is damaged, or a corpus is not laid out as published.
        MissingExtraError: If reading it needs a package that is not installed.
    """
    if source.shards is not None:
        clips = load_pack(source.shards)[1]
    elif source.corpus is None or source.folder is None:
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
    if source.num_folds:
        clips = stratified_folds(clips, source.num_folds)
    if source.fold is not None:
        clips = [replace(clip, fold=source.fold) for clip in clips]
    return clips


@dataclass(frozen=True)
class Split:
    """The clips of one run: to train on, a group for each source, and to judge by."""

    labels: tuple[str, ...]
    groups: tuple[tuple[Clip, ...], ...]
    judged: tuple[Clip, ...] = ()


def split_clips(recipe: Recipe, fold: int | None) -> Split:
    """Reads the recipe's clips and sets a fold apart.

    Args:
        recipe: Names the manifests or corpora and which clips may be trained on.
        fold: Judged on every clip of this fold, trained on the others; None: train on all, judge nothing.

    Raises:
        DataError: If a manifest or corpus is damaged, a label unknown, or nothing is left to train on or
            to judge.
    """
    _require_alike_packs(recipe)
    sources = [(source, source_clips(source)) for source in recipe.data.sources]
    everything = [clip for _, clips in sources for clip in clips]
    labels = _labels(recipe, everything)
    targets(everything, labels)
    groups = tuple(
        tuple(clip for clip in select(clips, source.train_filter) if fold is None or clip.fold != fold)
        for source, clips in sources
    )
    judged = tuple(clip for clip in everything if fold is not None and clip.fold == fold and clip.labelled)
    if fold is not None and not judged:
        raise DataError(f"recipe {recipe.name!r}: no clip has fold {fold} to judge by")
    if not any(groups):
        raise DataError(f"recipe {recipe.name!r}: no clip is left to train on")
    return Split(labels, groups, judged)


def _require_alike_packs(recipe: Recipe) -> None:
    """Packs have to agree on what the classes are, unless the recipe says it."""
    packs = [source.shards for source in recipe.data.sources if source.shards is not None and source.labelled]
    if recipe.data.labels is None:
        require_same_labels([(pack, read_heading(pack)) for pack in packs])


def _labels(recipe: Recipe, clips: Sequence[Clip]) -> tuple[str, ...]:
    """The recipe's classes; of a list of its own, none may be on no clip, unless no clip has a label."""
    wanted = recipe.data.labels
    if isinstance(wanted, str):
        return named_labels(wanted)
    found = label_set(clips)
    idle = [label for label in wanted or () if label not in found]
    if found and idle:
        listed = ", ".join(idle[:5]) + (", ..." if len(idle) > 5 else "")
        raise DataError(
            f"recipe {recipe.name!r}: no clip has the label {listed}: leave it out of data.labels"
        )
    return wanted or found


def draws(recipe: Recipe, split: Split) -> list[Draw]:
    """What an epoch takes of each group."""
    found = []
    for source, group in zip(recipe.data.sources, split.groups, strict=True):
        weights = sampling_weights(targets(group, split.labels)) if source.balanced and group else None
        within = recipe.data.shuffle_shards
        shards = shard_codes(group) if within else None
        found.append(Draw(len(group), source.clips_per_epoch, weights, shards, within))
    return found


def steps_per_epoch(recipe: Recipe, split: Split) -> int:
    """Batches that an epoch of a run has."""
    sizes = [
        Draw(len(group), source.clips_per_epoch)
        for source, group in zip(recipe.data.sources, split.groups, strict=True)
    ]
    return len(list(epoch_batches(sizes, recipe.optimizer.batch_size, (0,))))


def clips_to_train(recipe: Recipe, split: Split) -> ClipDataset | ImageDataset:
    """All clips of the groups, one group after the other, cut at random."""
    clips = [clip for group in split.groups for clip in group]
    front_end = recipe.front_end
    if recipe.data.is_images and isinstance(front_end, FrontEnd):
        frames = front_end.num_frames(recipe.window_length)
        return ImageDataset(clips, split.labels, front_end=front_end, frames=frames)
    return ClipDataset(
        clips,
        split.labels,
        sample_rate=front_end.sample_rate,
        length=recipe.window_length,
        padding=recipe.padding,
        cache=recipe.data.cache,
        tolerant=True,
    )


def clips_to_judge(recipe: Recipe, clips: Sequence[Clip]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Position and windows of clips, as :func:`earmark.evaluation.network_predictions.predict` wants them."""
    front_end = recipe.front_end
    if recipe.data.is_images and isinstance(front_end, FrontEnd):
        return image_features(clips, front_end, front_end.num_frames(recipe.window_length))
    return clip_windows(
        clips,
        front_end.sample_rate,
        recipe.window_length,
        recipe.padding,
        hear=recipe.evaluation.windows,
        shortest=front_end.min_samples,
    )


def hearing(recipe: Recipe, network: Network) -> tuple[nn.Module, Network]:
    """What turns a clip into features, and the network behind it."""
    front_end, behind = split_front_end(network, recipe.front_end)
    return nn.Identity() if recipe.data.is_images else front_end, behind
