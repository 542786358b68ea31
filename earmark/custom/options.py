"""Options of a fit.

Conventions: a default that depends on the data is None or "auto"; the report says what was chosen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from earmark.errors import DataError
from earmark.model_file.info import Task

PathLike = str | os.PathLike[str]
Depth = Literal["probe", "head", "full"]
MIN_FOLDS, MAX_FOLDS = 2, 20


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Options of a fit.

    Args:
        base: Base model, a name or path; None: the default model.
        depth: "probe": logistic regression on the base model's features. "head": a hidden layer more, trained
            in PyTorch. "full": all weights of the network. None: chosen by the amount of data.
        task: "single_label": each clip has exactly one of the labels, scores are a softmax. "multi_label":
            labels may co-occur or none may apply, scores are sigmoids. None: "single_label" if every example
            has exactly one label, else "multi_label".
        keep_base_labels: Whether the model answers the base model's labels too, in the same pass; own labels
            replace those of the same name. Both are multi-label then.
        audio: Folder of the recordings that a CSV file names; None: that of the CSV file.
        folds: Folds of the cross-validation; None: 5, or as many as the smallest class has sources if these
            are fewer.
        precision: Wanted precision of the labels' thresholds, in (0, 1].
        max_clips: At most so many clips are used, evenly over the classes.
        augment: Whether clips are varied where there are few; None: if there are at most 8 a class.
        cache: Whether features are kept in the cache folder.
        workers: Threads that decode and compute features; None: one per core.
        seed: Of shuffling, augmentation and training.
    """

    base: PathLike | None = None
    depth: Depth | None = None
    task: Task | None = None
    keep_base_labels: bool = False
    audio: PathLike | None = None
    folds: int | None = None
    precision: float = 0.9
    max_clips: int = 20_000
    augment: bool | None = None
    cache: bool = True
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.depth not in (None, *get_args(Depth)):
            raise DataError(f"depth must be probe, head or full, got {self.depth!r}")
        if self.keep_base_labels and self.depth == "full":
            raise DataError(
                "keep_base_labels needs depth probe or head: full changes the base model's weights"
            )
        if self.task not in (None, "multi_label", "single_label"):
            raise DataError(f"task must be multi_label or single_label, got {self.task!r}")
        if self.keep_base_labels and self.task == "single_label":
            raise DataError("keep_base_labels needs the task multi_label: several labels may apply")
        if not 0 < self.precision <= 1:
            raise DataError(f"precision must be above 0 and at most 1, got {self.precision:g}")
        if self.folds is not None and not MIN_FOLDS <= self.folds <= MAX_FOLDS:
            raise DataError(f"folds must be between {MIN_FOLDS} and {MAX_FOLDS}, got {self.folds}")
        if self.max_clips < 1 or (self.workers is not None and self.workers < 1):
            raise DataError("max_clips and workers must be at least 1")
