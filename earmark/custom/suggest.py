"""Chooses windows of an archive that are worth listening to (active learning).

    suggester = Suggester(tagger, "Dog", top=50)
    for result in tagger.tag_many(paths):
        suggester.add(result)
    suggestions = suggester.suggestions()

Windows are drawn in equal number from each tenth of the scores, so that the review covers sure hits, sure
misses and what lies between; a *weight* says how many windows of the archive each one stands for. Within a
tenth, windows are chosen that sound least like those chosen already.

Source: review in bins of the score, as by Navine et al. (All Thresholds Barred, 2024); farthest-first
traversal (Gonzalez, 1985).

Conventions: memory is bounded: of each tenth a random sample is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from earmark.errors import DataError
from earmark.inference.result import Result
from earmark.inference.tagger import Tagger
from earmark.model_file.label_selection import select_labels

Floats = NDArray[np.float32]

BINS = 10
KEPT = 256
"""Windows of each bin that are kept in memory, a random sample."""


class Suggestion(NamedTuple):
    """A window to listen to.

    Attributes:
        path: Of the recording.
        start_s: Start in seconds.
        end_s: End in seconds.
        score: Of the label, in [0, 1].
        weight: Number of windows of the archive with a similar score that it stands for.
    """

    path: str
    start_s: float
    end_s: float
    score: float
    weight: float


@dataclass(frozen=True, eq=False)
class _Candidate:
    path: str
    start_s: float
    end_s: float
    score: float
    embedding: Floats

    def is_near(self, other: _Candidate) -> bool:
        """Whether two windows overlap or touch."""
        return self.path == other.path and self.start_s <= other.end_s and other.start_s <= self.end_s


class Suggester:
    """Chooses windows of one label.

    Args:
        tagger: The model.
        label: The label, one of the model's.
        top: Number of windows, at least 1.
        seed: Of the random samples.

    Raises:
        ModelError: If the model has no such label.
        DataError: If ``top`` is below 1.
    """

    def __init__(self, tagger: Tagger, label: str, top: int = 50, seed: int = 0) -> None:
        if top < 1:
            raise DataError(f"top must be at least 1, got {top}")
        [self._index] = select_labels(tagger.labels, [label])
        self.label, self._top = tagger.labels[self._index], top
        self._rng = np.random.default_rng(seed)
        self._counts = [0] * BINS
        self._pools: list[list[_Candidate]] = [[] for _ in range(BINS)]

    def add(self, result: Result) -> None:
        """Takes the windows of a recording into account."""
        for window in result.windows:
            score = float(window.scores[self._index])
            number = min(int(score * BINS), BINS - 1)
            self._counts[number] += 1
            pool = self._pools[number]
            place = len(pool) if len(pool) < KEPT else int(self._rng.integers(self._counts[number]))
            if place < KEPT:
                norm = max(float(np.linalg.norm(window.embedding)), 1e-12)
                found = _Candidate(
                    result.path or "",
                    window.start_s,
                    window.end_s,
                    score,
                    window.embedding / np.float32(norm),
                )
                pool[place : place + 1] = [found]

    def suggestions(self) -> list[Suggestion]:
        """Returns at most ``top`` windows, those with the highest score first.

        Fewer are returned only if there are no more that neither overlap nor touch.
        """
        chosen: list[list[_Candidate]] = [[] for _ in range(BINS)]
        left = [list(pool) for pool in self._pools]
        everything: list[_Candidate] = []
        while len(everything) < self._top:
            open_bins = [number for number in range(BINS) if left[number]]
            if not open_bins:
                break
            # The bin with the fewest; of several the one nearest the middle, where the model is unsure.
            number = min(open_bins, key=lambda one: (len(chosen[one]), abs(one + 0.5 - BINS / 2)))
            best = left[number].pop(_farthest(left[number], everything))
            if not any(best.is_near(one) for one in everything):
                chosen[number].append(best)
                everything.append(best)
        found = [
            Suggestion(one.path, one.start_s, one.end_s, one.score, self._counts[number] / len(own))
            for number, own in enumerate(chosen)
            for one in own
        ]
        return sorted(found, key=lambda one: -one.score)


def _farthest(pool: Sequence[_Candidate], chosen: Sequence[_Candidate]) -> int:
    """The candidate whose nearest neighbour among the chosen ones is farthest away."""
    if not chosen:
        return 0
    similarities = np.stack([one.embedding for one in pool]) @ np.stack([one.embedding for one in chosen]).T
    return int(similarities.max(1).argmin())
