"""A calibration as words, as Markdown for a model's card, and as files: JSON and a reliability diagram.

Conventions: before is the model's own scores, after the calibrated ones, of the same clips.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earmark.errors import MissingExtraError, extra
from earmark.evaluation.calibration.cross_fit import Calibrated
from earmark.evaluation.calibration.fit import logit
from earmark.evaluation.report import DECIMALS, aligned, markdown_table
from earmark.model_file.atomic import write_atomically
from earmark.model_file.calibration import Platt, calibration_to_dict
from earmark.model_file.info import ModelInfo

HEADING = "## Calibration\n"


def summary(found: Calibrated) -> str:
    """What stands on the console: metrics before and after, and what the thresholds bring."""
    lines = [*aligned(_rows(found)), "", f"measured on {found.measured.judged}"]
    if found.target is not None:
        lines += ["", _thresholds_in_words(found)]
    return "\n".join(lines)


def warnings(info: ModelInfo, found: Calibrated) -> list[str]:
    """What is odd about the calibration of a model, one line each."""
    told = []
    if info.threshold is not None and entered(info, found).threshold is None:
        told.append("the model's threshold was for other scores and is dropped: a target chooses new ones")
    if found.missed:
        told.append(f"{found.target} is reached at no threshold by {', '.join(found.missed)}")
    calibration = found.calibration
    if isinstance(calibration, Platt) and 0 in calibration.slope:
        flat = [label for label, slope in zip(found.labels, calibration.slope, strict=True) if slope == 0]
        told.append(
            f"the score says nothing about {', '.join(flat)}, whose probability is now always the same"
        )
    return told


def in_markdown(found: Calibrated) -> str:
    """The section of a model's card."""
    fitted_on = ", ".join(f"{key} {value}" for key, value in found.calibration.fitted_on.items())
    text = (
        f"{HEADING}\nScores are probabilities: {found.calibration.method}, fitted on held-out clips "
        f"({fitted_on}). Measured on {found.measured.judged}:\n\n{markdown_table(_rows(found))}"
    )
    if found.thresholds is None:
        return text
    rows: list[tuple[str, ...]] = [("label", "threshold", "precision", "recall", "F1")]
    for label, threshold in zip(found.labels, found.thresholds.values, strict=True):
        own = found.measured.decisions[label]
        cells = (f"{own[name]:.3f}" if name in own else "" for name in ("precision", "recall", "f1"))
        rows.append((label, f"{threshold:.3f}", *cells))
    return f"{text}\n{_thresholds_in_words(found)}\n\n{markdown_table(rows)}"


def entered(info: ModelInfo, found: Calibrated) -> ModelInfo:
    """A model's record with its calibration, thresholds, what was measured, and a section of the card.

    Thresholds without a target: those that the record has for uncalibrated scores, turned into the
    probabilities that stand for them, so that a clip gets the tags that it got. That cannot be done for a
    softmax, nor for scores of an earlier calibration; then there are none.
    """
    before, threshold = info.thresholds, None
    if before is not None and info.calibration is None and info.task == "multi_label":
        limits = found.calibration.probabilities(logit(np.array(before)))
        least, most = (found.calibration.probabilities(np.full(len(before), end)) for end in (-1e3, 1e3))
        limits[least == most] = 1.0  # a score that says nothing is never enough
        threshold = tuple(limits.astype(float).tolist())
    return found.applied_to(info.changed(calibration=None, threshold=threshold)).changed(
        metrics={**info.metrics, "calibration": found.summary},
        card=with_section(info.card, in_markdown(found)),
    )


def with_section(card: str, section: str) -> str:
    """A card with this section about its calibration, in the place of one that is there."""
    without = re.sub(rf"(?ms)^{HEADING}.*?(?=^## |\Z)", "", card).rstrip()
    return f"{without}\n\n{section}" if without else section


def write_calibration(found: Calibrated, traced: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes calibration.json, and reliability.png where matplotlib is installed.

    Args:
        found: What was found.
        traced: Where it comes from, see :func:`~earmark.evaluation.report.traces`.
        folder: Made where it is missing.

    Returns:
        The files.

    Raises:
        OSError: If they cannot be written.
    """
    curves = {
        name: {key: np.nan_to_num(column).tolist() for key, column in curve._asdict().items()}
        for name, curve in found.measured.curves.items()
    }
    limits = None if found.thresholds is None else found.thresholds.values.tolist()
    values = {
        **traced,
        **found.summary,
        "by_class": {label: own for label, own in found.measured.decisions.items() if label},
        "thresholds": None if limits is None else dict(zip(found.labels, limits, strict=True)),
        "missed": list(found.missed),
        "reliability": curves,
        "calibration": calibration_to_dict(found.calibration),
    }
    path = folder / "calibration.json"
    write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    try:
        with extra("a reliability diagram", "plot"):
            from earmark.evaluation import plots
    except MissingExtraError:
        return [path]
    single = found.calibration.method == "temperature"
    words = {"of": "highest score", "counted": "clips"} if single else {"of": "score", "counted": "scores"}
    picture = folder / "reliability.png"
    plots.plot_reliability(found.measured.curves, picture, **words)
    return [path, picture]


def _rows(found: Calibrated) -> list[tuple[str, ...]]:
    before, after = found.measured.before, found.measured.after
    rows = [(name, f"{before[name]:.{DECIMALS}f}", f"{after[name]:.{DECIMALS}f}") for name in after]
    return [("", "before", "after"), *rows]


def _thresholds_in_words(found: Calibrated) -> str:
    means = ", ".join(f"{name} {value:.3f}" for name, value in found.measured.decisions[""].items())
    return f"thresholds for {found.target}: {means} (means over classes, measured on the same clips)"
