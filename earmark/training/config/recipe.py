"""A recipe: the complete definition of a training, validated before anything runs.

Conventions: TOML, one table per model of this room; paths are relative to the working directory; names end in
their unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.learned import (
    LEARNED_FRONT_ENDS,
    LearnedFrontEnd,
    NetworkFrontEnd,
    front_end_from_dict,
)
from earmark.model_file.calibration import METHODS
from earmark.model_file.info import LONGEST_WINDOW_S, Padding, Task, window_problem
from earmark.training.config.contrastive import Contrastive, contrastive_problem
from earmark.training.config.data import LOG_MEL_FILTERS, SOUND_AUGMENTATIONS, Augment, Data
from earmark.training.config.evaluation import Evaluation, Logging, Run
from earmark.training.config.learning import Loss, Model, Optimizer, Schedule, Teacher
from earmark.training.config.section import Name, Section, Seed, fold_name
from earmark.training.config.toml import load


def _front_end(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    if values.get("kind", "leaf") not in list(LEARNED_FRONT_ENDS):
        raise ValueError(f"kind must be {' or '.join(LEARNED_FRONT_ENDS)}, or absent for a log-mel")
    default = LEARNED_FRONT_ENDS[values["kind"]] if "kind" in values else FrontEnd()
    allowed = [field.name for field in fields(default)]
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed here: {', '.join(allowed)}")
    try:
        return front_end_from_dict(default.to_dict() | values)
    except ModelError as error:
        raise ValueError(str(error)) from None


def _as_tables(values: Any) -> Any:
    return [values] if isinstance(values, dict | Teacher) else values


class Recipe(Section):
    """A training, from clips to a model file."""

    name: Name
    """Name of the model, of its file, and of its run folder."""
    description: str
    """What the model does."""
    source: str
    """The method, with its publication."""
    command: str
    """The command that runs the recipe."""
    cost: str
    """Hardware and hours."""
    expected: str
    """The score it reached, and on which clips."""
    license: str = ""
    """Licence of the weights."""
    seed: Seed = 0
    """Seed of everything random."""
    task: Task = "multi_label"
    """multi_label (sigmoid) or single_label (softmax)."""
    window_s: Annotated[float, Field(gt=0, le=LONGEST_WINDOW_S)]
    """Length of the network's input."""
    padding: Padding = "zero"
    """How shorter clips are filled up: zero or repeat."""
    model: Model
    front_end: Annotated[NetworkFrontEnd, BeforeValidator(_front_end)] = FrontEnd()
    """A log-mel, or a learned front-end if ``kind`` is given."""
    data: Data
    augment: Augment = Augment()
    contrastive: Contrastive | None = None
    """Contrastive pretraining on clips without labels."""
    loss: Loss = Loss()
    schedule: Schedule = Schedule()
    optimizer: Optimizer
    teacher: Annotated[tuple[Teacher, ...], BeforeValidator(_as_tables)] = ()
    """One table, or several."""
    evaluation: Evaluation = Evaluation()
    logging: Logging = Logging()
    run: Run = Run()

    @model_validator(mode="after")
    def _check_augmentation(self) -> Recipe:
        for name in ("gain_db", "speed", "resized_crop_scale", "resized_crop_ratio"):
            low, high = getattr(self.augment, name) or (0, 0)
            if low > high:
                raise ValueError(f"augment.{name} must be [lowest, highest], got [{low}, {high}]")
        if isinstance(self.front_end, LearnedFrontEnd):
            for name in LOG_MEL_FILTERS:
                if getattr(self.augment, name):
                    raise ValueError(f"augment.{name} needs a log-mel, the front-end is learned: remove it")
        if self.augment.low_pass_probability and getattr(self.front_end, "floor", 1) == 0:
            raise ValueError("augment.low_pass_probability needs a front-end with a floor above 0")
        if self.augment.random_padding and self.padding != "zero":
            raise ValueError('augment.random_padding needs padding = "zero"')
        return self

    @model_validator(mode="after")
    def _check_standardize(self) -> Recipe:
        if getattr(self.front_end, "standardize", None) != "log_mel":
            return self
        for name in ("equalize_db", "low_pass_probability"):
            if getattr(self.augment, name):
                raise ValueError(f'augment.{name} does not fit front_end.standardize = "log_mel": remove one')
        if self.data.is_images:
            raise ValueError('images replace log-mels, without front_end.standardize = "log_mel": remove it')
        return self

    @model_validator(mode="after")
    def _check_learning(self) -> Recipe:
        if self.loss.ranking_weight and self.task == "single_label":
            raise ValueError("loss.ranking_weight is for task multi_label only: remove it")
        if self.model.init_from is None and (self.model.new_head or self.optimizer.backbone_lr_scale != 1):
            raise ValueError("model.new_head and optimizer.backbone_lr_scale need model.init_from")
        learns = self.teacher or self.contrastive is not None
        if not learns and not all(source.labelled for source in self.data.sources):
            raise ValueError("data.sources with labelled = false need a [teacher] to learn from")
        if sum(teacher.label_weight != 1 for teacher in self.teacher) > 1:
            raise ValueError("teacher.label_weight applies to the whole run: set it for one teacher only")
        return self

    @model_validator(mode="after")
    def _check_contrastive(self) -> Recipe:
        if self.contrastive is not None and (problem := contrastive_problem(self)):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _check_calibration(self) -> Recipe:
        method = self.evaluation.calibration
        if method is not None and method not in METHODS[self.task]:
            allowed = " or ".join(METHODS[self.task])
            raise ValueError(f"evaluation.calibration for task {self.task} must be {allowed}, got {method}")
        if method is not None and not self.data.folds:
            raise ValueError("evaluation.calibration needs evaluation clips: set data.folds")
        return self

    @model_validator(mode="after")
    def _check_images(self) -> Recipe:
        if not self.data.is_images:
            return self
        if isinstance(self.front_end, LearnedFrontEnd) or not self.front_end.floor:
            raise ValueError("images replace log-mels: front_end must be a log-mel with a floor above 0")
        if self.teacher:
            raise ValueError("teachers process sound, and the clips are images: remove [teacher]")
        for name in SOUND_AUGMENTATIONS:
            if getattr(self.augment, name) != Augment.model_fields[name].default:
                raise ValueError(f"augment.{name} is for sound, and the clips are images: remove it")
        return self

    @model_validator(mode="after")
    def _check_lengths(self) -> Recipe:
        if problem := window_problem(self.front_end, self.window_s):
            raise ValueError(problem)
        pair_s = self.contrastive.crop_s if self.contrastive is not None else 0.0
        crops = {"augment.crop_s": self.augment.crop_s, "contrastive.crop_s": pair_s}
        for name, length_s in crops.items():
            if length_s > self.window_s:
                raise ValueError(f"{name} must be at most window_s ({self.window_s:g})")
        for name, length_s in {"window_s": self.window_s, **crops}.items():
            samples = round(length_s * self.front_end.sample_rate)
            if samples < self.front_end.min_samples and (length_s or name == "window_s"):
                raise ValueError(f"{name} is shorter than one frame of the front-end")
        return self

    @property
    def runs(self) -> tuple[int | None, ...]:
        """The evaluated folds, one run each, then None for a run on all clips. The last run is the result.

        A single fold is a published split: its clips are never trained on, and its run is the result.
        """
        return self.data.folds if len(self.data.folds) == 1 else (*self.data.folds, None)

    def of_fold(self, fold: int | None) -> Recipe:
        """The recipe of one run of :attr:`runs`, with ``{fold}`` in ``model.init_from`` filled in."""
        if self.model.init_from is None:
            return self
        path = self.model.init_from.replace("{fold}", fold_name(fold))
        return self.model_copy(update={"model": self.model.model_copy(update={"init_from": path})})

    @property
    def window_length(self) -> int:
        """Length of a window in samples."""
        return round(self.window_s * self.front_end.sample_rate)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Loads and validates a recipe.

    Args:
        path: A TOML file.
        overrides: ``"optimizer.epochs=5"`` and the like.

    Raises:
        RecipeError: If a key is unknown or a value not allowed; the message lists what is.
    """
    return load(Recipe, path, overrides)
