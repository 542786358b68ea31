"""The tables of a recipe: what each may say, and what it means where it says nothing.

Conventions: lengths end in their unit; zero switches a step off; a key that does not fit others is refused
when the recipe is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from earmark.data.augment import Stripes
from earmark.data.corpora import find_corpus
from earmark.errors import DataError, ModelError
from earmark.evaluation.thresholds import Target
from earmark.model_file.calibration import Method
from earmark.model_file.labels import label_set
from earmark.training.config.toml import Section

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _known_set(value: Any) -> Any:
    if isinstance(value, str):
        try:
            label_set(value)
        except ModelError as error:
            raise ValueError(str(error)) from None
    return value


def _target(value: str) -> str:
    try:
        return str(Target.parse(value))
    except DataError as error:
        raise ValueError(str(error)) from None


class Annealing(Section):
    """How the temperature of a DyMN falls: steeply to 1, then gently to that of ``model.arguments``."""

    start: Annotated[float, Field(ge=1)] = 30.0
    """In the first epoch."""
    slope: Positive = 1.0
    """Lost in each epoch until it is 1."""
    late_slope: Positive = 0.02
    """Lost in each epoch after that."""


def fold_name(fold: int | None) -> str:
    """What ``{fold}`` stands for in a path: the folder of a fold's run; None: of that on all clips."""
    return "all" if fold is None else f"fold{fold}"


class Model(Section):
    """The network to train."""

    architecture: str
    """Name in the registry."""
    arguments: Mapping[str, Any] = {}
    """What the architecture is built with; the number of classes comes from the labels."""
    base: str | None = None
    """Of the same network, to start from: a checkpoint ({fold}: fold1, ..., all), or a published name."""
    new_head: bool = False
    """The labels are others than those of the base: its last layer is left behind."""
    annealing: Annealing | None = None
    """Of the kernels' temperature, for networks that have one (DyMN)."""


class Source(Section):
    """Clips of one kind and how they are used."""

    manifests: tuple[Path, ...] = ()
    """CSV files with the columns path, labels, fold; or else a corpus."""
    audio: Path | None = None
    """Folder that relative paths start from; by default each manifest's own."""
    columns: Mapping[Literal["path", "labels", "fold", "unknown", "member", "id"], str] = {}
    """What the tables call these columns, where it is something else."""
    pack: Path | None = None
    """A folder that ``earmark pack`` made, instead of manifests."""
    corpus: str | None = None
    """A published corpus, in its own layout, instead of manifests."""
    folder: Path | None = None
    """Where the corpus lies."""
    split: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    """One or several of the corpus's splits, where it has some."""
    fold: Natural | None = None
    """Put all of these clips into this fold; by default the manifest or corpus tells."""
    deal_folds: Annotated[int, Field(ge=2)] | None = None
    """Deal the clips into so many folds, each with its share of every class."""
    train_on: Mapping[str, tuple[str, ...]] = {}
    """Column -> values: train on such clips only. Judging uses every clip of the fold."""
    labelled: bool = True
    """Off: nobody knows what is heard in these clips; they serve for a teacher's answers only."""
    clips_per_epoch: Count | None = None
    """Draw so many clips of this source in each epoch; by default all."""
    balanced: bool = False
    """Draw clips of rare labels more often, by the sum of 1000 / (100 + clips of a label) over labels."""

    @property
    def title(self) -> str:
        """What to call it: its corpus and splits, its pack, or its manifests."""
        if self.pack is not None:
            return str(self.pack)
        if self.corpus is None:
            return ", ".join(map(str, self.manifests))
        return " ".join([self.corpus, "+".join(self.split)]).strip() + f" in {self.folder}"

    @model_validator(mode="after")
    def _is_one_thing(self) -> Source:
        if [bool(self.manifests), bool(self.corpus), self.pack is not None].count(True) != 1:
            raise ValueError("a source needs manifests, a pack or a corpus, and only one of them")
        mine = "corpus" if self.corpus else "pack" if self.pack is not None else "manifests"
        others = {"corpus": ("audio", "columns"), "manifests": ("folder", "split")}
        for name in others.get(mine, ("audio", "columns", "folder", "split")):
            if getattr(self, name):
                raise ValueError(f"{name} does not go with {mine}: leave it out")
        if self.fold is not None and self.deal_folds:
            raise ValueError("fold and deal_folds exclude each other: leave one out")
        if self.corpus is not None:
            self._check_corpus(self.corpus)
        return self

    def _check_corpus(self, name: str) -> None:
        if self.folder is None:
            raise ValueError("a corpus needs its folder")
        try:
            corpus = find_corpus(name)
            for split in self.split or ("",):
                corpus.check_split(split)
        except DataError as error:
            raise ValueError(str(error)) from None


class Data(Section):
    """The clips."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Their clips are put together."""
    labels: Annotated[str | tuple[str, ...] | None, BeforeValidator(_known_set)] = None
    """Classes in the order of the logits, or a set such as "audioset"; by default all, from A to Z."""
    folds: tuple[Count, ...] = ()
    """Judge a network on each of these, then train one on everything; only one: its network is the result."""
    cache: bool = False
    """Keep decoded clips in memory."""
    workers: Natural = 0
    """Processes that load clips."""
    bad_share: Share = 0.01
    """Clips to train on that cannot be read are named and left out, up to this share of them."""
    mix_within: Natural = 0
    """Read packs shard by shard, and mix clips within so many of them; 0: clips come in any order."""

    @model_validator(mode="after")
    def _is_all_sound_or_all_images(self) -> Data:
        if len({_is_images(source) for source in self.sources}) > 1:
            raise ValueError(
                "sources of images do not go with sources of sound: train on one after the other"
            )
        return self

    @property
    def is_images(self) -> bool:
        """Whether the clips are images, which take the place of log-mels, instead of recordings."""
        return any(map(_is_images, self.sources))


def _is_images(source: Source) -> bool:
    return source.corpus is not None and find_corpus(source.corpus).is_images


OF_WAVEFORMS = ("crop_s", "roll_s", "shift_s", "speed", "gain_db", "impulses", "mix_probability")
OF_SOUND = (*OF_WAVEFORMS, "equalize_db", "limit_probability", "f_min_range", "f_max_range")
"""Augmentations that images, which take the place of log-mels, cannot have."""


class Augment(Section):
    """Augmentation of training clips, in this order; zero switches a step off."""

    crop_s: Annotated[float, Field(ge=0)] = 0.0
    """Train on pieces of this length first: shorter steps, so more of them."""
    crop_share: Share = 1.0
    """Of the epochs, from the first on, that see such pieces; the others see whole windows."""
    roll_s: Annotated[float, Field(ge=0)] = 0.0
    """Shift each waveform around its end by up to this to either side."""
    shift_s: Annotated[float, Field(ge=0)] = 0.0
    """Move each waveform by up to this to either side, silence coming in."""
    speed: tuple[Positive, Positive] = (1.0, 1.0)
    """Range of the random playing speed, pitch and all."""
    gain_db: tuple[float, float] = (0.0, 0.0)
    """Range of the random gain."""
    impulses: Path | None = None
    """Folder of impulse responses (recordings of devices, of rooms) to play waveforms through."""
    impulse_probability: Share = 0.5
    """Share of the waveforms that are."""
    mix_probability: Share = 0.0
    """Mix this share of the waveforms with a partner."""
    mix_alpha: Positive = 2.0
    """Beta distribution of the mixing weight."""
    f_min_range: Natural = 0
    """Jitter of the lower edge of the mel bank, in Hz."""
    f_max_range: Natural = 0
    """Jitter of the upper edge of the mel bank, in Hz."""
    equalize_db: Annotated[float, Field(ge=0)] = 0.0
    """Largest gain of the random colouring over the bands."""
    limit_probability: Share = 0.0
    """Share of the clips that lose their upper bands."""
    limit_lowest_hz: Positive = 3500.0
    """Lowest cut-off of the bands; the highest is half the sample rate."""
    crop_area: tuple[Share, Share] | None = None
    """Cut out a rectangle of such a share of each log-mel and stretch it."""
    crop_aspect: tuple[Positive, Positive] = (0.8, 1.25)
    """Range of its bands per frame, as a multiple of those of the log-mel."""
    style_probability: Share = 0.0
    """Share of the batches whose log-mels swap some of their mean and spread in each band (Freq-MixStyle)."""
    style_alpha: Positive = 0.4
    """Beta distribution of the swapped share."""
    mask_mels: Natural = 0
    """Bands that a masked stripe stays below."""
    mask_s: Annotated[float, Field(ge=0)] = 0.0
    """Time that a masked stripe stays below."""
    mask_count: Count = 1
    """Stripes of either kind."""
    mask_stripes: Stripes = "independent"
    """How they are drawn: as EfficientAT and torchaudio ("independent") or audax ("linked") do it."""
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """Beta distribution of the mixing weight of log-mels."""
    mixup_share: Share = 1.0
    """Of the epochs, from the first on, that mix log-mels."""
    mixup_larger: bool = True
    """A clip's own share is the larger one."""
    mixup_alike: bool = False
    """One share for the whole batch."""


class Loss(Section):
    """What is minimised beside the teacher's part: (binary) cross-entropy, as the task says."""

    label_smoothing: Share = 0.0
    """Of each target, spread over the classes."""
    focal_gamma: Annotated[float, Field(ge=0)] = 0.0
    """Weigh what is answered well already less: times (1 - p) ** gamma."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weigh the classes, the rarer the higher."""
    ranking_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the term that ranks the labels of a clip above all others; for task multi_label."""
    unknown: Literal["skip", "count"] = "skip"
    """Labels that nobody knows are left out of the mean, or count in it as learned already (OpenMIC)."""


class Schedule(Section):
    """How the learning rate moves."""

    kind: Literal["cosine", "ramp", "steps"] = "cosine"
    """Linear rise and half a cosine; exponential rise, hold and linear fall; or one factor after another."""
    per: Literal["step", "epoch"] = "step"
    """How often it moves."""
    warm_up_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Of the rise."""
    last_factor: Share = 0.0
    """Of the highest rate, at the end."""
    hold_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epoch after which a ramp falls."""
    fall_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Of a ramp's fall."""
    step_epochs: Annotated[float, Field(ge=0)] = 0.0
    """For kind steps: after so many the rate is multiplied."""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """By this."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Schedule:
        for kind, key in (("ramp", "fall_epochs"), ("steps", "step_epochs")):
            if bool(getattr(self, key)) != (self.kind == kind):
                raise ValueError(f"{key} is for kind {kind}, which needs it; the kind is {self.kind}")
        if self.hold_epochs and self.kind != "ramp":
            raise ValueError(f"hold_epochs is for kind ramp; the kind is {self.kind}")
        return self


class Optimizer(Section):
    """AdamW, its learning rate and how long it runs."""

    learning_rate: Positive
    """The highest rate."""
    base_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What comes from ``model.base`` learns at this share of the rate, a new head at all of it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of weight matrices and kernels."""
    decay_all: bool = False
    """Norms and biases decay too."""
    batch_size: Count = 32
    accumulate: Count = 1
    """Batches whose gradients make one step."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Longest gradient; 0: any."""
    epochs: Count = 100
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Moving average of weights and norm statistics by this much a step, judged and kept; 0: none."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the network computes in while training."""
    channels_last: bool = False
    """Memory layout of activations; same results, often faster."""
    recompute: bool = False
    """Of inverted residual blocks, compute norms and activations anew for the backward pass: less memory."""
    sync_batch_norm: bool = False
    """With several processes: take the norms' statistics over all of them, not each over its share."""

    @model_validator(mode="after")
    def _norms_are_plain(self) -> Optimizer:
        if self.recompute and self.sync_batch_norm:
            raise ValueError("recompute does not go with sync_batch_norm: leave one out")
        return self


def _as_texts(values: Any) -> Any:
    return [str(values)] if isinstance(values, str | Path) else values


class Teaching(Section):
    """A teacher: where its answers come from, and what is learned from them besides the labels.

    Answers are stored, by clip, or those of a network that hears what the student hears, augmented and mixed.
    With labels of its own it is imitated through a linear layer on the embedding that is dropped at the end;
    with the run's labels the network's own head can learn from it.
    """

    path: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_texts)]
    """Stored answers (.npz, folder, .npy), or a network, or several: an ensemble; {fold}: fold1, ..., all."""
    index: Path | None = None
    """Of an .npy file: which row a clip has (pickle, JSON or CSV)."""
    labels: str | None = None
    """Of an .npy or LiteRT file: a label set's name, or a file of names."""
    kind: Literal["logits", "scores"] | None = None
    """Of an .npy or LiteRT file: what its numbers are."""
    sample_rate: Count | None = None
    """Of a LiteRT file: the rate that it expects, in Hz."""
    output: str | None = None
    """Of a LiteRT file: name of the tensor to learn from; by default its output."""
    distill_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the cross-entropy between the network's own head and the teacher's scores, for the run's labels."""
    temperature: Positive = 1.0
    """Divides the teacher's logits before they become scores."""
    label_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the labels' own loss."""
    weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the mean squared difference from its answers, through a layer of its own; any labels."""
    center: float = 0.0
    """Taken off its answers for that."""
    spread: Positive = 1.0
    """Divides them then."""
    probe_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of imitating, with the network's own head, what a linear probe on its answers says of the classes."""
    probe_passes: Count = 4
    """Over the labelled training clips, augmented, to fit the probe before the run."""

    @model_validator(mode="after")
    def _teaches(self) -> Teaching:
        if not (self.weight or self.probe_weight or self.distill_weight):
            raise ValueError(
                "nothing is learned from this teacher: give distill_weight, weight or probe_weight"
            )
        return self


class Judge(Section):
    """How a fold is judged and what is kept."""

    hear: Literal["windows", "whole", "center"] = "windows"
    """Of a longer clip: all windows, all of it at once, or a window from its middle."""

    every: Count = 10
    """Judge after so many epochs, and after the last."""
    keep: Literal["last", "best"] = "last"
    """The checkpoint that counts: the last, or the one of the best macro mAP on the clips judged by."""
    quiet_share: Share = 0.005
    """The default threshold lets at most this share of clips without labels, of each group, through."""
    lowest_threshold: Share = 0.3
    """The default threshold is never below this."""
    quiet_by: str = "kind"
    """Column that groups the clips without labels."""
    quiet_manifests: tuple[Path, ...] = ()
    """Clips without labels, never trained on, by which the threshold is chosen; none: no threshold."""
    quiet_on: Mapping[str, tuple[str, ...]] = {}
    """Column -> values: choose by such clips only."""
    calibrate: Method | None = None
    """Turn scores into probabilities by the clips that were judged: how."""
    target: Annotated[str, AfterValidator(_target)] | None = None
    """Then choose each label's threshold for it: precision=0.9, recall=0.8 or f1."""

    @model_validator(mode="after")
    def _has_probabilities(self) -> Judge:
        if self.target is not None and self.calibrate is None:
            raise ValueError("judge.target chooses thresholds of probabilities: give judge.calibrate too")
        return self


class Logging(Section):
    """Where the numbers of a training are shown, besides the run's own log."""

    to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Loggers, each an extra of that name."""


def _is_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError("must be auto, cpu, cuda, or one GPU such as cuda:0")
    return value


class Run(Section):
    """Where and how a run is done, which decides nothing and may change when it goes on."""

    device: Annotated[str, AfterValidator(_is_device)] = "auto"
    """cpu, cuda, or one GPU such as cuda:0; auto: a GPU where there is one."""
    save_every_s: Annotated[float, Field(ge=0)] = 600.0
    """Write the state this often within an epoch too, for a killed run to go on from; 0: after each step."""
    keep_memory: bool = False
    """On Linux, keep freed memory for the next step, not give it back: faster on a CPU, and larger."""
