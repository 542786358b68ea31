"""Fits a calibration to held-out clips: a temperature, or Platt's sigmoids or isotonic functions by class.

Conventions: SciPy's optimisers fit (scikit-learn's ``IsotonicRegression`` would do for one of the four
methods; its sigmoid is private, and its temperature pools no windows). Targets are smoothed as Platt did, by
one further positive and one further negative clip, so that a class that is separated perfectly gets finite
logits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earmark.errors import DataError, extra
from earmark.evaluation.calibration.data import CalibrationData, Floats, Scores, logit, require_classes
from earmark.evaluation.evaluation import is_single_label
from earmark.model_file.calibration import METHODS, Calibration, Isotonic, Method, Platt, Temperature
from earmark.model_file.info import Task

MAX_TEMPERATURE = 1e3
"""Temperatures are searched between this and its inverse."""


def require_method(method: Method, task: Task) -> None:
    """Checks that a method suits a task.

    Raises:
        DataError: Naming those that do.
    """
    if method not in METHODS[task]:
        raise DataError(
            f"method {method!r} does not calibrate a {task} model: choose {' or '.join(METHODS[task])}"
        )


def fit(method: Method, data: CalibrationData) -> Calibration:
    """Fits a calibration.

    Temperature: minimises the log loss of the clips. Platt: minimises the log loss of each class, with slopes
    of at least 0. Isotonic: minimises the squared error of each class among non-decreasing functions. Shared:
    as Platt, but one sigmoid for all pairs of clip and class, for few clips; it preserves the order of the
    classes.

    Args:
        method: One that suits the task.
        data: Of held-out clips.

    Raises:
        DataError: If the method is for another task, a class has no clips, or for a temperature the clips
            have not one label each or are predicted no better than by chance.
        MissingExtraError: If SciPy is not installed.
    """
    require_method(method, data.task)
    require_classes(data.labels, data.targets)
    with extra("fitting a calibration", "calibrate"):
        import scipy.optimize  # noqa: F401
    if method == "temperature":
        return Temperature(_temperature(data))
    logits, truth = logit(data.scores().astype(np.float64)), data.targets
    columns = [_known(logits[:, c], truth[:, c]) for c in range(truth.shape[1])]
    if method == "shared":
        slope, intercept = _platt(*map(np.concatenate, zip(*columns, strict=True)))
        count = len(columns)
        return Platt((slope,) * count, (intercept,) * count, {"sigmoids": "one for all labels"})
    if method == "platt":
        slopes, intercepts = zip(*(_platt(*column) for column in columns), strict=True)
        return Platt(slopes, intercepts)
    points, levels = zip(*(_isotonic(*column) for column in columns), strict=True)
    return Isotonic(points, levels)


def _known(logits: Floats, truth: Scores) -> tuple[Floats, Floats]:
    """Logits and smoothed targets of the clips whose target of a class is known."""
    known = ~np.isnan(truth)
    return logits[known], _smoothed(truth[known] > 0)


def _smoothed(positive: NDArray[np.bool_]) -> Floats:
    """Platt's targets: (n + 1) / (n + 2) for n positive clips, 1 / (n + 2) for n negative ones."""
    count = positive.sum()
    return np.asarray(np.where(positive, (count + 1) / (count + 2), 1 / (len(positive) - count + 2)))


def _temperature(data: CalibrationData) -> float:
    """Minimises over the logarithm of the temperature: the log loss has one minimum for one window a clip."""
    from scipy.optimize import minimize_scalar

    truth = np.nan_to_num(data.targets).astype(np.float64)
    if not is_single_label(data.targets):
        raise DataError("a temperature needs clips that have exactly one label each")
    labelled, classes = np.asarray(truth.any(1)), truth.shape[1]
    smoothing = 1 / (labelled.sum() + 1)  # one further clip that belongs to all classes in equal parts
    targets = (1 - smoothing) * truth[labelled] + smoothing / classes
    chosen = data.select(labelled)
    logits, starts = chosen.logits, chosen.starts
    counts = np.array([len(own) for own in chosen.windows])

    def loss(log_temperature: float) -> float:
        logs = logits / np.exp(log_temperature)
        logs = logs - np.logaddexp.reduce(logs, 1, keepdims=True)
        pooled = np.logaddexp.reduceat(logs, starts, 0) - np.log(counts)[:, None]
        return float(-(targets * pooled).sum(1).mean())

    limit = float(np.log(MAX_TEMPERATURE))
    best = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-9}).x
    if best > limit - 1:
        raise DataError("the model predicts these clips no better than by chance: no temperature helps")
    return float(np.exp(best))


def _platt(logits: Floats, targets: Floats) -> tuple[float, float]:
    """Slope and intercept of a sigmoid, fitted to standardised logits; slope 0 where it would be negative."""
    from scipy.optimize import minimize
    from scipy.special import expit

    mean, spread = float(logits.mean()), float(logits.std())
    constant = float(np.log(targets.mean() / (1 - targets.mean())))
    if spread == 0:
        return 0.0, constant
    columns = np.stack([(logits - mean) / spread, np.ones_like(logits)], 1)

    def loss(weights: Floats) -> float:
        at = columns @ weights
        return float((np.logaddexp(0, at) - targets * at).mean())

    def gradient(weights: Floats) -> Floats:
        return np.asarray(columns.T @ (expit(columns @ weights) - targets) / len(targets))

    def hessian(weights: Floats) -> Floats:
        scores = expit(columns @ weights)
        return np.asarray((columns * (scores * (1 - scores))[:, None]).T @ columns / len(targets))

    start, options = np.array([0.0, constant]), {"gtol": 1e-10}
    weights = minimize(loss, start, method="trust-exact", jac=gradient, hess=hessian, options=options).x
    slope = float(weights[0]) / spread
    return (slope, float(weights[1]) - slope * mean) if slope > 0 else (0.0, constant)


def _isotonic(logits: Floats, targets: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """First and last logit of each level of a class, and the levels."""
    from scipy.optimize import isotonic_regression

    points, owner = np.unique(logits, return_inverse=True)
    weights = np.bincount(owner).astype(np.float64)
    found = isotonic_regression(np.bincount(owner, targets) / weights, weights=weights)
    ends = np.union1d(found.blocks[:-1], found.blocks[1:] - 1)
    return tuple(points[ends].tolist()), tuple(found.x[ends].tolist())
