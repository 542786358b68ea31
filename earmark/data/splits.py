"""Assigns clips to stratified folds.

Conventions: folds are numbered from 1; nothing is random. scikit-learn's ``StratifiedGroupKFold`` stratifies
by one label per clip; these clips may have several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from earmark.data.manifest import Clip, label_set, targets
from earmark.errors import DataError


def stratified_folds(clips: Sequence[Clip], num_folds: int) -> list[Clip]:
    """Assigns clips to folds with equal shares of every class, for one or several labels per clip.

    Source: iterative stratification, Sechidis, Tsoumakas and Vlahavas, ECML 2011: the rarest class first, to
    the fold that needs most of it, then to the one with fewest clips; ties go to the first.

    Args:
        clips: In any order.
        num_folds: Number of folds, at least 2.

    Returns:
        The same clips in the same order, with their folds.

    Raises:
        DataError: If there are fewer clips than folds.
    """
    if len(clips) < num_folds:
        raise DataError(f"{num_folds} folds need at least as many clips, got {len(clips)} clips")
    known = np.nan_to_num(targets(clips, label_set(clips))) > 0
    lacking = np.tile(known.sum(0) / num_folds, (num_folds, 1))
    room = np.full(num_folds, len(clips) / num_folds)
    chosen = np.zeros(len(clips), np.int64)

    def place(index: int, need: np.ndarray) -> None:
        fold = max(range(num_folds), key=lambda fold: (need[fold], room[fold], -fold))
        chosen[index] = fold + 1
        room[fold] -= 1
        lacking[fold] -= known[index]

    while (left := known[chosen == 0].sum(0)).any():
        rarest = int(np.where(left > 0, left, len(clips) + 1).argmin())
        for index in np.flatnonzero((chosen == 0) & known[:, rarest]):
            place(int(index), lacking[:, rarest])
    for index in np.flatnonzero(chosen == 0):
        place(int(index), room)
    return [replace(clip, fold=int(fold)) for clip, fold in zip(clips, chosen, strict=True)]
