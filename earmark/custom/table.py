"""The table that classifiers are fitted to: features of windows, and the clips that they belong to.

Conventions: one row per window, float32 (row, feature); ``owner`` is the index of the clip of each row. The
windows of a clip, and of its variations, together weigh as much as one clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from earmark.custom.example import Example
from earmark.inference.pooling import default_pooling, pool_windows
from earmark.model_file.calibration import Calibration, uncalibrated_scores
from earmark.model_file.info import Task

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Table:
    """Features and targets of clips.

    Args:
        features: Of all windows, those of variations behind those of the clips themselves.
        owner: Clip of each row.
        num_plain: Number of rows that are windows of clips as they are; they are in the order of the clips.
        targets: 0 or 1, shape (clip, class).
        labels: One per class.
        groups: Number of the group of each clip.
        task: Of the model.
    """

    features: Floats
    owner: Indices
    num_plain: int
    targets: Floats
    labels: tuple[str, ...]
    groups: Indices
    task: Task

    def rows_of(self, clips: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which rows, with variations, belong to some clips."""
        return clips[self.owner]

    def weights(self, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Weight of each of some rows: those of a clip sum to 1."""
        owner = self.owner[rows]
        return 1.0 / np.bincount(owner, minlength=len(self.targets))[owner]

    def windows(self) -> list[Indices]:
        """Rows of each clip as it is."""
        starts = np.searchsorted(self.owner[: self.num_plain], np.arange(len(self.targets) + 1))
        return [np.arange(start, stop) for start, stop in pairwise(starts)]


def make_table(
    examples: Sequence[Example],
    features: Sequence[Floats],
    variations: Sequence[tuple[int, Floats]],
    labels: tuple[str, ...],
    task: Task,
) -> Table:
    """Makes a table.

    Args:
        examples: The clips.
        features: Of each clip, (window, feature).
        variations: Clip, and features of a variation of it.
        labels: One per class.
        task: Of the model.
    """
    column = {label: number for number, label in enumerate(labels)}
    targets = np.zeros((len(examples), len(labels)), np.float32)
    for number, example in enumerate(examples):
        targets[number, [column[label] for label in example.labels]] = 1
    owners = [np.full(len(own), number) for number, own in enumerate(features)]
    num_plain = sum(map(len, features))
    owners += [np.full(len(own), number) for number, own in variations]
    _, groups = np.unique([example.group for example in examples], return_inverse=True)
    rows = np.concatenate([*features, *(own for _, own in variations)])
    return Table(rows, np.concatenate(owners), num_plain, targets, labels, groups.astype(np.int64), task)


def clip_scores(logits: Sequence[Floats], task: Task, calibration: Calibration | None = None) -> Floats:
    """Scores of clips from the logits of their windows, as a tagger computes them: float32 (clip, class)."""
    pooling = default_pooling(task)
    return np.stack(
        [
            pool_windows(
                calibration.probabilities(own) if calibration else uncalibrated_scores(own, task), pooling
            )
            for own in logits
        ]
    )
