"""Clips of a run that cannot be read: they are named and left out, until they are too many.

Conventions: a batch keeps its size: a clip that was read stands in for one that was not, with its own targets
and lessons. Which clip that is depends on the batch alone, so a run that goes on does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from earmark.errors import AudioError
from earmark.training.runtime.devices import Batch, Keys


class _Clips(Protocol):
    """What is asked of a data set."""

    def __len__(self) -> int:
        """Number of clips."""

    def reason(self, index: int) -> str:
        """Why a clip cannot be read."""


class LeftOut:
    """Counts the clips that could not be read, and fills their places.

    Args:
        data: Gives NaN for them.
        share: Of the run's clips; more of them end it.
        report: Is told of each, once.
    """

    def __init__(self, data: _Clips, share: float, report: Callable[[Mapping[str, Any]], object]) -> None:
        self.data, self.share, self.report = data, share, report
        self.found: set[int] = set()

    def __call__(self, keys: Keys, clips: tuple[Tensor, Tensor]) -> Batch:
        """A batch without them.

        Args:
            keys: Position and seed of each clip.
            clips: Waveforms (batch, ...), NaN from the start where a clip could not be read, and targets
                (batch, class).

        Returns:
            The same, with others of the batch in their places.

        Raises:
            AudioError: If they are more than the share, or no clip of the batch could be read.
        """
        waveforms, wanted = clips
        bad = waveforms.flatten(1)[:, 0].isnan()
        if not bad.any():
            return keys, clips
        for row in bad.nonzero().flatten().tolist():
            self._note(keys[row][0])
        good = (~bad).nonzero().flatten().tolist()
        if not good:
            raise AudioError(f"{self.data.reason(keys[0][0])}; no clip of its batch can be read")
        rows = [row if not bad[row] else good[row % len(good)] for row in range(len(keys))]
        return [keys[row] for row in rows], (waveforms[rows], wanted[rows])

    def _note(self, index: int) -> None:
        if index in self.found:
            return
        self.found.add(index)
        count, total = len(self.found), len(self.data)
        if count > self.share * total:
            raise AudioError(
                f"{self.data.reason(index)}; {count} of the run's {total} clips cannot be read, more than "
                f"data.max_bad_fraction ({self.share:g}) allows"
            )
        self.report({"left_out": self.data.reason(index), "clips": count})
