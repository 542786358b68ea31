"""A recipe: all that makes a training what it is, checked before anything runs.

Conventions: TOML, one table per section; paths are relative to the folder that the command is run in; lengths
end in their unit. What a recipe does not say has the default given here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.learned import LEAF, SINCNET, LearnedFrontEnd, NetworkFrontEnd, front_end_from_dict
from earmark.model_file.calibration import METHODS
from earmark.model_file.info import Padding, Task
from earmark.training.config.sections import (
    OF_SOUND,
    Augment,
    Data,
    Judge,
    Logging,
    Loss,
    Model,
    Natural,
    Optimizer,
    Positive,
    Run,
    Schedule,
    Teaching,
    fold_name,
)
from earmark.training.config.toml import Section, load

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


def _as_tables(values: Any) -> Any:
    return [values] if isinstance(values, dict | Teaching) else values


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
    front_end: Annotated[NetworkFrontEnd, BeforeValidator(_front_end)] = FrontEnd()
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
    run: Run = Run()

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
    def _can_be_calibrated(self) -> Recipe:
        method = self.judge.calibrate
        if method is not None and method not in METHODS[self.task]:
            raise ValueError(f"judge.calibrate for task {self.task} is {' or '.join(METHODS[self.task])}")
        if method is not None and not self.data.folds:
            raise ValueError("judge.calibrate needs clips that are judged: give data.folds")
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
        for name in OF_SOUND:
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

    def of_fold(self, fold: int | None) -> Recipe:
        """The recipe of one run of :attr:`runs`, which starts from its own fold's network."""
        if self.model.base is None:
            return self
        base = self.model.base.replace("{fold}", fold_name(fold))
        return self.model_copy(update={"model": self.model.model_copy(update={"base": base})})

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
