"""Cuts a waveform, whole or as a stream, into the windows that a network takes.

Conventions: mono float32 ``(time,)``; positions and lengths in samples at the model's rate. Window i starts
at i * hop. Window i > 0 exists if samples follow window i - 1 and, if hop is greater than length, the gap
behind it; a window that would reach beyond the clip ends with the clip instead, so that only a clip shorter
than one window is padded. The number of windows is held by golden/efficientat/pipeline/window_plan.json,
except that a clip shorter than one window has one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earmark.errors import AudioError, ModelError

Padding = Literal["repeat", "zero"]


def plan_windows(num_samples: int, length: int, hop: int) -> list[int]:
    """Lists where the windows of a clip start.

    Source: golden/efficientat/pipeline/window_plan.json: ``max(1, ceil((num_samples - length) / hop) + 1)``
    windows, without those that would start behind the end, if hop is greater than length.

    Args:
        num_samples: Samples of the clip, at least 1.
        length: Samples of a window, at least 1.
        hop: Samples from the start of one window to the next, at least 1.

    Returns:
        The start of each window in samples, ascending from 0: multiples of hop, but the last of several
        windows ends with the clip.

    Raises:
        AudioError: If the clip has no samples.
        ValueError: If length or hop is below 1.
    """
    _check_sizes(length, hop)
    if num_samples < 1:
        raise AudioError("a clip must have at least 1 sample, got 0")
    last = max(0, num_samples - length)
    beyond = max(0, num_samples - max(length, hop))
    return [min(index * hop, last) for index in range(1 + -(-beyond // hop))]


def pad(waveform: NDArray[np.float32], length: int, mode: Padding) -> NDArray[np.float32]:
    """Pads a short waveform to a length.

    Args:
        waveform: float32, shape (time,), at least one sample.
        length: Samples wanted.
        mode: "repeat" repeats the waveform and cuts it at length, "zero" appends silence.

    Returns:
        float32, shape (max(time, length),); the same array if it is long enough.

    Raises:
        AudioError: If the waveform has no samples.
        ValueError: If there is no such mode.
    """
    _check_padding(mode)
    if not waveform.size:
        raise AudioError("a clip must have at least 1 sample, got 0")
    if waveform.size >= length:
        return waveform
    if mode == "repeat":
        return np.resize(waveform, length)
    return np.concatenate([waveform, np.zeros(length - waveform.size, waveform.dtype)])


class WindowCutter:
    """Cuts a stream into the windows that ``plan_windows`` lists, each as soon as its samples are there.

    At most the samples of one window and one block are held.

    Args:
        length: Samples of a window, at least 1.
        hop: Samples from the start of one window to the next, at least 1.
        padding: How a stream shorter than one window is padded.

    Raises:
        ValueError: If length or hop is below 1, or there is no such padding.
    """

    def __init__(self, length: int, hop: int, padding: Padding) -> None:
        _check_sizes(length, hop)
        _check_padding(padding)
        self._length, self._hop, self._padding = length, hop, padding
        self._held: deque[NDArray[np.float32]] = deque()  # at least the last ``length`` samples of the stream
        self._num_held = self._received = self._next = 0

    def push(self, block: NDArray[np.float32]) -> list[tuple[int, NDArray[np.float32]]]:
        """Adds the next block.

        Args:
            block: float32, shape (time,), of any size; not to be written to afterwards.

        Returns:
            The windows that it completes: first sample within the stream, and samples, float32, shape
            (length,), contiguous; they may be views of the blocks and of each other.
        """
        if not block.size:
            return []
        self._received += block.size
        self._num_held += block.size
        self._held.append(block)
        last = self._received - self._length
        if last < self._next:
            while self._num_held - self._held[0].size >= self._length:
                self._num_held -= self._held.popleft().size
            return []
        samples, origin = _join(self._held), self._received - self._num_held
        starts = range(self._next, last + 1, self._hop)
        windows = [(start, samples[start - origin :][: self._length]) for start in starts]
        self._next = starts[-1] + self._hop
        self._held, self._num_held = deque([samples[-self._length :]]), self._length
        return windows

    def finish(self) -> list[tuple[int, NDArray[np.float32]]]:
        """Ends the stream.

        Returns:
            The last window, as for :meth:`push`: the last samples of the stream, or all of a stream shorter
            than one window, padded; none if the windows before it reach the end.

        Raises:
            AudioError: If the stream has no samples.
        """
        if not self._received:
            raise AudioError("the recording has no samples")
        covered = self._next - self._hop + max(self._length, self._hop)
        if self._next and self._received <= covered:
            return []
        samples = _join(self._held)[-self._length :]
        return [(self._received - samples.size, pad(samples, self._length, self._padding))]


class WholeCutter:
    """Takes a stream as one window of its own length; as :class:`WindowCutter`, but for the limits.

    Args:
        shortest: Samples that a shorter stream is padded to.
        longest: Samples that a stream may have.
        padding: How a stream shorter than ``shortest`` is padded.
        sample_rate: In Hz.

    Raises:
        ValueError: If there is no such padding.
    """

    def __init__(self, shortest: int, longest: int, padding: Padding, sample_rate: int) -> None:
        _check_padding(padding)
        self._shortest, self._longest = shortest, longest
        self._padding, self._rate = padding, sample_rate
        self._held: list[NDArray[np.float32]] = []
        self._received = 0

    def push(self, block: NDArray[np.float32]) -> list[tuple[int, NDArray[np.float32]]]:
        """Adds the next block; returns no window.

        Raises:
            ModelError: If the stream is too long.
        """
        self._received += block.size
        if self._received > self._longest:
            raise ModelError(
                f"longer than {self._longest / self._rate:g} s, which is the longest window: give window_s a "
                "number of seconds instead of 'whole'"
            )
        self._held.append(block)
        return []

    def finish(self) -> list[tuple[int, NDArray[np.float32]]]:
        """Ends the stream and returns its window.

        Raises:
            AudioError: If the stream has no samples.
        """
        if not self._received:
            raise AudioError("the recording has no samples")
        return [(0, pad(_join(self._held), self._shortest, self._padding))]


def _join(pieces: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One contiguous array, without a copy if there is one already (a long array as one block)."""
    return np.ascontiguousarray(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))


def _check_padding(mode: str) -> None:
    if mode not in ("repeat", "zero"):
        raise ValueError(f"padding must be repeat or zero, got {mode!r}")


def _check_sizes(*sizes: int) -> None:
    if min(sizes) < 1:
        raise ValueError(f"window length and hop must be at least 1, got {min(sizes)}")
