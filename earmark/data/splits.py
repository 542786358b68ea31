"""Clips without folds -> folds that are alike.

Conventions: folds are counted from 1; nothing is drawn, so the same clips always come to the same folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from earmark.data.manifest import Clip, label_set, targets
from earmark.errors import DataError


def deal(clips: Sequence[Clip], folds: int) -> list[Clip]:
    """Deals clips into folds so that each gets its share of every class, whether classes co-occur or not.

    Source: iterative stratification, Sechidis, Tsoumakas and Vlahavas, ECML 2011: always the rarest class
    first, to the fold that lacks most of it, then to the one with most room; ties go to the first.

    Args:
        clips: In any order.
        folds: How many, at least 2.

    Returns:
        The same clips in the same order, with their folds.

    Raises:
        DataError: If there are fewer clips than folds.
    """
    if len(clips) < folds:
        raise DataError(f"{len(clips)} clips cannot be dealt into {folds} folds")
    known = np.nan_to_num(targets(clips, label_set(clips))) > 0
    lacking = np.tile(known.sum(0) / folds, (folds, 1))
    room = np.full(folds, len(clips) / folds)
    chosen = np.zeros(len(clips), np.int64)

    def place(index: int, need: np.ndarray) -> None:
        fold = max(range(folds), key=lambda fold: (need[fold], room[fold], -fold))
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
