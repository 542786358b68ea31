"""The tables ``data`` and ``augment`` of a recipe: training clips and their augmentation.

Conventions: lengths, rates and levels end in their unit; zero switches an augmentation off.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from earmark.data.augment import Stripes
from earmark.data.corpora import find_corpus
from earmark.errors import DataError, ModelError
from earmark.model_file.labels import label_set
from earmark.training.config.section import (
    Count,
    Decibels,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Section,
    WindowSeconds,
)


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _distinct(folds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(folds)) < len(folds):
        raise ValueError("must name each fold once")
    return folds


def _known_label_set(value: Any) -> Any:
    if isinstance(value, str):
        try:
            label_set(value)
        except ModelError as error:
            raise ValueError(str(error)) from None
    return value


_Speed = Annotated[float, Field(ge=0.1, le=10)]


class ClipSource(Section):
    """Clips of one kind: manifests, shards or a corpus."""

    manifests: tuple[Path, ...] = ()
    """CSV files with the columns path, labels, fold."""
    audio: Path | None = None
    """Folder that the manifests' relative paths start from (default: each manifest's folder)."""
    columns: Mapping[Literal["path", "labels", "fold", "unknown", "member", "id"], str] = {}
    """Names of these columns in the manifests, where they differ."""
    shards: Path | None = None
    """A folder written by ``earmark pack``, instead of manifests."""
    corpus: str | None = None
    """A published corpus in its own layout, instead of manifests."""
    folder: Path | None = None
    """Folder of the corpus."""
    split: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """One or several splits of the corpus, if it has any."""
    fold: Natural | None = None
    """Assign all clips to this fold (default: the fold given by the manifest or corpus)."""
    num_folds: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Assign clips to this many stratified folds."""
    train_filter: Mapping[str, tuple[str, ...]] = {}
    """Column -> allowed values of training clips. Evaluation uses every clip of the fold."""
    labelled: bool = True
    """False: the labels of these clips are unknown; they train on teacher targets, or in ``contrastive``."""
    clips_per_epoch: Count | None = None
    """Number of clips drawn in each epoch (default: all)."""
    balanced: bool = False
    """Draw clips with rare labels more often: weight = sum over labels of 1000 / (100 + its clips)."""

    @property
    def title(self) -> str:
        """A short description: corpus and splits, shards, or manifests."""
        if self.shards is not None:
            return str(self.shards)
        if self.corpus is None:
            return ", ".join(map(str, self.manifests))
        return " ".join([self.corpus, "+".join(self.split)]).strip() + f" in {self.folder}"

    @property
    def is_images(self) -> bool:
        """Whether the corpus holds images."""
        return self.corpus is not None and find_corpus(self.corpus).is_images

    @model_validator(mode="after")
    def _has_one_kind(self) -> ClipSource:
        kinds = {"manifests": bool(self.manifests), "corpus": bool(self.corpus), "shards": bool(self.shards)}
        given = [kind for kind, is_given in kinds.items() if is_given]
        if len(given) != 1:
            raise ValueError("a source needs exactly one of manifests, shards and corpus")
        refused = {"corpus": ("audio", "columns"), "manifests": ("folder", "split")}
        for name in refused.get(given[0], ("audio", "columns", "folder", "split")):
            if getattr(self, name):
                raise ValueError(f"{name} cannot be combined with {given[0]}: remove it")
        if self.fold is not None and self.num_folds:
            raise ValueError("fold and num_folds exclude each other: remove one")
        if self.corpus is not None:
            self._check_corpus(self.corpus)
        return self

    def _check_corpus(self, name: str) -> None:
        if self.folder is None:
            raise ValueError("corpus needs a folder")
        try:
            corpus = find_corpus(name)
            for split in self.split or ("",):
                corpus.check_split(split)
        except DataError as error:
            raise ValueError(str(error)) from None


class Data(Section):
    """The clips."""

    sources: Annotated[tuple[ClipSource, ...], Field(min_length=1)]
    """Their clips are concatenated."""
    labels: Annotated[str | tuple[str, ...] | None, BeforeValidator(_known_label_set)] = None
    """Classes in the order of the logits, or a label set such as "audioset" (default: all, sorted)."""
    folds: Annotated[tuple[Count, ...], AfterValidator(_distinct)] = ()
    """Folds to evaluate, one run each, then a run on all clips. A single fold is a fixed split."""
    cache: bool = False
    """Decode and resample each clip once, and keep the result on disk (16 bit) for later epochs and runs."""
    cache_folder: Path | None = None
    """Folder of decoded clips, which recipes may share (default: ``clips`` in the folder of models)."""
    cache_gb: Positive = 50.0
    """Most that the folder may hold, in GB (10^9 bytes); clips beyond that are decoded in each epoch."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that load clips."""
    max_bad_fraction: Fraction = 0.01
    """Skip unreadable training clips with a warning, up to this fraction of the clips."""
    shuffle_shards: Natural = 0
    """Read shards sequentially and shuffle clips within this many shards; 0: shuffle all clips."""

    @model_validator(mode="after")
    def _has_one_medium(self) -> Data:
        if len({source.is_images for source in self.sources}) > 1:
            raise ValueError("images and sound cannot be combined: train on one, then the other")
        return self

    @property
    def is_images(self) -> bool:
        """Whether the clips are images, used in place of log-mels."""
        return any(source.is_images for source in self.sources)


class Augment(Section):
    """Augmentation of training clips, in this order; zero switches a step off."""

    random_padding: bool = False
    """Put clips shorter than a window at a random place in it, instead of at its start (padding = "zero")."""
    crop_s: WindowSeconds = 0.0
    """Train on crops of this length first: shorter steps, so more of them."""
    crop_epoch_fraction: Fraction = 1.0
    """Fraction of the epochs, from the first on, that train on crops; the others use whole windows."""
    roll_s: WindowSeconds = 0.0
    """Largest circular shift of the waveform, to either side; crops are not rolled: they start anywhere."""
    speed: tuple[_Speed, _Speed] = (1.0, 1.0)
    """Range of the random playback speed (pitch changes too)."""
    gain_db: tuple[Decibels, Decibels] = (0.0, 0.0)
    """Range of the random gain."""
    noise_snr_db: Decibels | None = None
    """Add white noise to the waveform, at this signal-to-noise ratio."""
    impulse_responses: Path | None = None
    """Folder of impulse responses (devices, rooms) to convolve waveforms with."""
    impulse_probability: Fraction = 0.5
    """Probability of convolving a waveform with one."""
    waveform_mix_probability: Fraction = 0.0
    """Probability of mixing a waveform with a partner."""
    waveform_mix_alpha: Positive = 2.0
    """Beta distribution of that mixing weight."""
    f_min_range: Natural = 0
    """Jitter of the lower edge of the mel filter bank, in Hz."""
    f_max_range: Natural = 0
    """Jitter of the upper edge of the mel filter bank, in Hz."""
    equalize_db: Annotated[float, Field(ge=0, le=200)] = 0.0
    """Largest gain of the random equaliser over mel bands."""
    low_pass_probability: Fraction = 0.0
    """Probability of removing the bands above a random cut-off."""
    low_pass_min_hz: Positive = 3500.0
    """Lowest cut-off; the highest is half the sample rate."""
    resized_crop_scale: tuple[Fraction, Fraction] | None = None
    """Crop a random rectangle of this range of areas from each log-mel and resize it."""
    resized_crop_ratio: tuple[Positive, Positive] = (0.8, 1.25)
    """Range of its aspect ratio (bands per frame), relative to the log-mel's."""
    mixstyle_probability: Fraction = 0.0
    """Probability of Freq-MixStyle for a batch: mixing the mean and deviation of each band between clips."""
    mixstyle_alpha: Positive = 0.4
    """Beta distribution of its mixing weight."""
    mask_mels: Natural = 0
    """SpecAugment: upper bound (exclusive) of a frequency mask, in mel bands."""
    mask_s: WindowSeconds = 0.0
    """SpecAugment: upper bound (exclusive) of a time mask."""
    mask_count: Annotated[int, Field(ge=1, le=1000)] = 1
    """SpecAugment: masks of either kind."""
    mask_stripes: Stripes = "independent"
    """How masks are drawn: as in EfficientAT and torchaudio ("independent") or as in audax ("linked")."""
    mixup_alpha: NonNegative = 0.0
    """Mixup of log-mels: Beta distribution of the mixing weight."""
    mixup_epoch_fraction: Fraction = 1.0
    """Fraction of the epochs, from the first on, that use mixup."""
    mixup_larger: bool = True
    """The clip's own weight is the larger one, max(w, 1 - w)."""
    mixup_per_batch: bool = False
    """One mixing weight for the whole batch instead of one for each clip."""


WAVEFORM_AUGMENTATIONS = (
    "random_padding",
    "crop_s",
    "roll_s",
    "speed",
    "gain_db",
    "noise_snr_db",
    "impulse_responses",
    "waveform_mix_probability",
)
LOG_MEL_FILTERS = ("equalize_db", "low_pass_probability", "f_min_range", "f_max_range")
SOUND_AUGMENTATIONS = (*WAVEFORM_AUGMENTATIONS, *LOG_MEL_FILTERS)
"""Augmentations that do not apply to images."""
