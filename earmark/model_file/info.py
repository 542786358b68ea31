"""The metadata of a model: everything needed to use its weights correctly, and where they come from.

Conventions: it is stored as JSON in the metadata of model files (:mod:`earmark.model_file.onnx_file`) and
checkpoints. Reading is strict: an unknown field, a missing one or a wrong type is a
:class:`~earmark.errors.ModelError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from types import UnionType
from typing import Any, Literal, get_args

from earmark.errors import ModelError
from earmark.features.learned import AnyFrontEnd, front_end_from_dict
from earmark.model_file.calibration import (
    Calibration,
    calibration_from_dict,
    calibration_problem,
    calibration_to_dict,
)
from earmark.model_file.calibration import Task as Task
from earmark.model_file.strict_json import parse_json

INFO_VERSION = 4
"""Version 2 added calibrations and per-class thresholds; 3 precisions, fixed windows, front-ends in the
graph; 4 the rule of the thresholds."""

LONGEST_WINDOW_S = 600.0
"""Limit of windows: each is held in memory."""
MAX_FEATURES = 1 << 26
"""Limit of the samples of a window, and of the values of its log-mel: 256 MiB."""

Threshold = float | tuple[float, ...]
Padding = Literal["repeat", "zero"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class ModelInfo:
    """Describes a model: its input, its output and its origin.

    Args:
        name: The model's name.
        labels: One per class, in the order of the logits; unique.
        front_end: The constants of waveform -> log-mel, with ``in_graph`` where the graph computes it from
            waveforms at the front-end's sample rate (it never resamples); or the constants of a learned
            front-end, which is part of the graph.
        task: "multi_label": sounds may co-occur, scores are the sigmoid of the logits, and a recording's
            score is the maximum over its windows. "single_label": classes are mutually exclusive, scores are
            the softmax of the logits, windows are averaged.
        architecture: Name in the registry of networks; or "ensemble", whose members ``arguments`` lists.
        arguments: Arguments of the architecture, except the number of classes.
        window_s: Window length that the model was trained for, in seconds.
        padding: How a clip shorter than the window is padded: "repeat" or "zero".
        embedding_size: Number of channels of the embedding.
        precision: Storage format of the weights: "fp32"; "fp16" or "bf16", with arithmetic in float32; or
            "int8", where most layers compute in 8 bits.
        fixed_window: Whether the graph accepts windows of ``window_s`` only.
        threshold: Score from which a label counts as detected, in [0, 1], or one per label; None if none was
            chosen.
        threshold_rule: How the threshold was chosen, in a sentence; empty if nothing is known about it.
        calibration: Converts logits to probabilities; None if scores are plain sigmoids or a softmax.
        description: Purpose of the model, in one sentence.
        license: Licence of the weights.
        source: Origin of the weights: a recipe, a paper or a URL.
        metrics: Measured metrics by name; numbers or nested tables.
        provenance: How the weights were made: recipe, versions, data.
        card: The model card, in Markdown.
    """

    name: str
    labels: tuple[str, ...]
    front_end: AnyFrontEnd
    task: Task
    architecture: str
    arguments: Mapping[str, Any]
    window_s: float
    padding: Padding
    embedding_size: int
    precision: Precision = "fp32"
    fixed_window: bool = False
    threshold: Threshold | None = None
    threshold_rule: str = ""
    calibration: Calibration | None = None
    description: str = ""
    license: str = ""
    source: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ModelError(f"invalid metadata of model {self.name!r}: {problem}")

    @property
    def graph_input(self) -> str:
        """Name of the input of the graph: "log_mel" or "waveform"."""
        return self.front_end.graph_input

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Score from which each label counts as detected, shape (class,); None if none was chosen."""
        if self.threshold is None or isinstance(self.threshold, tuple):
            return self.threshold
        return (self.threshold,) * len(self.labels)

    @property
    def min_window_s(self) -> float:
        """Length of the shortest window that the front-end can take, in seconds."""
        return self.front_end.min_samples / self.front_end.sample_rate

    def num_samples(self, seconds: float) -> int:
        """Returns the samples of a duration at the sample rate of the front-end."""
        return round(seconds * self.front_end.sample_rate)

    def _problem(self) -> str:
        for kind, wanted, names in _KINDS:
            wrong = [name for name in names if not isinstance(getattr(self, name), kind)]
            if wrong:
                return f"{wrong[0]} must be {wanted}, got {getattr(self, wrong[0])!r}"
        return self._label_problem() or self._value_problem()

    def _label_problem(self) -> str:
        if not self.labels or not all(isinstance(label, str) and label for label in self.labels):
            return f"labels must be non-empty strings, one per class, got {self.labels!r}"
        if len(set(self.labels)) != len(self.labels):
            return "labels must be unique"
        broken = [label for label in self.labels if label.encode(errors="replace").decode() != label]
        if broken:
            return f"labels must be valid Unicode, got {broken[0]!r}"
        return ""

    def _value_problem(self) -> str:
        if self.task not in ("multi_label", "single_label"):
            return f"task must be multi_label or single_label, got {self.task!r}"
        for name, choices in (("padding", get_args(Padding)), ("precision", get_args(Precision))):
            if getattr(self, name) not in choices:
                return f"{name} must be {' or '.join(choices)}, got {getattr(self, name)!r}"
        if not _is_number(self.window_s) or not 0 < self.window_s <= LONGEST_WINDOW_S:
            return f"window_s must be above 0 and at most {LONGEST_WINDOW_S:g} s, got {self.window_s!r}"
        if problem := window_problem(self.front_end, self.window_s):
            return problem
        if isinstance(self.embedding_size, bool) or self.embedding_size < 1:
            return f"embedding_size must be at least 1, got {self.embedding_size!r}"
        if self.calibration is not None:
            problem = calibration_problem(self.calibration, self.task, len(self.labels))
            if problem:
                return problem
        return self._threshold_problem()

    def _threshold_problem(self) -> str:
        if self.threshold is None and self.threshold_rule:
            return f"threshold_rule needs a threshold, got {self.threshold_rule!r} without one"
        each = self.thresholds or ()
        if len(each) not in (0, len(self.labels)) or self.threshold == ():
            return f"threshold must be one number or one per label ({len(self.labels)}), got {len(each)}"
        if not all(_is_number(one) and 0 <= one <= 1 for one in each):
            return f"threshold must be in [0, 1], got {self.threshold!r}"
        return ""

    def to_json(self) -> str:
        """The model info as JSON with sorted keys, so that equal infos give equal strings."""
        values = asdict(self) | {
            "front_end": self.front_end.to_dict(),
            "calibration": calibration_to_dict(self.calibration),
            "version": INFO_VERSION,
        }
        return json.dumps(values, sort_keys=True, ensure_ascii=False)

    def changed(self, **values: Any) -> ModelInfo:
        """Returns a copy with some fields replaced."""
        return replace(self, **values)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelInfo:
        """Restores a model info from the output of :meth:`to_json`.

        Raises:
            ModelError: If the text is not a valid model info, or one of a newer version.
        """
        values = _parse(text)
        if values.pop("further_front_ends", None):
            raise ModelError(
                "the model is an ensemble of different front-ends, which earmark no longer reads: "
                "use its members one by one"
            )
        known = {entry.name: entry for entry in fields(cls)}
        unknown = sorted(set(values) - set(known))
        missing = sorted(
            name
            for name, entry in known.items()
            if name not in values and entry.default is MISSING and entry.default_factory is MISSING
        )
        if unknown or missing:
            raise ModelError(
                f"the metadata has unknown fields {unknown} and lacks {missing}: export the model again"
            )
        try:
            values["front_end"] = front_end_from_dict(values["front_end"])
            values["calibration"] = calibration_from_dict(values.get("calibration"))
            for name in ("labels", "threshold"):
                if isinstance(values.get(name), list):
                    values[name] = tuple(values[name])
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ModelError(f"the metadata is malformed ({error}): export the model again") from None


def _parse(text: str | bytes) -> dict[str, Any]:
    """The fields of a stored model info, whose version is checked and removed."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ModelError(f"the metadata is not valid JSON ({error}): export the model again") from None
    if not isinstance(values, dict):
        raise ModelError("the metadata is not a JSON object: export the model again")
    version = values.pop("version", None)
    if type(version) is not int or version < 1:
        raise ModelError(f"the metadata has no valid version ({version!r}): export the model again")
    if version > INFO_VERSION:
        raise ModelError(
            f"the metadata has version {version}, this earmark reads up to {INFO_VERSION}: upgrade earmark"
        )
    return values


_KINDS: tuple[tuple[type | UnionType, str, tuple[str, ...]], ...] = (
    (
        str,
        "a string",
        ("name", "architecture", "threshold_rule", "description", "license", "source", "card"),
    ),
    (tuple, "a list of strings", ("labels",)),
    (Mapping, "a table", ("arguments", "metrics", "provenance")),
    (AnyFrontEnd, "a front-end", ("front_end",)),
    (bool, "true or false", ("fixed_window",)),
    (int, "an integer", ("embedding_size",)),
)


def window_problem(front_end: AnyFrontEnd, window_s: float) -> str:
    """Why a window takes too much memory; "" if it does not.

    Args:
        front_end: Of the model.
        window_s: Length of the window, in seconds.
    """
    samples = max(round(window_s * front_end.sample_rate), front_end.min_samples)
    values = max(samples, front_end.n_mels * front_end.num_frames(samples))
    if values <= MAX_FEATURES:
        return ""
    return f"window_s must be shorter: {window_s:g} s have {values} values, {MAX_FEATURES} are allowed"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
