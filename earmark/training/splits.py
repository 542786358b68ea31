"""Training and evaluation clips of a recipe, and their datasets.

Conventions: clips are in the order of the tables, one manifest or split after the other. Images replace
log-mels, so they have no front-end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray
from torch import nn

from earmark.data.clip_cache import CachedClips, ClipCache
from earmark.data.corpora import load_corpus
from earmark.data.dataset import ClipDataset, ClipGroup, epoch_batches, sampling_weights
from earmark.data.images import ImageDataset, image_features
from earmark.data.manifest import Clip, label_set, read_manifest, select, targets
from earmark.data.shards.pack import load_pack, read_pack_info, require_same_labels
from earmark.data.shards.sampler import shard_codes
from earmark.data.splits import stratified_folds
from earmark.errors import DataError
from earmark.evaluation.network_predictions import clip_windows
from earmark.features.front_end import FrontEnd
from earmark.hub.registry import cache_folder
from earmark.model_file.labels import label_set as named_labels
from earmark.models.network import Network
from earmark.models.waveform_network import split_front_end
from earmark.training.config.data import ClipSource
from earmark.training.config.recipe import Recipe

UNTRAINED = "untrained"
"""The label of a network that is pretrained without labels: a model has at least one."""


def source_clips(source: ClipSource) -> list[Clip]:
    """Reads the clips of a source and assigns their folds.

    Raises:
        DataError: If a manifest or shards are damaged, or a corpus is not in its published layout.
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
    """The clips of one run: a group of training clips for each source, and evaluation clips."""

    labels: tuple[str, ...]
    groups: tuple[tuple[Clip, ...], ...]
    evaluated: tuple[Clip, ...] = ()


def split_clips(recipe: Recipe, fold: int | None) -> Split:
    """Reads the recipe's clips and splits off a fold.

    Args:
        recipe: Names the sources and filters of training clips.
        fold: Evaluate on every clip of this fold, train on the others; None: train on all.

    Raises:
        DataError: If a source is damaged, a label unknown, or there are no training or evaluation clips.
    """
    _require_same_shard_labels(recipe)
    sources = [(source, source_clips(source)) for source in recipe.data.sources]
    everything = [clip for _, clips in sources for clip in clips]
    labels = _labels(recipe, everything)
    targets(everything, labels)
    groups = tuple(
        tuple(clip for clip in select(clips, source.train_filter) if fold is None or clip.fold != fold)
        for source, clips in sources
    )
    usable = [clip for clip in everything if clip.labelled or recipe.contrastive is not None]
    evaluated = tuple(clip for clip in usable if fold is not None and clip.fold == fold)
    if fold is not None and not evaluated:
        raise DataError(f"recipe {recipe.name!r}: no clip is in fold {fold}")
    if not any(groups):
        raise DataError(f"recipe {recipe.name!r}: no training clips")
    return Split(labels, groups, evaluated)


def _require_same_shard_labels(recipe: Recipe) -> None:
    """Checks that shards agree on the labels, unless the recipe lists them."""
    packs = [source.shards for source in recipe.data.sources if source.shards is not None and source.labelled]
    if recipe.data.labels is None:
        require_same_labels([(pack, read_pack_info(pack)) for pack in packs])


def _labels(recipe: Recipe, clips: Sequence[Clip]) -> tuple[str, ...]:
    """The labels of a recipe; each listed one must occur, unless no clip has any."""
    listed = recipe.data.labels
    if recipe.contrastive is not None:
        return (UNTRAINED,)
    if isinstance(listed, str):
        return named_labels(listed)
    found = label_set(clips)
    absent = [label for label in listed or () if label not in found]
    if found and absent:
        names = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        raise DataError(f"recipe {recipe.name!r}: no clip has the label {names}: remove it from data.labels")
    return listed or found


def epoch_draws(recipe: Recipe, split: Split) -> list[ClipGroup]:
    """The clips that an epoch draws from each group."""
    found = []
    for source, group in zip(recipe.data.sources, split.groups, strict=True):
        weights = sampling_weights(targets(group, split.labels)) if source.balanced and group else None
        within = recipe.data.shuffle_shards
        shards = shard_codes(group) if within else None
        found.append(ClipGroup(len(group), source.clips_per_epoch, weights, shards, within))
    return found


def steps_per_epoch(recipe: Recipe, split: Split) -> int:
    """Batches in an epoch of a run."""
    sizes = [
        ClipGroup(len(group), source.clips_per_epoch)
        for source, group in zip(recipe.data.sources, split.groups, strict=True)
    ]
    return len(list(epoch_batches(sizes, recipe.optimizer.batch_size, (0,))))


def training_dataset(recipe: Recipe, split: Split) -> ClipDataset | ImageDataset:
    """All training clips, one group after the other, cropped at random."""
    return clip_dataset(recipe, [clip for group in split.groups for clip in group], split.labels)


def clip_dataset(recipe: Recipe, clips: Sequence[Clip], labels: Sequence[str]) -> ClipDataset | ImageDataset:
    """Clips with the window and front-end of a recipe, cropped at random."""
    front_end = recipe.front_end
    if recipe.data.is_images and isinstance(front_end, FrontEnd):
        frames = front_end.num_frames(recipe.window_length)
        return ImageDataset(clips, labels, front_end=front_end, frames=frames, tolerant=True)
    return ClipDataset(
        clips,
        labels,
        sample_rate=front_end.sample_rate,
        length=recipe.window_length,
        padding=recipe.padding,
        cache=clip_cache(recipe),
        tolerant=True,
        random_padding=recipe.augment.random_padding,
    )


def clip_cache(recipe: Recipe) -> ClipCache | None:
    """The folder of decoded clips that a recipe names, or None.

    Raises:
        DataError: If it cannot be created.
    """
    if not recipe.data.cache:
        return None
    folder = recipe.data.cache_folder or cache_folder() / "clips"
    return ClipCache(folder, round(1e9 * recipe.data.cache_gb))


def evaluation_windows(
    recipe: Recipe, cached: CachedClips, on_error: Callable[[int, str], object]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Position and windows of clips, for :func:`earmark.evaluation.network_predictions.predict_windows`."""
    front_end, position = recipe.front_end, count()
    if recipe.data.is_images and isinstance(front_end, FrontEnd):
        frames = front_end.num_frames(recipe.window_length)
        return image_features(cached.clips, front_end, frames, on_error)
    return clip_windows(
        cached.clips,
        front_end.sample_rate,
        recipe.window_length,
        recipe.padding,
        windows=recipe.evaluation.windows,
        min_samples=front_end.min_samples,
        on_error=on_error,
        read=lambda _: cached.read(next(position)),  # each clip once, in their order
    )


def split_network(recipe: Recipe, network: Network) -> tuple[nn.Module, Network]:
    """The module from clips to features, and the network from features to outputs."""
    front_end, behind = split_front_end(network, recipe.front_end)
    return nn.Identity() if recipe.data.is_images else front_end, behind
