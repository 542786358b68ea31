"""Depth "probe": logistic regression on the features of the base model.

Conventions: features are standardised; the scaling is folded into the weights, so the classifier is one fully
connected layer. Classes weigh the same, however many clips they have. The strength of the regularisation is
chosen on clips of other sources than those that it is fitted to.
"""

from __future__ import annotations

import warnings

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
MAX_STEPS, TOLERANCE = 200, 1e-3
_SPLITS = 4


def fit_probe(table: Table, clips: Mask) -> LayerClassifier:
    """Fits a classifier.

    Args:
        table: Features and targets.
        clips: Which clips it is fitted to, (clip,); each class has one at least.

    Returns:
        A classifier of one layer.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
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
    if table.task == "single_label":
        slopes, offsets = _softmax(inputs, targets.argmax(1), weights, strength, targets.shape[1])
    else:
        pairs = [_sigmoid(inputs, own, weights, strength) for own in targets.T]
        slopes, offsets = np.stack([slope for slope, _ in pairs]), np.array([offset for _, offset in pairs])
    folded = slopes / scale.astype(np.float64)
    return folded.T.astype(np.float32), (offsets - folded @ mean).astype(np.float32)


def _softmax(
    inputs: Floats, targets: NDArray[np.int64], weights: NDArray[np.float64], strength: float, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slopes (class, feature) and offsets of a multinomial regression."""
    present = np.unique(targets)
    slope, offset = _regression(inputs, targets, weights, strength)
    if len(present) == 2:  # scikit-learn has one row for two classes
        slope, offset = np.stack([-slope[0], slope[0]]) / 2, np.array([-offset[0], offset[0]]) / 2
    slopes, offsets = np.zeros((classes, inputs.shape[1])), np.full(classes, -1e3)
    slopes[present], offsets[present] = slope, offset
    return slopes, offsets


def _sigmoid(
    inputs: Floats, targets: Floats, weights: NDArray[np.float64], strength: float
) -> tuple[NDArray[np.float64], float]:
    """Slope (feature,) and offset of one class against all others."""
    if targets.min() == targets.max():
        return np.zeros(inputs.shape[1]), 1e3 if targets.min() else -1e3
    slope, offset = _regression(inputs, targets.astype(np.int64), weights, strength)
    return slope[0], float(offset[0])


def _regression(
    inputs: Floats, targets: NDArray[np.int64], weights: NDArray[np.float64], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with extra("earmark fit", "fit"):
        from sklearn.linear_model import LogisticRegression
    total = np.bincount(targets, weights)
    balanced = weights * (total.sum() / (np.count_nonzero(total) * total))[targets]
    model = LogisticRegression(C=strength, max_iter=MAX_STEPS, tol=TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more steps would change nothing that is worth the time
        model.fit(inputs, targets, sample_weight=balanced)
    return np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
