"""Reports of a calibration: text, Markdown for the model card, JSON and a reliability diagram.

Conventions: "before" are the uncalibrated scores, "after" the calibrated ones, of the same clips.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earmark.errors import MissingExtraError, extra
from earmark.evaluation.calibration.calibrate import CalibrationResult
from earmark.evaluation.calibration.data import logit
from earmark.evaluation.report import DECIMALS, aligned, markdown_table
from earmark.model_file.atomic import write_atomically
from earmark.model_file.calibration import Platt, calibration_to_dict
from earmark.model_file.info import ModelInfo

HEADING = "## Calibration\n"


def summary(found: CalibrationResult) -> str:
    """Text for the console: metrics before and after, and those of the thresholds."""
    lines = [*aligned(_rows(found)), "", f"measured on {found.metrics.measured_on}"]
    if found.target is not None:
        lines += ["", _threshold_metrics(found)]
    return "\n".join(lines)


def warnings(info: ModelInfo, found: CalibrationResult) -> list[str]:
    """Warnings about the calibration of a model, one line each."""
    lines = []
    if info.threshold is not None and with_calibration(info, found).threshold is None:
        lines.append(
            "the model's threshold was for other scores and is dropped: choose a target for new ones"
        )
    if found.missed:
        lines.append(f"no threshold reaches {found.target} for {', '.join(found.missed)}")
    calibration = found.calibration
    if isinstance(calibration, Platt) and 0 in calibration.slope:
        flat = [label for label, slope in zip(found.labels, calibration.slope, strict=True) if slope == 0]
        lines.append(f"the scores do not predict {', '.join(flat)}: the calibrated probability is constant")
    return lines


def markdown_section(found: CalibrationResult) -> str:
    """Section of a model card."""
    fitted_on = ", ".join(f"{key} {value}" for key, value in found.calibration.fitted_on.items())
    text = (
        f"{HEADING}\nScores are probabilities: {found.calibration.method}, fitted on held-out clips "
        f"({fitted_on}). Measured on {found.metrics.measured_on}:\n\n{markdown_table(_rows(found))}"
    )
    if found.thresholds is None:
        return text
    rows: list[tuple[str, ...]] = [("label", "threshold", "precision", "recall", "F1")]
    for label, threshold in zip(found.labels, found.thresholds.values, strict=True):
        own = found.metrics.decisions[label]
        cells = (f"{own[name]:.3f}" if name in own else "" for name in ("precision", "recall", "f1"))
        rows.append((label, f"{threshold:.3f}", *cells))
    return f"{text}\n{_threshold_metrics(found)}\n\n{markdown_table(rows)}"


def with_calibration(info: ModelInfo, found: CalibrationResult) -> ModelInfo:
    """Model info with calibration, thresholds, metrics, and a section of the model card.

    Without a target, thresholds of uncalibrated scores become the calibrated probabilities of the same
    scores, so that a clip keeps its tags. For a softmax, or scores of an earlier calibration, that is not
    possible; then there are none.
    """
    before, threshold, rule = info.thresholds, None, ""
    if before is not None and info.calibration is None and info.task == "multi_label":
        limits = found.calibration.probabilities(logit(np.array(before)))
        least, most = (found.calibration.probabilities(np.full(len(before), end)) for end in (-1e3, 1e3))
        limits[least == most] = 1.0  # a constant score never reaches its threshold
        threshold, rule = tuple(limits.astype(float).tolist()), info.threshold_rule
    return found.apply_to(info.changed(calibration=None, threshold=threshold, threshold_rule=rule)).changed(
        metrics={**info.metrics, "calibration": found.summary},
        card=with_section(info.card, markdown_section(found)),
    )


def with_section(card: str, section: str) -> str:
    """The model card with this section, replacing an earlier one."""
    without = re.sub(rf"(?ms)^{HEADING}.*?(?=^## |\Z)", "", card).rstrip()
    return f"{without}\n\n{section}" if without else section


def write_calibration(found: CalibrationResult, traced: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes calibration.json, and reliability.png where matplotlib is installed.

    Args:
        found: Calibration and metrics.
        traced: Origin, see :func:`~earmark.evaluation.run.origin`.
        folder: Created if it is missing.

    Returns:
        The files.

    Raises:
        OSError: If they cannot be written.
    """
    curves = {
        name: {key: np.nan_to_num(column).tolist() for key, column in curve._asdict().items()}
        for name, curve in found.metrics.curves.items()
    }
    limits = None if found.thresholds is None else found.thresholds.values.tolist()
    values = {
        **traced,
        **found.summary,
        "by_class": {label: own for label, own in found.metrics.decisions.items() if label},
        "thresholds": None if limits is None else dict(zip(found.labels, limits, strict=True)),
        "missed": list(found.missed),
        "reliability": curves,
        "calibration": calibration_to_dict(found.calibration),
    }
    path = folder / "calibration.json"
    write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    try:
        with extra("a reliability diagram", "plot"):
            from earmark.plots import metrics as plots
    except MissingExtraError:
        return [path]
    single = found.calibration.method == "temperature"
    axes = ("highest score", "clips") if single else ("score", "scores")
    picture = folder / "reliability.png"
    plots.plot_reliability(found.metrics.curves, picture, *axes)
    return [path, picture]


def _rows(found: CalibrationResult) -> list[tuple[str, ...]]:
    before, after = found.metrics.before, found.metrics.after
    rows = [(name, f"{before[name]:.{DECIMALS}f}", f"{after[name]:.{DECIMALS}f}") for name in after]
    return [("", "before", "after"), *rows]


def _threshold_metrics(found: CalibrationResult) -> str:
    means = ", ".join(f"{name} {value:.3f}" for name, value in found.metrics.decisions[""].items())
    return f"thresholds for {found.target}: {means} (means over classes, measured on the same clips)"
