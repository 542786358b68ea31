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
from earmark.errors import ModelError
from earmark.frontend import FrontEnd
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


class Model(Section):
    """The network to train."""

    architecture: str
    """Name in the registry."""
    arguments: Mapping[str, Any] = {}
    """What the architecture is built with; the number of classes comes from the labels."""
    base: Path | None = None
    """Checkpoint to start from instead of random weights; of the same network, front-end and labels."""


class Source(Section):
    """Clips of one kind and how they are used."""

    manifests: Annotated[tuple[Path, ...], Field(min_length=1)]
    """CSV files with the columns path, labels, fold."""
    audio: Path | None = None
    """Folder that relative paths start from; by default each manifest's own."""
    train_on: Mapping[str, tuple[str, ...]] = {}
    """Column -> values: train on such clips only. Judging uses every clip of the fold."""
    labelled: bool = True
    """Off: nobody knows what is heard in these clips; they serve for a teacher's answers only."""
    clips_per_epoch: Count | None = None
    """Draw so many clips of this source in each epoch; by default all."""


class Data(Section):
    """The clips."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Their clips are put together."""
    labels: tuple[str, ...] | None = None
    """Classes in the order of the logits; by default all labels of the sources, in alphabetical order."""
    folds: tuple[Count, ...] = ()
    """Folds to cross-validate over; none: train on everything only."""
    cache: bool = False
    """Keep decoded clips in memory."""
    workers: Natural = 0
    """Processes that load clips."""


class Augment(Section):
    """Augmentation of training clips; zero switches a step off."""

    crop_s: Annotated[float, Field(ge=0)] = 0.0
    """Train on pieces of this length first: shorter steps, so more of them."""
    crop_share: Share = 1.0
    """Of the epochs, from the first on, that see such pieces; the others see whole windows."""
    roll_s: Annotated[float, Field(ge=0)] = 0.0
    """Shift each waveform around its end by up to this to either side."""
    speed: tuple[Positive, Positive] = (1.0, 1.0)
    """Range of the random playing speed, pitch and all."""
    gain_db: tuple[float, float] = (0.0, 0.0)
    """Range of the random gain."""
    mix_probability: Share = 0.0
    """Mix this share of the waveforms with a partner."""
    mix_alpha: Positive = 2.0
    """Beta distribution of the mixing weight."""
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """Beta distribution of the mixing weight of log-mels."""
    mask_mels: Natural = 0
    """Widest stripe of bands that is masked."""
    mask_s: Annotated[float, Field(ge=0)] = 0.0
    """Widest stripe of time that is masked."""
    equalize_db: Annotated[float, Field(ge=0)] = 0.0
    """Largest gain of the random colouring over the bands."""
    limit_probability: Share = 0.0
    """Share of the clips that lose their upper bands."""
    limit_lowest_hz: Positive = 3500.0
    """Lowest cut-off of the bands; the highest is half the sample rate."""
    f_min_range: Natural = 0
    """Jitter of the lower edge of the mel bank, in Hz."""
    f_max_range: Natural = 0
    """Jitter of the upper edge of the mel bank, in Hz."""


class Optimizer(Section):
    """AdamW, its learning rate and how long it runs."""

    learning_rate: Positive
    """The highest rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of weight matrices and kernels; norms and biases have none."""
    batch_size: Count = 32
    epochs: Count = 100
    warm_up_epochs: Annotated[float, Field(ge=0)] = 0.0
    """The rate rises over so many epochs, then falls along a cosine."""
    last_factor: Share = 0.0
    """Of the highest rate, at the end."""
    label_smoothing: Share = 0.0
    ranking_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the term that ranks the labels of a clip above all others; for task multi_label."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Moving average of weights and norm statistics by this much a step, judged and kept; 0: none."""
    precision: Literal["fp32", "bf16"] = "fp32"
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


def _as_list(values: Any) -> Any:
    return [values] if isinstance(values, dict | Teaching) else values


class Judge(Section):
    """How a fold is judged and what is kept."""

    every: Count = 10
    """Judge after so many epochs, and after the last."""
    keep: Literal["last", "best"] = "last"
    """The checkpoint that counts: the last, or the best by macro mAP on clips held out of the training."""
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
    optimizer: Optimizer
    teacher: Annotated[tuple[Teaching, ...], BeforeValidator(_as_list)] = ()
    """One table, or several."""
    judge: Judge = Judge()

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        for name in ("gain_db", "speed"):
            low, high = getattr(self.augment, name)
            if low > high:
                raise ValueError(f"augment.{name} must be [lowest, highest]")
        if not self.teacher and not all(source.labelled for source in self.data.sources):
            raise ValueError(
                "data.sources with labelled = false need a [teacher]: nothing else learns from them"
            )
        if self.optimizer.ranking_weight and self.task == "single_label":
            raise ValueError("optimizer.ranking_weight is for task multi_label: cross-entropy ranks already")
        if isinstance(self.front_end, LearnedFrontEnd):
            for name in ("equalize_db", "limit_probability", "f_min_range", "f_max_range"):
                if getattr(self.augment, name):
                    raise ValueError(f"augment.{name} is for log-mels, the front-end learns: leave it out")
        if sum(teacher.label_weight != 1 for teacher in self.teacher) > 1:
            raise ValueError("teacher.label_weight stands for the whole run: give it with one teacher only")
        if self.augment.limit_probability and getattr(self.front_end, "floor", 1) == 0:
            raise ValueError("augment.limit_probability needs a front-end with a floor")
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
