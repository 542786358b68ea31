"""Converts logits to scores, or to probabilities by a calibration that was fitted to held-out clips.

Conventions: logits are (..., class), computations are in float64; scores are float32 in [0, 1]. Without a
calibration, scores are the sigmoid of the logits (multi-label) or their softmax (single-label). Calibrations
are fitted to whole clips (:mod:`earmark.evaluation.calibration`) and stored in the model info as a table with
their ``method``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.errors import ModelError

Floats = NDArray[np.float32]
Task = Literal["multi_label", "single_label"]
Method = Literal["temperature", "platt", "shared", "isotonic"]
"""Methods of fitting; "shared" fits one Platt sigmoid for all classes."""
METHODS: Mapping[Task, tuple[Method, ...]] = {
    "multi_label": ("platt", "shared", "isotonic"),
    "single_label": ("temperature",),
}
"""Task -> applicable methods, the default first."""


def uncalibrated_scores(logits: ArrayLike, task: Task) -> Floats:
    """Sigmoid or softmax of logits, (..., class), as float32."""
    values = np.asarray(logits, np.float64)
    return _sigmoid(values) if task == "multi_label" else _softmax(values)


@dataclass(frozen=True)
class Temperature:
    """Temperature scaling: the softmax of the logits divided by a temperature; for single-label models.

    Source: Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599.

    Args:
        temperature: Above 0; above 1 where the network was overconfident.
        fitted_on: Description of the clips that it was fitted to.
    """

    temperature: float
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    method: ClassVar[Method] = "temperature"

    def __post_init__(self) -> None:
        if _numbers("temperature", [self.temperature])[0] <= 0:
            raise ModelError(f"calibration: temperature must be a positive number, got {self.temperature!r}")

    @property
    def classes(self) -> int | None:
        """Number of classes; None: any number."""
        return None

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Calibrated probabilities of logits, float32 (..., class)."""
        return _softmax(np.asarray(logits, np.float64) / self.temperature)


@dataclass(frozen=True)
class Platt:
    """Platt scaling: for each class the sigmoid of slope * logit + intercept; for multi-label models.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999.

    Args:
        slope: One per class, at least 0.
        intercept: One per class.
        fitted_on: Description of the clips that it was fitted to.
    """

    slope: tuple[float, ...]
    intercept: tuple[float, ...]
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    method: ClassVar[Method] = "platt"

    def __post_init__(self) -> None:
        slope, intercept = _numbers("slope", self.slope), _numbers("intercept", self.intercept)
        if len(slope) != len(intercept) or min(slope, default=-1) < 0:
            raise ModelError("calibration: slope and intercept must have the same length, slopes at least 0")
        object.__setattr__(self, "slope", slope)
        object.__setattr__(self, "intercept", intercept)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.slope)

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Calibrated probabilities of logits, float32 (..., class)."""
        return _sigmoid(np.asarray(logits, np.float64) * self.slope + self.intercept)


@dataclass(frozen=True)
class Isotonic:
    """Isotonic regression: for each class a monotonic piecewise-linear function; for multi-label models.

    Source: Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates,
    2002; as in scikit-learn's IsotonicRegression, linear between points and constant outside them.

    Args:
        logits: For each class, the logits of its points, strictly increasing.
        levels: For each class, the probabilities at its points, in [0, 1], not decreasing.
        fitted_on: Description of the clips that it was fitted to.
    """

    logits: tuple[tuple[float, ...], ...]
    levels: tuple[tuple[float, ...], ...]
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    method: ClassVar[Method] = "isotonic"

    def __post_init__(self) -> None:
        for name in ("logits", "levels"):
            if not isinstance(rows := getattr(self, name), list | tuple):
                raise ModelError(f"calibration: {name} must be a list of lists of numbers, got {rows!r}")
            object.__setattr__(self, name, tuple(_numbers(name, row) for row in rows))
        if not self.logits or list(map(len, self.logits)) != list(map(len, self.levels)):
            raise ModelError("calibration: logits and levels must have the same length for each class")
        for points, levels in zip(self.logits, self.levels, strict=True):
            rising = all(np.diff(points) > 0) and all(np.diff(levels) >= 0)
            if not (levels and rising and levels[0] >= 0 and levels[-1] <= 1):
                raise ModelError("calibration: logits must increase, levels must not decrease within [0, 1]")

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.logits)

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Calibrated probabilities of logits, float32 (..., class)."""
        values = np.asarray(logits, np.float64)
        points = enumerate(zip(self.logits, self.levels, strict=True))
        return np.stack([np.interp(values[..., c], *own) for c, own in points], -1).astype(np.float32)


Calibration = Temperature | Platt | Isotonic


def calibration_to_dict(calibration: Calibration | None) -> dict[str, Any] | None:
    """Converts a calibration to JSON types."""
    return None if calibration is None else {"method": calibration.method, **asdict(calibration)}


def calibration_from_dict(values: object) -> Calibration | None:
    """Restores a calibration from the output of :func:`calibration_to_dict`.

    Raises:
        ModelError: If the method or a field is unknown or missing, or a value is out of range.
    """
    if values is None:
        return None
    kinds = {kind.method: kind for kind in get_args(Calibration)}
    if not isinstance(values, Mapping) or values.get("method") not in list(kinds):
        raise ModelError(f"calibration must be a table whose method is one of {', '.join(kinds)}")
    kind, own = kinds[values["method"]], {key: value for key, value in values.items() if key != "method"}
    names = {entry.name for entry in fields(kind)}
    if set(own) != names or not isinstance(own["fitted_on"], Mapping):
        raise ModelError(f"calibration: a {kind.method} calibration needs the fields {sorted(names)}")
    made: Calibration = kind(**own)
    return made


def calibration_problem(calibration: object, task: Task, num_classes: int) -> str:
    """Why a calibration does not fit a model; "" if it does."""
    if not isinstance(calibration, Temperature | Platt | Isotonic):
        return f"calibration must be a Temperature, Platt or Isotonic, got {calibration!r}"
    if calibration.method not in METHODS[task]:
        return f"{calibration.method} calibration does not apply to task {task}"
    if calibration.classes not in (None, num_classes):
        return f"calibration has {calibration.classes} classes, the model has {num_classes} labels"
    return ""


def _sigmoid(values: NDArray[np.float64]) -> Floats:
    return (0.5 * (1 + np.tanh(0.5 * values))).astype(np.float32)


def _softmax(values: NDArray[np.float64]) -> Floats:
    exponentials = np.exp(values - values.max(-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(-1, keepdims=True), np.float32)


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    def is_number(value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

    if not isinstance(values, list | tuple) or not all(map(is_number, values)):
        raise ModelError(f"calibration: {name} must be finite numbers, got {values!r}")
    return tuple(map(float, values))
