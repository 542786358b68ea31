"""Depth "probe": logistic regression on the features of the base model.

Conventions: SciPy's L-BFGS minimises the loss of all classes at once, in the objective of scikit-learn's
``LogisticRegression``, which takes a second to import and one class against the others at a time. Features
are standardised; the scaling is folded into the weights, so the classifier is one fully
connected layer. Classes weigh the same, however many clips they have. The strength of the regularisation is
chosen on clips of other sources than those that it is fitted to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earmark.custom.classifier import LayerClassifier
from earmark.custom.folds import grouped_folds
from earmark.custom.graph_head import Layer, apply
from earmark.custom.table import Floats, Table, clip_scores
from earmark.errors import extra
from earmark.evaluation import metrics

Mask = NDArray[np.bool_]
DEFAULT_C = 0.01
"""Inverse strength of the regularisation where there is too little data to choose it; see docs/fit.md."""
CHOICES = (0.001, 0.01, 0.1)
MIN_SOURCES = 8
"""Sources that each class needs for the regularisation to be chosen."""
MAX_STEPS, TOLERANCE = 200, 1e-4
_SPLITS = 4


def fit_probe(table: Table, clips: Mask) -> LayerClassifier:
    """Fits a classifier.

    Args:
        table: Features and targets.
        clips: Which clips it is fitted to, (clip,); each class has one at least.

    Returns:
        A classifier of one layer.

    Raises:
        MissingExtraError: If SciPy is not installed.
    """
    return LayerClassifier(table, [_layer(table, clips, _choose(table, clips))])


def _choose(table: Table, clips: Mask) -> float:
    sources = [len(np.unique(table.groups[clips & (own > 0)])) for own in table.targets.T]
    if min(sources) < MIN_SOURCES:
        return DEFAULT_C
    folds = grouped_folds(table.targets[clips], table.groups[clips], _SPLITS)
    held = clips.copy()
    held[np.flatnonzero(clips)[folds != 1]] = False
    windows = [rows for rows, is_held in zip(table.windows(), held, strict=True) if is_held]
    truth = table.targets[held]
    losses = {}
    for strength in CHOICES:
        layer = _layer(table, clips & ~held, strength)
        scores = clip_scores([apply([layer], table.features[rows]) for rows in windows], table.task)
        multi = table.task == "multi_label"
        losses[strength] = (
            metrics.binary_log_loss(truth, scores) if multi else metrics.log_loss(truth, scores)
        )
    return min(losses, key=losses.__getitem__)


def _layer(table: Table, clips: Mask, strength: float) -> Layer:
    rows = table.rows_of(clips)
    features, weights = table.features[rows], table.weights(rows)
    mean = np.average(features, axis=0, weights=weights).astype(np.float32)
    deviation = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights)).astype(np.float32)
    scale = np.where(deviation > 1e-6 * max(1e-6, float(deviation.max())), deviation, np.float32(np.inf))
    inputs = np.asarray((features - mean) / scale, np.float32)
    targets = table.targets[table.owner[rows]]
    slopes, offsets = _regression(inputs, targets, weights, strength, table.task == "single_label")
    folded = slopes / scale.astype(np.float64)[:, None]
    return folded.astype(np.float32), (offsets - mean @ folded).astype(np.float32)


def _regression(
    inputs: Floats, targets: Floats, weights: NDArray[np.float64], strength: float, single: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slopes (feature, class) and offsets (class,) that minimise the loss and half the squared slopes."""
    with extra("earmark fit", "fit"):
        from scipy.optimize import minimize
    balanced = (_balanced_rows if single else _balanced_pairs)(targets, weights)
    features, classes = inputs.shape[1], targets.shape[1]
    size, penalty = features * classes, 1 / (strength * weights.sum())
    loss_of = _softmax_loss if single else _sigmoid_loss

    def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slopes, offsets = values[:size].reshape(features, classes), values[size:]
        loss, slope_of_logits = loss_of(inputs @ slopes.astype(np.float32) + offsets, targets, balanced)
        slope_of_logits /= weights.sum()
        gradient = inputs.T @ slope_of_logits.astype(np.float32) + penalty * slopes
        total = loss / weights.sum() + penalty / 2 * float(np.square(slopes).sum())
        return total, np.concatenate([gradient.ravel(), slope_of_logits.sum(0)])

    start, options = np.zeros(size + classes), {"maxiter": MAX_STEPS, "gtol": TOLERANCE}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return found[:size].reshape(features, classes), found[size:]


def _softmax_loss(
    logits: NDArray[np.float64], targets: Floats, weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Cross-entropy, and its gradient by the logits."""
    shifted = logits - logits.max(1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(1, keepdims=True)
    losses = np.log(sums[:, 0]) - (targets * shifted).sum(1)
    return float(weights @ losses), (exponentials / sums - targets) * weights[:, None]


def _sigmoid_loss(
    logits: NDArray[np.float64], targets: Floats, weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Binary cross-entropy of all classes, and its gradient by the logits."""
    losses = np.logaddexp(0, logits) - targets * logits
    return float((weights * losses).sum()), (0.5 * (1 + np.tanh(logits / 2)) - targets) * weights


def _balanced_rows(targets: Floats, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (row,) with which the classes weigh the same, and all together as before."""
    totals = weights @ targets
    shares = weights.sum() / (np.count_nonzero(totals) * np.maximum(totals, 1e-9))
    return np.asarray(weights * shares[targets.argmax(1)])


def _balanced_pairs(targets: Floats, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (row, class) with which the rows with a class weigh as much as those without it."""
    with_class = weights @ targets
    without = weights.sum() - with_class
    positive, negative = (weights.sum() / (2 * np.maximum(own, 1e-9)) for own in (with_class, without))
    return np.asarray(weights[:, None] * np.where(targets > 0, positive, negative))
