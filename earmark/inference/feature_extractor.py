"""Blocks of audio -> the windows that a network takes, as features.

Conventions: blocks are mono float32, shape (time,); features are what the graph of a model file takes for one
window: a log-mel (mel, frame), or the waveform (time,) if the front-end is part of the graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from earmark.audio.resample import Resampler
from earmark.audio.windows import Padding, WholeCutter, WindowCutter
from earmark.features.front_end import FrontEnd
from earmark.features.learned import AnyFrontEnd, WaveformWindows
from earmark.features.log_mel import LogMel

Floats = NDArray[np.float32]

LONGEST_PERIOD = 8
"""Log-mels that are kept to copy frames from: where hops are no multiple of the hop of frames, only every
n-th window has frames of an earlier one."""

_NO_SAMPLES = np.zeros(0, np.float32)


class FeatureWindow(NamedTuple):
    """The span of a window in seconds, its features, and the mean square of its samples."""

    start_s: float
    end_s: float
    features: Floats
    power: float


class FeatureExtractor:
    """Computes the features of windows.

    Args:
        front_end: Front-end of the model.
    """

    def __init__(self, front_end: AnyFrontEnd) -> None:
        self.sample_rate, self._shortest = front_end.sample_rate, front_end.min_samples
        self._features = LogMel(front_end) if isinstance(front_end, FrontEnd) else WaveformWindows()
        self.windows: Callable[[Floats, Sequence[int], int], Floats] = self._features.windows

    def stream(
        self, blocks: Iterable[Floats], sample_rate: int, length: int | None, hop: int, padding: Padding
    ) -> Iterator[Generator[FeatureWindow, None, None]]:
        """Cuts blocks into windows and computes their features; frames that windows share only once.

        Args:
            blocks: Any sizes.
            sample_rate: Sample rate of the blocks in Hz.
            length: Samples of a window, at the sample rate of the front-end; None: all of the stream.
            hop: Samples from one window to the next; the longest stream, if that is one window.
            padding: How a clip shorter than one window is padded.

        Yields:
            For each block, as soon as it is there, a generator of the windows that it completes, to be used
            up before the next block is asked for; then one for the last window.

        Raises:
            AudioError: If the blocks hold no samples or cannot be resampled.
        """
        stream = self.open(sample_rate, length, hop, padding)
        for block in blocks:
            yield stream.push(block)
        yield stream.finish()

    def open(self, sample_rate: int, length: int | None, hop: int, padding: Padding) -> FeatureStream:
        """Opens a stream that blocks are pushed into; arguments as for :meth:`stream`.

        Raises:
            AudioError: If the blocks cannot be resampled.
        """
        resampler = Resampler(sample_rate, self.sample_rate)
        cutter: WindowCutter | WholeCutter
        if length is None:
            cutter = WholeCutter(self._shortest, hop, padding, self.sample_rate)
        else:
            cutter = WindowCutter(length, hop, padding)
        return FeatureStream(cutter, resampler, self._consecutive(length, hop), sample_rate, self.sample_rate)

    def _consecutive(self, length: int | None, hop: int) -> Callable[[int, Floats], Floats]:
        """Computes the features of windows that follow each other at a hop, from their start and samples."""
        if length is None or not isinstance(self._features, LogMel):
            return lambda start, waveform: self.windows(waveform, [0], waveform.size)[0]
        log_mel, frame_hop = self._features, self._features.front_end.hop_length
        period = frame_hop // gcd(hop, frame_hop)  # windows until frames lie on the same samples again
        if period * hop >= length or period > LONGEST_PERIOD:
            return lambda start, waveform: log_mel(waveform)
        shift = period * hop // frame_hop
        earlier: deque[Floats] = deque(maxlen=period)

        def compute(start: int, waveform: Floats) -> Floats:
            follows = len(earlier) == period and start % hop == 0  # the last one may end with the recording
            earlier.append(log_mel.following(waveform, earlier[0], shift) if follows else log_mel(waveform))
            return earlier[-1]

        return compute


class FeatureStream:
    """A stream of blocks -> the features of its windows; :meth:`FeatureExtractor.open` opens one.

    Args:
        cutter: Cuts the resampled stream.
        resampler: From the rate of the blocks to that of the model.
        compute: Computes the features of consecutive windows, from their first sample and their samples.
        sample_rate: Sample rate of the blocks in Hz.
        model_rate: Sample rate of the windows in Hz.
    """

    def __init__(
        self,
        cutter: WindowCutter | WholeCutter,
        resampler: Resampler,
        compute: Callable[[int, Floats], Floats],
        sample_rate: int,
        model_rate: int,
    ) -> None:
        self._cutter, self._resampler, self._compute = cutter, resampler, compute
        self._sample_rate, self._model_rate = sample_rate, model_rate
        self._received = 0

    def push(self, block: Floats) -> Generator[FeatureWindow, None, None]:
        """Adds a block of any size.

        Returns:
            The windows that it completes, to be used up before the next block is pushed.
        """
        self._received += block.size
        return self._features(self._cutter.push(self._resampler.process(block)))

    def finish(self) -> Generator[FeatureWindow, None, None]:
        """Ends the stream; returns the last windows.

        Raises:
            AudioError: If the stream has no samples.
        """
        last = self._cutter.push(self._resampler.process(_NO_SAMPLES, last=True))
        return self._features([*last, *self._cutter.finish()])

    def _features(self, windows: Sequence[tuple[int, Floats]]) -> Generator[FeatureWindow, None, None]:
        duration_s = self._received / self._sample_rate
        for start, waveform in windows:
            start_s, end_s = start / self._model_rate, (start + waveform.size) / self._model_rate
            power = float(np.dot(waveform, waveform)) / waveform.size
            yield FeatureWindow(start_s, min(end_s, duration_s), self._compute(start, waveform), power)
