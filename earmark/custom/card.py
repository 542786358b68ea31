"""The model info and card of a tagger that was fitted to own sounds.

Conventions: the numbers are those of the cross-validation; paths of clips are not stored.
"""

from __future__ import annotations

from typing import Any

from earmark.custom.cross_validation import CrossValidation
from earmark.custom.options import FitOptions
from earmark.custom.report import FitReport
from earmark.evaluation.report import markdown_table
from earmark.model_file.info import ModelInfo
from earmark.version import __version__


def model_info(
    report: FitReport, base: ModelInfo, found: CrossValidation | None, options: FitOptions
) -> ModelInfo:
    """Returns the model info of a fitted model.

    Args:
        report: Of the fit.
        base: Model info of the base model.
        found: The cross-validation; None if there was none.
        options: Of the fit.
    """
    provenance: dict[str, Any] = {
        "base": base.name,
        "base_provenance": dict(base.provenance),
        "depth": report.depth,
        "earmark": __version__,
        "clips": {label or "(background)": count for label, count in report.counts.items()},
        "sources": report.num_sources,
    }
    rule = f"precision of {options.precision:g} among clips that were not fitted to"
    if report.task == "single_label" and len(report.labels) > 2:
        rule += ", and as many unknown sounds (clips of a class that the model does not know)"
    return base.changed(
        name=report.model,
        labels=report.labels,
        task=report.task,
        precision="fp32" if report.depth == "full" else base.precision,
        threshold=None if found is None else found.thresholds,
        threshold_rule="" if found is None else rule,
        calibration=None if found is None else found.calibration,
        description=f"Own sounds: {', '.join(report.labels)}"[:200],
        source=f"earmark fit, on the base model {base.name}",
        metrics=_metrics(report),
        provenance=provenance,
        card=_card(report, base),
    )


def _metrics(report: FitReport) -> dict[str, Any]:
    values: dict[str, Any] = {f"cross-validated {name}": value for name, value in report.metrics.items()}
    if report.false_alarms_per_hour is not None:
        values["false alarms per hour"] = report.false_alarms_per_hour
    if report.by_class:
        values["by class"] = {label: dict(own) for label, own in report.by_class.items()}
    return values


def _card(report: FitReport, base: ModelInfo) -> str:
    alarms = report.false_alarms_per_hour
    lines = [
        f"# {report.model}",
        f"Own sounds on the features of `{base.name}` (licence of its weights: {base.license or 'unknown'}), "
        f"depth {report.depth}.",
        f"Measured on clips whose sources it was not fitted to: {report.headline}. The file is fitted to all "
        "clips.",
        "False alarms: " + ("not measured." if alarms is None else f"{alarms:g} per hour of background."),
        markdown_table(report.class_rows()),
    ]
    return "\n\n".join(lines)
