"""Clips that cannot be read: they are reported and, in training batches, replaced, up to a limit.

Conventions: a batch keeps its size: a readable clip of the batch takes the place of an unreadable one, with
its targets. The choice depends on the batch alone, so a resumed run makes the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from earmark.errors import AudioError
from earmark.training.runtime.devices import Batch, Keys


class _Clips(Protocol):
    """The part of a dataset that is needed here."""

    def __len__(self) -> int:
        """Number of clips."""

    def reason(self, index: int) -> str:
        """Why a clip cannot be read."""


class UnreadableClips:
    """Counts clips that cannot be read.

    Args:
        total: Number of all clips.
        kind: What they are of, for the error.
        max_fraction: Of the clips; more end the run.
        progress: Called once for each.
    """

    def __init__(
        self, total: int, kind: str, max_fraction: float, progress: Callable[[Mapping[str, Any]], object]
    ) -> None:
        self.total, self.kind, self.max_fraction, self.progress = total, kind, max_fraction, progress
        self._found: set[int] = set()

    def add(self, index: int, reason: Callable[[int], str]) -> None:
        """Counts and reports a clip, unless that was done before.

        Raises:
            AudioError: If there are more than the limit.
        """
        if index in self._found:
            return
        self._found.add(index)
        count, why = len(self._found), reason(index)
        if count > self.max_fraction * self.total:
            raise AudioError(
                f"{why}; {count} of the run's {self.total} {self.kind} cannot be read, more than "
                f"data.max_bad_fraction ({self.max_fraction:g}) allows"
            )
        self.progress({"skipped": why, "clips": count})


class SkippedClips:
    """Replaces the clips of batches that cannot be read.

    Args:
        data: Returns NaN for such clips.
        max_fraction: Of the run's clips; more end the run.
        progress: Called once for each.
    """

    def __init__(
        self, data: _Clips, max_fraction: float, progress: Callable[[Mapping[str, Any]], object]
    ) -> None:
        self.data = data
        self._unreadable = UnreadableClips(len(data), "clips", max_fraction, progress)

    def __call__(self, keys: Keys, clips: tuple[Tensor, Tensor]) -> Batch:
        """Replaces the unreadable clips of a batch.

        Args:
            keys: Position and crop seed of each clip.
            clips: Waveforms (batch, ...), beginning with NaN if unreadable, and targets (batch, class).

        Returns:
            The batch, with other clips of it in their places.

        Raises:
            AudioError: If there are more than the limit, or no clip of the batch can be read.
        """
        waveforms, targets = clips
        bad = waveforms.flatten(1)[:, 0].isnan()
        if not bad.any():
            return keys, clips
        for row in bad.nonzero().flatten().tolist():
            self._unreadable.add(keys[row][0], self.data.reason)
        good = (~bad).nonzero().flatten().tolist()
        if not good:
            raise AudioError(f"{self.data.reason(keys[0][0])}; no clip of its batch can be read")
        rows = [row if not bad[row] else good[row % len(good)] for row in range(len(keys))]
        return [keys[row] for row in rows], (waveforms[rows], targets[rows])
