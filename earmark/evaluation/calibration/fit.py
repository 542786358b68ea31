"""Fits a calibration to held-out clips: a temperature, or Platt's sigmoids or isotonic lines by class.

Conventions: evidence is what a model says of clips without any calibration, and what is true. All is in NumPy
and nothing is drawn. In every fit the truth is softened as if there had been a further clip or two, so that
what is told apart without a mistake is not taken for certain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earmark.errors import DataError
from earmark.evaluation.evaluation import one_class_a_clip
from earmark.evaluation.predictions import FEW
from earmark.model_file.calibration import METHODS, Calibration, Isotonic, Method, Platt, Temperature
from earmark.model_file.info import Task

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]

SHARPEST = 1e3
"""Temperatures are looked for from one in so much to so much."""
_STEPS = 80  # of the golden section: from SHARPEST squared to the last digits
_NEWTON = 100
_LEAST, _MOST = 1e-16, 1 - 2.0**-24
"""What is nearer to 0 or 1 has lost its logit to rounding."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a model says of clips, and what is true.

    Args:
        labels: One per class.
        task: The model's.
        windows: Of each clip, the uncalibrated scores of its windows, (window, class).
        targets: (clip, class); NaN where nobody knows.
    """

    labels: tuple[str, ...]
    task: Task
    windows: tuple[Scores, ...]
    targets: Scores

    @classmethod
    def of_clips(cls, labels: Sequence[str], task: Task, scores: Scores, targets: Scores) -> Evidence:
        """Of scores (clip, class) whose windows are put together already; exact where there is one a clip.

        Where labels may co-occur it is exact for any number of windows: a calibration keeps the maximum.
        """
        return cls(tuple(labels), task, tuple(row[None] for row in scores), targets)

    def chosen(self, rows: NDArray[np.bool_]) -> Evidence:
        """Some of the clips, those of a mask (clip,)."""
        windows = tuple(own for own, kept in zip(self.windows, rows, strict=True) if kept)
        return replace(self, windows=windows, targets=self.targets[rows])

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where the windows of each clip begin, with all windows end to end."""
        return np.cumsum([0, *map(len, self.windows[:-1])])

    @property
    def logits(self) -> Floats:
        """Of all windows end to end, (window, class); where classes exclude each other, up to a summand."""
        scores = np.concatenate(self.windows).astype(np.float64)
        if self.task == "single_label":
            return np.asarray(np.log(np.maximum(scores, np.finfo(np.float32).tiny)))
        return logit(scores)

    def scores(self, calibration: Calibration | None = None) -> Scores:
        """What a tagger with this calibration says of each clip, float32 (clip, class)."""
        table = (
            np.concatenate(self.windows) if calibration is None else calibration.probabilities(self.logits)
        )
        if self.task == "multi_label":
            return np.asarray(np.maximum.reduceat(table, self.starts, 0))
        counts = np.array([len(own) for own in self.windows])
        return np.asarray(np.add.reduceat(table, self.starts, 0) / counts[:, None], np.float32)


def logit(scores: NDArray[np.float64]) -> Floats:
    """The logits whose sigmoids are these scores, as far as float32 scores still tell."""
    clipped = np.clip(scores, _LEAST, _MOST)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def require_method(method: Method, task: Task) -> None:
    """Refuses a method that is not for a task.

    Raises:
        DataError: Naming those that are.
    """
    if method not in METHODS[task]:
        raise DataError(f"{method} does not calibrate a {task} model: take {' or '.join(METHODS[task])}")


def require_classes(labels: Sequence[str], targets: Scores) -> None:
    """Refuses clips that cannot say of every class how sure a model may be.

    Raises:
        DataError: Naming the classes that no clip, or every clip, belongs to.
    """
    known = ~np.isnan(targets)
    without = ~(targets > 0).any(0)
    always = ~without & ~(known & (targets == 0)).any(0)
    for classes, what in ((without, "no clip has"), (always, "every clip has")):
        missed = [labels[int(index)] for index in np.flatnonzero(classes)]
        if missed:
            named = ", ".join(map(repr, missed[:FEW])) + (", ..." if len(missed) > FEW else "")
            raise DataError(
                f"{what} {len(missed)} of the {len(labels)} labels ({named}): "
                "a calibration needs held-out clips with and without each"
            )


def fit(method: Method, evidence: Evidence) -> Calibration:
    """Fits a calibration.

    Temperature: the least log loss of the clips' scores. Platt: the least log loss of each class, with slopes
    of at least 0, as a score that falls where a class is heard is worth nothing. Isotonic: the least squares
    of each class among functions that never fall. Shared: as Platt, but one sigmoid for all pairs of clip and
    class, for few clips: it leaves the order of the classes as it is.

    Args:
        method: One that suits the task.
        evidence: Of held-out clips.

    Raises:
        DataError: If the method is for another task, the clips miss a class, or for a temperature have not
            one class each or are named no better than by chance.
    """
    require_method(method, evidence.task)
    require_classes(evidence.labels, evidence.targets)
    if method == "temperature":
        return Temperature(_temperature(evidence))
    logits, truth = logit(evidence.scores().astype(np.float64)), evidence.targets
    columns = [_known(logits[:, c], truth[:, c]) for c in range(truth.shape[1])]
    if method == "shared":
        slope, intercept = _platt(*map(np.concatenate, zip(*columns, strict=True)))
        several = len(columns)
        return Platt((slope,) * several, (intercept,) * several, {"sigmoids": "one for all labels"})
    if method == "platt":
        slopes, intercepts = zip(*(_platt(*column) for column in columns), strict=True)
        return Platt(slopes, intercepts)
    places, levels = zip(*(_isotonic(*column) for column in columns), strict=True)
    return Isotonic(places, levels)


def _known(logits: Floats, truth: Scores) -> tuple[Floats, Floats]:
    """Logits and softened truth of the clips of which it is known whether they belong to a class."""
    known = ~np.isnan(truth)
    return logits[known], _softened(truth[known] > 0)


def _softened(positive: NDArray[np.bool_]) -> Floats:
    """Platt's targets: of n positive clips each is one with (n + 1) / (n + 2), of n others 1 / (n + 2)."""
    count = positive.sum()
    return np.asarray(np.where(positive, (count + 1) / (count + 2), 1 / (len(positive) - count + 2)))


def _temperature(evidence: Evidence) -> float:
    """By golden section over its logarithm; the log loss has one minimum where a clip is one window."""
    truth = np.nan_to_num(evidence.targets).astype(np.float64)
    if not one_class_a_clip(evidence.targets):
        raise DataError(
            "a temperature is fitted to clips that have exactly one label each, and these have not"
        )
    counted, classes = np.asarray(truth.any(1)), truth.shape[1]
    further = 1 / (counted.sum() + 1)  # the weight of one further clip of all classes in equal parts
    wanted = (1 - further) * truth[counted] + further / classes
    chosen = evidence.chosen(counted)
    logits, starts = chosen.logits, chosen.starts
    counts = np.array([len(own) for own in chosen.windows])

    def loss(log_temperature: float) -> float:
        logs = logits / np.exp(log_temperature)
        logs = logs - np.logaddexp.reduce(logs, 1, keepdims=True)
        pooled = np.logaddexp.reduceat(logs, starts, 0) - np.log(counts)[:, None]
        return float(-(wanted * pooled).sum(1).mean())

    widest = float(np.log(SHARPEST))
    best = _lowest(loss, -widest, widest)
    if best > widest - 1:
        raise DataError("the model names these clips no better than by chance: no temperature mends that")
    return float(np.exp(best))


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one minimum has it, by golden section."""
    ratio = (np.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return float(low + high) / 2


def _platt(logits: Floats, wanted: Floats) -> tuple[float, float]:
    """Slope and intercept of one class by Newton's method with halved steps, on standardised logits."""
    middle, spread = float(logits.mean()), float(logits.std())
    share = float(wanted.mean())
    level = np.log(share / (1 - share))
    if spread == 0:
        return 0.0, float(level)
    columns = np.stack([(logits - middle) / spread, np.ones_like(logits)], 1)
    weights = np.array([0.0, level])

    def loss(at: Floats) -> float:
        return float((np.logaddexp(0, columns @ at) - wanted * (columns @ at)).sum())

    for _ in range(_NEWTON):
        scores = 0.5 * (1 + np.tanh(0.5 * (columns @ weights)))
        gradient = columns.T @ (scores - wanted)
        curvature = (columns * (scores * (1 - scores))[:, None]).T @ columns
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
        factor, now = 1.0, loss(weights)
        while factor > 1e-10 and loss(weights - factor * step) > now - 1e-4 * factor * (gradient @ step):
            factor /= 2
        if factor <= 1e-10 or np.abs(gradient).max() < 1e-10 * len(logits):
            break
        weights = weights - factor * step
    slope = float(weights[0]) / spread
    return (slope, float(weights[1]) - slope * middle) if slope > 0 else (0.0, float(level))


def _isotonic(logits: Floats, wanted: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Where the points of one class lie, and its levels, by pooling neighbours that fall."""
    places, owner = np.unique(logits, return_inverse=True)
    weights = np.bincount(owner).astype(np.float64)
    sums = np.bincount(owner, wanted)
    blocks: list[tuple[float, float, int, int]] = []  # sum, weight, first and last place
    for index, block in enumerate(zip(sums, weights, strict=True)):
        total, weight, first = float(block[0]), float(block[1]), index
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / weight:
            above, heavier, first, _ = blocks.pop()
            total, weight = total + above, weight + heavier
        blocks.append((total, weight, first, index))
    points = [
        (float(places[place]), total / weight)
        for total, weight, first, last in blocks
        for place in sorted({first, last})
    ]
    at, levels = zip(*points, strict=True)
    return at, levels
