"""The report of a fit: numbers of the cross-validation, for people, for programs, and for the model info.

Conventions: every number is measured on clips whose sources the classifier was not fitted to; the model that
is written is fitted to all clips. Intervals are 95 %, by drawing sources with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earmark.custom.check import Finding
from earmark.custom.example import Example
from earmark.custom.options import Depth
from earmark.evaluation.metrics import Reliability
from earmark.evaluation.report import aligned
from earmark.model_file.info import Task


@dataclass(frozen=True)
class WrongClip:
    """A clip that was named wrongly.

    Attributes:
        example: The clip.
        predicted: The label with the highest score.
        score: Its score.
        own_score: The lowest score of the clip's own labels; 0 for background.
    """

    example: Example
    predicted: str
    score: float
    own_score: float


@dataclass(frozen=True)
class FitReport:
    """What a fit found.

    Attributes:
        model: Name of the model.
        output: The model file; None if none was written.
        base: Name of the base model.
        depth: "probe", "head" or "full".
        depth_reason: Why this depth.
        task: Of the model.
        labels: One per class.
        counts: Clips of each label, and of background ("").
        num_clips: Clips that were used.
        hours: Duration of all clips.
        num_sources: Number of groups.
        num_folds: Folds of the cross-validation; 0 if there was none.
        metrics: "accuracy" (or "map_macro", for several labels), its "low" and "high", and others.
        by_class: Label -> clips, precision, recall, average precision and threshold.
        confusion: (true, predicted) clips; None for several labels a clip.
        reliability: Confidence and accuracy of the scores.
        false_alarms_per_hour: Labels that reach their thresholds per hour of background; None without any.
        wrong: Clips that were named wrongly, the most certain mistakes first.
        findings: Of the check.
        num_failed: Clips that could not be read.
    """

    model: str
    output: Path | None
    base: str
    depth: Depth
    depth_reason: str
    task: Task
    labels: tuple[str, ...]
    counts: Mapping[str, int]
    num_clips: int
    hours: float
    num_sources: int
    num_folds: int
    metrics: Mapping[str, float]
    by_class: Mapping[str, Mapping[str, float]]
    confusion: tuple[tuple[int, ...], ...] | None
    reliability: Reliability | None
    false_alarms_per_hour: float | None
    wrong: tuple[WrongClip, ...]
    findings: tuple[Finding, ...]
    num_failed: int = 0

    @property
    def headline(self) -> str:
        """The main number with its interval, in a sentence."""
        if not self.num_folds:
            return "not tested: no class has clips of two sources"
        name = "accuracy" if "accuracy" in self.metrics else "mAP"
        value = self.metrics.get("accuracy", self.metrics.get("map_macro", 0.0))
        span = f" ({self.metrics['low']:.3f} to {self.metrics['high']:.3f})" if "low" in self.metrics else ""
        return f"{name} {value:.3f}{span}, cross-validated in {self.num_folds} folds by source"

    def summary(self) -> str:
        """Text for the console."""
        lines = [
            f"{len(self.labels)} classes, {self.num_clips} clips of {self.num_sources} sources, "
            f"{self.hours * 60:.1f} minutes",
            f"depth {self.depth}: {self.depth_reason}",
            self.headline,
        ]
        if self.false_alarms_per_hour is not None:
            lines.append(f"{self.false_alarms_per_hour:.2f} false alarms per hour of background")
        elif self.num_folds:
            lines.append("false alarms unknown: add a folder background with clips without these sounds")
        return "\n".join([*lines, "", *aligned(self.class_rows())])

    def class_rows(self) -> list[tuple[str, ...]]:
        """A table of the classes, its head first."""
        names = ("clips", "precision", "recall", "average_precision", "threshold")
        rows = [("label", *(name.replace("_", " ") for name in names))]
        for label, values in self.by_class.items():
            cells = (values.get(name) for name in names)
            rows.append((label, *("" if cell is None else f"{cell:.3g}" for cell in cells)))
        if "" in self.counts:
            rows.append(("(background)", str(self.counts[""]), "", "", "", ""))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        values: dict[str, Any] = {
            "model": self.model,
            "base": self.base,
            "depth": self.depth,
            "depth_reason": self.depth_reason,
            "task": self.task,
            "clips": {label or "(background)": count for label, count in self.counts.items()},
            "hours": round(self.hours, 4),
            "sources": self.num_sources,
            "folds": self.num_folds,
            "metrics": dict(self.metrics),
            "by_class": {label: dict(own) for label, own in self.by_class.items()},
            "false_alarms_per_hour": self.false_alarms_per_hour,
            "findings": [{"kind": one.kind, "text": one.text} for one in self.findings],
            "wrong": [
                {
                    "clip": one.example.name,
                    "labels": list(one.example.labels),
                    "predicted": one.predicted,
                    "score": round(one.score, 4),
                }
                for one in self.wrong
            ],
        }
        if self.confusion is not None:
            values["confusion"] = {
                "labels": list(self.labels),
                "table": [list(row) for row in self.confusion],
            }
        return values
