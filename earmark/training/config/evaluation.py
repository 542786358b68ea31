"""The tables ``evaluation``, ``logging`` and ``run`` of a recipe, which change no weight.

Conventions: these keys may differ when a run is resumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from earmark.errors import DataError
from earmark.evaluation.calibration.thresholds import ThresholdTarget
from earmark.model_file.calibration import Method
from earmark.training.config.section import Count, Fraction, NonNegative, Section


def _threshold_target(value: str) -> str:
    try:
        return str(ThresholdTarget.parse(value))
    except DataError as error:
        raise ValueError(str(error)) from None


def _device_name(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError("must be auto, cpu, cuda or cuda:N")
    return value


class Evaluation(Section):
    """How a fold is evaluated, which checkpoint is kept, and how its threshold is chosen."""

    windows: Literal["all", "whole", "center"] = "all"
    """For clips longer than a window: all windows, the whole clip at once, or its central window."""
    every_epochs: Count = 10
    """Evaluate after this many epochs, and after the last."""
    keep: Literal["last", "best"] = "last"
    """Checkpoint to keep: the last, or that of the best macro mAP (single_label: accuracy) in evaluation."""
    min_threshold: Fraction = 0.3
    """Lower bound of the default threshold."""
    max_false_positive_rate: Fraction = 0.005
    """The default threshold lets at most this fraction of each group of negative clips through."""
    negative_manifests: tuple[Path, ...] = ()
    """Clips without labels, not trained on, that the default threshold is chosen by; none: no threshold."""
    negative_filter: Mapping[str, tuple[str, ...]] = {}
    """Column -> allowed values of these clips."""
    negative_group: str = "kind"
    """Column that groups them."""
    calibration: Method | None = None
    """Calibrate scores to probabilities on the evaluation clips, by this method."""
    threshold_target: Annotated[str, AfterValidator(_threshold_target)] | None = None
    """Then choose a threshold for each label: precision=0.9, recall=0.8 or f1."""

    @model_validator(mode="after")
    def _targets_are_calibrated(self) -> Evaluation:
        if self.threshold_target is not None and self.calibration is None:
            raise ValueError("threshold_target needs probabilities: set evaluation.calibration too")
        return self


class Logging(Section):
    """Loggers, in addition to ``log.jsonl``."""

    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Each needs the extra of that name."""


class Run(Section):
    """Where a run computes and how often it saves its state."""

    device: Annotated[str, AfterValidator(_device_name)] = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    save_every_s: NonNegative = 600.0
    """Also save the state within an epoch, at this interval; 0: after each step."""
