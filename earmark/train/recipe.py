"""A recipe: all that makes a training what it is, checked before anything runs.

Conventions: TOML, one table per section; paths are relative to the folder that the command is run in; lengths
end in their unit. What a recipe does not say has the default given here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from earmark.config import Section, load
from earmark.data.augment import Stripes
from earmark.data.corpora import find_corpus
from earmark.errors import DataError, ModelError
from earmark.frontend import FrontEnd
from earmark.labels import label_set
from earmark.learned_frontend import LEAF, SINCNET, AnyFrontEnd, LearnedFrontEnd, front_end_from_dict
from earmark.record import Padding, Task

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]


_LEARNED = {"leaf": LEAF, "sincnet": SINCNET}


def _front_end(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    if values.get("kind", "leaf") not in list(_LEARNED):
        raise ValueError(f"kind must be one of {', '.join(_LEARNED)}, or left out for a log-mel")
    defaults = (_LEARNED[values["kind"]] if "kind" in values else FrontEnd()).to_dict()
    unknown = sorted(set(values) - set(defaults))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed here: {', '.join(defaults)}")
    try:
        return front_end_from_dict(defaults | values)
    except ModelError as error:
        raise ValueError(str(error)) from None


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _label_set(value: Any) -> Any:
    try:
        return label_set(value) if isinstance(value, str) else value
    except ModelError as error:
        raise ValueError(str(error)) from None


class Annealing(Section):
    """How the temperature of a DyMN falls: steeply to 1, then gently to that of ``model.arguments``."""

    start: Annotated[float, Field(ge=1)] = 30.0
    """In the first epoch."""
    slope: Positive = 1.0
    """Lost in each epoch until it is 1."""
    late_slope: Positive = 0.02
    """Lost in each epoch after that."""


class Model(Section):
    """The network to train."""

    architecture: str
    """Name in the registry."""
    arguments: Mapping[str, Any] = {}
    """What the architecture is built with; the number of classes comes from the labels."""
    base: str | None = None
    """Checkpoint, or name of published weights, of the same network to start from; by default: none."""
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
        """What to call it: its corpus and splits, or its manifests."""
        if self.corpus is None:
            return ", ".join(map(str, self.manifests))
        return " ".join([self.corpus, "+".join(self.split)]).strip() + f" in {self.folder}"

    @model_validator(mode="after")
    def _is_one_thing(self) -> Source:
        if bool(self.manifests) == bool(self.corpus):
            raise ValueError("a source needs manifests or a corpus, and not both")
        mine, others = ("corpus", ("audio", "columns")) if self.corpus else ("manifests", ("folder", "split"))
        for name in others:
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
    labels: Annotated[tuple[str, ...] | None, BeforeValidator(_label_set)] = None
    """Classes in the order of the logits, or a set such as "audioset"; by default all, from A to Z."""
    folds: tuple[Count, ...] = ()
    """Judge a network on each of these, then train one on everything; only one: its network is the result."""
    cache: bool = False
    """Keep decoded clips in memory."""
    workers: Natural = 0
    """Processes that load clips."""

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


_OF_WAVEFORMS = ("crop_s", "roll_s", "shift_s", "speed", "gain_db", "impulses", "mix_probability")
_OF_SOUND = (*_OF_WAVEFORMS, "equalize_db", "limit_probability", "f_min_range", "f_max_range")
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


def _as_tables(values: Any) -> Any:
    return [values] if isinstance(values, dict | Teaching) else values


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


class Logging(Section):
    """Where the numbers of a training are shown, besides the run's own log."""

    to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Loggers, each an extra of that name."""


class Recipe(Section):
    """A training from clips to a checkpoint."""

    name: str
    description: str
    source: str
    """Where the method comes from."""
    command: str
    cost: str
    """What it takes: hardware and hours."""
    expected: str
    """The score it reached, and on what."""
    license: str = ""
    """Of the weights that come out."""
    seed: Natural = 0
    task: Task = "multi_label"
    window_s: Positive
    padding: Padding = "repeat"
    model: Model
    front_end: Annotated[AnyFrontEnd, BeforeValidator(_front_end)] = FrontEnd()
    """A log-mel, or with ``kind`` one that learns with the network."""
    data: Data
    augment: Augment = Augment()
    loss: Loss = Loss()
    schedule: Schedule = Schedule()
    optimizer: Optimizer
    teacher: Annotated[tuple[Teaching, ...], BeforeValidator(_as_tables)] = ()
    """One table, or several."""
    judge: Judge = Judge()
    logging: Logging = Logging()

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        for name in ("gain_db", "speed", "crop_area", "crop_aspect"):
            low, high = getattr(self.augment, name) or (0, 0)
            if low > high:
                raise ValueError(f"augment.{name} must be [lowest, highest]")
        if self.loss.ranking_weight and self.task == "single_label":
            raise ValueError("loss.ranking_weight is for task multi_label: cross-entropy ranks already")
        if self.model.base is None and (self.model.new_head or self.optimizer.base_factor != 1):
            raise ValueError("model.new_head and optimizer.base_factor need a model.base")
        if isinstance(self.front_end, LearnedFrontEnd):
            for name in ("equalize_db", "limit_probability", "f_min_range", "f_max_range"):
                if getattr(self.augment, name):
                    raise ValueError(f"augment.{name} is for log-mels, the front-end learns: leave it out")
        if self.augment.limit_probability and getattr(self.front_end, "floor", 1) == 0:
            raise ValueError("augment.limit_probability needs a front-end with a floor")
        return self

    @model_validator(mode="after")
    def _is_taught(self) -> Recipe:
        if not self.teacher and not all(source.labelled for source in self.data.sources):
            raise ValueError(
                "data.sources with labelled = false need a [teacher]: nothing else learns from them"
            )
        if sum(teacher.label_weight != 1 for teacher in self.teacher) > 1:
            raise ValueError("teacher.label_weight stands for the whole run: give it with one teacher only")
        return self

    @model_validator(mode="after")
    def _suits_images(self) -> Recipe:
        if not self.data.is_images:
            return self
        if isinstance(self.front_end, LearnedFrontEnd) or not self.front_end.floor:
            raise ValueError("images take the place of log-mels: front_end must be one, with a floor")
        if self.teacher:
            raise ValueError("a teacher hears sound, and the clips are images: leave [teacher] out")
        for name in _OF_SOUND:
            if getattr(self.augment, name) != Augment.model_fields[name].default:
                raise ValueError(f"augment.{name} is for sound, and the clips are images: leave it out")
        return self

    @model_validator(mode="after")
    def _is_long_enough(self) -> Recipe:
        if self.augment.crop_s > self.window_s:
            raise ValueError("augment.crop_s is longer than window_s")
        for name, length_s in (("window_s", self.window_s), ("augment.crop_s", self.augment.crop_s)):
            samples = round(length_s * self.front_end.sample_rate)
            if samples < self.front_end.min_samples and (length_s or name == "window_s"):
                raise ValueError(f"{name} is shorter than one frame of the front-end")
        return self

    @property
    def runs(self) -> tuple[int | None, ...]:
        """The folds that are judged, one run each, and None for a run on all clips; the last one is kept.

        A single fold is a published split, whose clips to judge by are never trained on.
        """
        return self.data.folds if len(self.data.folds) == 1 else (*self.data.folds, None)

    @property
    def window_length(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.front_end.sample_rate)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: A TOML file.
        overrides: ``"optimizer.epochs=5"`` and the like.

    Raises:
        RecipeError: If a key is unknown or a value does not fit; the message names what is allowed.
    """
    return load(Recipe, path, overrides)
