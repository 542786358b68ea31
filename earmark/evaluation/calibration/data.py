"""Scores and targets of held-out clips that a calibration is fitted to or measured on.

Conventions: scores are those of the uncalibrated model; targets are (clip, class): 0, 1, or NaN where
unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earmark.errors import DataError
from earmark.evaluation.predictions import listed
from earmark.inference.pooling import default_pooling, pool_windows
from earmark.model_file.calibration import Calibration
from earmark.model_file.info import Task

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]

_MIN_SCORE, _MAX_SCORE = 1e-16, 1 - 2.0**-24
"""Scores nearer to 0 or 1 have lost their logit to rounding."""


@dataclass(frozen=True, eq=False)
class CalibrationData:
    """Uncalibrated scores of clips, and their targets.

    Args:
        labels: One per class.
        task: The model's.
        windows: Of each clip, the uncalibrated scores of its windows, (window, class).
        targets: (clip, class); NaN where unknown.
    """

    labels: tuple[str, ...]
    task: Task
    windows: tuple[Scores, ...]
    targets: Scores

    @classmethod
    def from_clip_scores(
        cls, labels: Sequence[str], task: Task, scores: Scores, targets: Scores
    ) -> CalibrationData:
        """Data of clips whose windows are pooled already, (clip, class); exact for one window a clip.

        For multi-label models it is exact for any number of windows: a calibration preserves the maximum.
        """
        return cls(tuple(labels), task, tuple(row[None] for row in scores), targets)

    def select(self, rows: NDArray[np.bool_]) -> CalibrationData:
        """The clips of a mask, shape (clip,)."""
        windows = tuple(own for own, kept in zip(self.windows, rows, strict=True) if kept)
        return replace(self, windows=windows, targets=self.targets[rows])

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first window of each clip among all windows, (clip,)."""
        return np.cumsum([0, *map(len, self.windows[:-1])])

    @property
    def logits(self) -> Floats:
        """Logits of all windows, (window, class); for single-label models up to a constant of each window."""
        scores = np.concatenate(self.windows).astype(np.float64)
        if self.task == "single_label":
            return np.asarray(np.log(np.maximum(scores, np.finfo(np.float32).tiny)))
        return logit(scores)

    def scores(self, calibration: Calibration | None = None) -> Scores:
        """Scores of each clip, float32 (clip, class), as a tagger with this calibration returns them."""
        table = (
            np.concatenate(self.windows) if calibration is None else calibration.probabilities(self.logits)
        )
        pooling = default_pooling(self.task)
        return np.stack([pool_windows(own, pooling) for own in np.split(table, self.starts[1:])])


def logit(scores: NDArray[np.float64]) -> Floats:
    """Logits whose sigmoids are these scores, within the resolution of float32 scores."""
    clipped = np.clip(scores, _MIN_SCORE, _MAX_SCORE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def require_classes(labels: Sequence[str], targets: Scores) -> None:
    """Checks that every class has clips with and without it.

    Raises:
        DataError: Naming the classes that no clip, or every clip, belongs to.
    """
    known = ~np.isnan(targets)
    without = ~(targets > 0).any(0)
    always = ~without & ~(known & (targets == 0)).any(0)
    for classes, what in ((without, "no clip has"), (always, "every clip has")):
        missing = [labels[int(index)] for index in np.flatnonzero(classes)]
        if missing:
            raise DataError(
                f"{what} {len(missing)} of the {len(labels)} labels ({listed(missing)}): "
                "a calibration needs held-out clips with and without each label"
            )
