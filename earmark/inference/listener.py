"""Live sound: blocks in, notices of events out.

Conventions: positions are counted in samples and given in seconds from the first one; they do not depend on
clocks, nor notices on the sizes of the blocks. Nothing that is kept grows with the length of a stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.audio import Levels, Mixer, check_finite, to_channels
from earmark.errors import AudioError
from earmark.events.online import Notice, OnlineDetector, Step, StepAverager
from earmark.inference.feature_extractor import FeatureStream, FeatureWindow

Floats = NDArray[np.float32]


class Listener:
    """Detects events in a stream while it lasts; :meth:`earmark.Tagger.listen` opens one.

    Args:
        open_stream: Opens a stream of windows.
        compute: Runs the network on a window; returns its scores.
        detector: Detects the events.
        sample_rate: Sample rate of the blocks in Hz.
        lengths_s: Window and hop in seconds.
        gate_db: Level below which a window is not passed to the network; None: no gate.

    Attributes:
        labels: One per class.
        sample_rate: Sample rate of the blocks in Hz.
        window_s: Window in seconds.
        hop_s: Hop in seconds.
        scores: Of the last window, shape (class,); zeros before the first, and for a window below the gate.
        level_db: Level of the last window: root mean square in dB relative to full scale; -inf for silence.
    """

    def __init__(
        self,
        open_stream: Callable[[], FeatureStream],
        compute: Callable[[FeatureWindow], Floats],
        detector: OnlineDetector,
        sample_rate: int,
        lengths_s: tuple[float, float],
        gate_db: float | None,
    ) -> None:
        self._open_stream, self._compute, self._detector = open_stream, compute, detector
        self.labels, self.sample_rate = detector.labels, sample_rate
        self.window_s, self.hop_s = lengths_s
        self._gate = 0.0 if gate_db is None else 10 ** (gate_db / 10)
        self._silence: Floats = np.zeros(len(self.labels), np.float32)
        self.scores, self.level_db = self._silence, -math.inf
        self._received = self._skipped = 0
        self._mixer: Mixer | None = None
        self._begin()

    @property
    def position_s(self) -> float:
        """Seconds that were fed or skipped."""
        return self._received / self.sample_rate

    @property
    def skipped_s(self) -> float:
        """Seconds that were skipped."""
        return self._skipped / self.sample_rate

    @property
    def active(self) -> tuple[str, ...]:
        """Labels of the events that are on."""
        return self._detector.active

    def feed(self, block: ArrayLike) -> list[Notice]:
        """Adds the next samples.

        Args:
            block: Samples in [-1, 1], or integers, shape (time,) or (time, channel), any size; the buffer may
                be used again afterwards. Several channels are mixed in segments of 16384 samples, which have
                to be complete first.

        Returns:
            The starts and ends of events that these samples settle, in order.

        Raises:
            AudioError: If samples are NaN or infinite, or the number of channels changes. The block has not
                been used then, and may be skipped.
        """
        channels = to_channels(block, in_blocks=True)
        check_finite(channels, self._received, self.sample_rate, "stream")
        if not channels.size:
            return []
        if self._mixer is None:
            self._mixer = Mixer(self.sample_rate, len(channels), self.sample_rate, Levels())
        elif self._mixer.kind[1] != len(channels):
            raise AudioError(
                f"stream: the number of channels changes from {self._mixer.kind[1]} to {len(channels)} at "
                f"{self.position_s:.3f} s: flush the listener first"
            )
        self._received += channels.shape[1]
        return self._mixed(self._mixer.push(np.array(channels)))

    def skip(self, samples: int) -> list[Notice]:
        """Lets time go on by samples that are lost.

        A gap shorter than a window counts as silence. A longer one ends the events that are on, and what
        follows it is a new recording.

        Args:
            samples: How many are lost, per channel, at least 0.

        Returns:
            As :meth:`feed`.
        """
        self._skipped += samples
        if self._mixer is not None and samples < self.window_s * self.sample_rate:
            return self.feed(np.zeros((samples, self._mixer.kind[1]), np.float32))
        notices = self.flush()
        self._received += samples
        self._begin()
        return notices

    def flush(self) -> list[Notice]:
        """Ends the stream: its last window ends with it, and so do the events.

        What is fed afterwards is a new recording whose times go on.

        Returns:
            As :meth:`feed`.
        """
        if self._mixer is None:
            return []
        notices = self._mixed(self._mixer.finish()) + self._windows(self._stream.finish())
        at_s = self.position_s
        for step in self._averager.finish():
            notices += self._detector.push(self._placed(step), at_s)
        notices += self._detector.finish(at_s)
        self._begin()
        return notices

    def _begin(self) -> None:
        """Starts a recording at the present position."""
        self._stream = self._open_stream()
        self._start_s = self.position_s
        self._mixer = None
        self._averager = StepAverager(self.hop_s)

    def _mixed(self, blocks: Iterable[Floats]) -> list[Notice]:
        return [notice for mono in blocks for notice in self._windows(self._stream.push(mono))]

    def _windows(self, windows: Iterable[FeatureWindow]) -> list[Notice]:
        notices = []
        for window in windows:
            self.level_db = 10 * math.log10(window.power) if window.power else -math.inf
            self.scores = self._compute(window) if window.power >= self._gate else self._silence
            step = self._averager.push(window.start_s, window.end_s, self.scores)
            if step is not None:
                notices += self._detector.push(self._placed(step), self._start_s + window.end_s)
        return notices

    def _placed(self, step: Step) -> Step:
        """A step of this recording as one of the stream."""
        return step._replace(start_s=self._start_s + step.start_s, end_s=self._start_s + step.end_s)
