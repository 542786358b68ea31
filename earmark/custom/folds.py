"""Folds whose groups are never on both sides of a split.

Conventions: folds are numbered from 1; 0: always fitted to, because it is of the only source of a class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip
from earmark.data.splits import stratified_folds

Folds = NDArray[np.int64]
USUAL_FOLDS, TINY_FOLDS, LEAVE_ONE_OUT = 5, 10, 40
"""Folds: usually; where a class has fewer sources; and the most sources that are each left out once."""


def num_folds(targets: NDArray[np.float32], groups: NDArray[np.int64], wanted: int | None) -> int:
    """Number of folds of a cross-validation; 0 if no class has two sources.

    Args:
        targets: (clip, class).
        groups: Group of each clip.
        wanted: The number that was asked for; None: 5; where a class has fewer than five sources each source
            is left out once (up to 40 of them), or 10.
    """
    sources = [len(np.unique(groups[own > 0])) for own in targets.T]
    testable = [count for count in sources if count > 1]
    if not testable:
        return 0
    total = len(np.unique(groups))
    if wanted is not None:
        return min(wanted, total)
    if min(testable) >= USUAL_FOLDS:
        return USUAL_FOLDS
    return total if total <= LEAVE_ONE_OUT else TINY_FOLDS


def grouped_folds(targets: NDArray[np.float32], groups: NDArray[np.int64], count: int) -> Folds:
    """Assigns clips to folds with equal shares of every class, all clips of a group to one.

    Args:
        targets: (clip, class).
        groups: Group of each clip.
        count: Number of folds, at least 2 and at most the number of groups.
    """
    present, owner = np.unique(groups, return_inverse=True)
    has = np.zeros((len(present), targets.shape[1] + 1), bool)
    np.logical_or.at(has, owner, np.column_stack([targets > 0, ~(targets > 0).any(1)]))
    clips = [
        Clip(Path(str(number)), tuple(str(one) for one in np.flatnonzero(row)))
        for number, row in enumerate(has)
    ]
    chosen = np.array([clip.fold for clip in stratified_folds(clips, count)])
    single = has[:, :-1].sum(0) == 1  # a class of one source cannot be tested: it stays in every training set
    chosen[has[:, :-1][:, single].any(1)] = 0
    return np.asarray(chosen[owner], np.int64)
