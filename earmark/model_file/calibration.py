"""From logits to scores, and to probabilities where a calibration on held-out clips has found the way.

Conventions: logits are (..., class), computed with in float64; scores are float32 in [0, 1]. Without a
calibration a score is the sigmoid of a logit where labels may co-occur, or the softmax where classes exclude
each other. A calibration is fitted to whole clips, and stored in the record as a table with its ``method``.
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
"""Ways to fit one; "shared" is a Platt sigmoid that all classes have in common."""
METHODS: Mapping[Task, tuple[Method, ...]] = {
    "multi_label": ("platt", "shared", "isotonic"),
    "single_label": ("temperature",),
}
"""What suits a task, the default first."""


def uncalibrated(logits: ArrayLike, task: Task) -> Floats:
    """Scores of logits, (..., class): sigmoid or softmax, float32."""
    values = np.asarray(logits, np.float64)
    return _sigmoid(values) if task == "multi_label" else _softmax(values)


@dataclass(frozen=True)
class Temperature:
    """The softmax of the logits divided by one number; for classes that exclude each other.

    Source: Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599.

    Args:
        temperature: Above 1: the network was too sure.
        fitted_on: Which clips it was fitted to, for people.
    """

    temperature: float
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    method: ClassVar[Method] = "temperature"

    def __post_init__(self) -> None:
        if _numbers("temperature", [self.temperature])[0] <= 0:
            raise ModelError(f"calibration: temperature must be a positive number, not {self.temperature!r}")

    @property
    def classes(self) -> int | None:
        """For how many classes it is; None: for any number."""
        return None

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Calibrated scores of logits: float32 (..., class)."""
        return _softmax(np.asarray(logits, np.float64) / self.temperature)


@dataclass(frozen=True)
class Platt:
    """A sigmoid of its own for each class: of slope times logit plus intercept; for labels that may co-occur.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999.

    Args:
        slope: For each class, at least 0; with 0 a class's logit says nothing.
        intercept: For each class.
        fitted_on: Which clips it was fitted to, for people.
    """

    slope: tuple[float, ...]
    intercept: tuple[float, ...]
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    method: ClassVar[Method] = "platt"

    def __post_init__(self) -> None:
        slope, intercept = _numbers("slope", self.slope), _numbers("intercept", self.intercept)
        if len(slope) != len(intercept) or min(slope, default=-1) < 0:
            raise ModelError("calibration: slope and intercept must be equally many, no slope below 0")
        object.__setattr__(self, "slope", slope)
        object.__setattr__(self, "intercept", intercept)

    @property
    def classes(self) -> int:
        """For how many classes it is."""
        return len(self.slope)

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Calibrated scores of logits: float32 (..., class)."""
        return _sigmoid(np.asarray(logits, np.float64) * self.slope + self.intercept)


@dataclass(frozen=True)
class Isotonic:
    """A rising line through points of its own for each class; for labels that may co-occur.

    Source: Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates,
    2002; as in scikit-learn's IsotonicRegression, straight between points and level outside them.

    Args:
        logits: For each class, where its points lie, ascending.
        levels: For each class, the probability at its points, in [0, 1], never falling.
        fitted_on: Which clips it was fitted to, for people.
    """

    logits: tuple[tuple[float, ...], ...]
    levels: tuple[tuple[float, ...], ...]
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    method: ClassVar[Method] = "isotonic"

    def __post_init__(self) -> None:
        for name in ("logits", "levels"):
            if not isinstance(rows := getattr(self, name), list | tuple):
                raise ModelError(f"calibration: {name} must be a list of lists of numbers, not {rows!r}")
            object.__setattr__(self, name, tuple(_numbers(name, row) for row in rows))
        if not self.logits or list(map(len, self.logits)) != list(map(len, self.levels)):
            raise ModelError("calibration: logits and levels must be equally many, of each class")
        for places, levels in zip(self.logits, self.levels, strict=True):
            rising = all(np.diff(places) > 0) and all(np.diff(levels) >= 0)
            if not (levels and rising and levels[0] >= 0 and levels[-1] <= 1):
                raise ModelError("calibration: logits must ascend, and levels must not fall, within [0, 1]")

    @property
    def classes(self) -> int:
        """For how many classes it is."""
        return len(self.logits)

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Calibrated scores of logits: float32 (..., class)."""
        values = np.asarray(logits, np.float64)
        points = enumerate(zip(self.logits, self.levels, strict=True))
        return np.stack([np.interp(values[..., c], *own) for c, own in points], -1).astype(np.float32)


Calibration = Temperature | Platt | Isotonic


def calibration_to_dict(calibration: Calibration | None) -> dict[str, Any] | None:
    """The calibration as JSON can hold it."""
    return None if calibration is None else {"method": calibration.method, **asdict(calibration)}


def calibration_from_dict(values: object) -> Calibration | None:
    """The calibration that :func:`calibration_to_dict` wrote.

    Raises:
        ModelError: If the method or a field is unknown or missing, or a value cannot be.
    """
    if values is None:
        return None
    kinds = {kind.method: kind for kind in get_args(Calibration)}
    if not isinstance(values, Mapping) or values.get("method") not in list(kinds):
        raise ModelError(f"calibration must be a table whose method is one of {', '.join(kinds)}")
    kind, own = kinds[values["method"]], {key: value for key, value in values.items() if key != "method"}
    names = {entry.name for entry in fields(kind)}
    if set(own) != names or not isinstance(own["fitted_on"], Mapping):
        raise ModelError(f"calibration: a {kind.method} calibration has the fields {sorted(names)}")
    made: Calibration = kind(**own)
    return made


def calibration_problem(calibration: object, task: Task, num_classes: int) -> str:
    """What speaks against a calibration of a model; "" if nothing does."""
    if not isinstance(calibration, Temperature | Platt | Isotonic):
        return f"calibration must be a temperature, sigmoids or lines, not {calibration!r}"
    if calibration.method not in METHODS[task]:
        return f"a calibration by {calibration.method} is not for task {task}"
    if calibration.classes not in (None, num_classes):
        return f"calibration is for {calibration.classes} classes, there are {num_classes} labels"
    return ""


def _sigmoid(values: NDArray[np.float64]) -> Floats:
    return (0.5 * (1 + np.tanh(0.5 * values))).astype(np.float32)


def _softmax(values: NDArray[np.float64]) -> Floats:
    shares = np.exp(values - values.max(-1, keepdims=True))
    return np.asarray(shares / shares.sum(-1, keepdims=True), np.float32)


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    def is_number(value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

    if not isinstance(values, list | tuple) or not all(map(is_number, values)):
        raise ModelError(f"calibration: {name} must be finite numbers, not {values!r}")
    return tuple(map(float, values))
