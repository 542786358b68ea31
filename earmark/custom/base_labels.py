"""A model that answers the labels of its base model and those of a fit in one pass.

Conventions: the base model's labels come first, without those that the fit has too. Both are multi-label. The
calibration of the fit is folded into its classifier, so the model's calibration is that of the base model,
and scores of own labels are what they would be without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from earmark.custom.graph_head import Layer
from earmark.errors import DataError
from earmark.model_file.calibration import Calibration, Platt
from earmark.model_file.info import ModelInfo

DEFAULT_THRESHOLD = 0.5
"""Of the base model's labels if it has no thresholds."""


def kept_classes(base: ModelInfo, labels: Sequence[str]) -> tuple[int, ...]:
    """Returns the classes of the base model that a fit does not replace.

    Args:
        base: Of the base model.
        labels: Of the fit.

    Raises:
        DataError: If the labels of the base model exclude each other, or its calibration cannot be kept.
    """
    if base.task != "multi_label":
        raise DataError(
            f"the labels of {base.name} exclude each other: only those of a multi-label model can be kept"
        )
    if not isinstance(base.calibration, Platt | None):
        raise DataError(
            f"the {base.calibration.method} calibration of {base.name} cannot be kept beside own "
            "labels: calibrate it with --method platt"
        )
    own = {label.casefold() for label in labels}
    return tuple(number for number, label in enumerate(base.labels) if label.casefold() not in own)


def calibrated_layers(layers: Sequence[Layer], calibration: Calibration | None) -> list[Layer]:
    """Returns the layers of a classifier with a calibration folded into the last one."""
    if not isinstance(calibration, Platt):
        return list(layers)
    slope, intercept = np.array(calibration.slope, np.float32), np.array(calibration.intercept, np.float32)
    weights, biases = layers[-1]
    return [*layers[:-1], (weights * slope, biases * slope + intercept)]


def with_base_labels(info: ModelInfo, base: ModelInfo, kept: Sequence[int]) -> ModelInfo:
    """Returns the model info of both.

    Args:
        info: Of the fit alone.
        base: Of the base model.
        kept: From :func:`kept_classes`.
    """
    own = len(info.labels)
    calibration = base.calibration
    if isinstance(calibration, Platt):
        slopes, intercepts = (
            [values[number] for number in kept] for values in (calibration.slope, calibration.intercept)
        )
        calibration = replace(
            calibration, slope=(*slopes, *[1.0] * own), intercept=(*intercepts, *[0.0] * own)
        )
    threshold = None
    if info.thresholds is not None:
        before = base.thresholds or (DEFAULT_THRESHOLD,) * len(base.labels)
        threshold = (*(before[number] for number in kept), *info.thresholds)
    rules = [f"own labels: {info.threshold_rule}", base.threshold_rule and f"others: {base.threshold_rule}"]
    return info.changed(
        labels=(*(base.labels[number] for number in kept), *info.labels),
        calibration=calibration,
        threshold=threshold,
        threshold_rule="; ".join(filter(None, rules)) if threshold else "",
        description=f"{info.description}; and the labels of {base.name}",
        provenance={**info.provenance, "own_labels": list(info.labels)},
    )
