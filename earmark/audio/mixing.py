"""Mixes channels to one, and observes levels: silence, samples far beyond full scale, cancelling channels.

Channels are averaged. Where they cancel each other (the wires of a balanced line swapped) their mean is
silent, and the louder channel takes its place: decided for every 16384 samples, whatever the blocks.

Conventions: samples are float32, shape (channel, time); full scale is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from earmark.audio.resample import Resampler
from earmark.errors import AudioError

Floats = NDArray[np.float32]
SEGMENT = 1 << 14
"""Samples that are mixed in one way."""
CANCELLED = 0.01
"""Power of the mean over the power of the loudest channel below which channels cancel: -20 dB, where those of
unrelated noise in two channels have -3 dB, in eight -9 dB."""
FAR_BEYOND = 16.0
"""Times full scale from which samples are far beyond it: float files have peaks above 1, but not by 24 dB."""
LARGEST = 5e5
"""Times full scale from which samples are refused; front-ends, after resampling, refuse them from 1e6 on."""


class Levels:
    """What is observed while a recording is mixed.

    Attributes:
        peak: Largest magnitude of a sample.
        cancelled_s: Seconds in which the louder channel takes the place of the mean.
    """

    def __init__(self) -> None:
        self.peak = 0.0
        self.cancelled_s = 0.0

    def notes(self) -> list[str]:
        """What a reader should know, one line each."""
        found = []
        if self.peak == 0:
            found.append("digital silence: every sample is 0")
        if self.peak > FAR_BEYOND:
            found.append(
                f"samples reach {self.peak:.0f} times full scale, the model expects [-1, 1]: "
                "divide them by the full scale of the program that wrote them (32768 for 16 bits)"
            )
        if self.cancelled_s:
            found.append(
                f"the channels cancel each other in {self.cancelled_s:.1f} s (opposite polarity?): "
                "the louder channel is used there"
            )
        return found


def mixed(
    blocks: Iterable[tuple[int, Floats]], sample_rate: int, levels: Levels, label: str
) -> Iterator[Floats]:
    """Mixes blocks to mono at one rate.

    Args:
        blocks: Rate in Hz and samples; rates and channels may change from one block to the next.
        sample_rate: Of the result, in Hz.
        levels: Completed as samples pass.
        label: Name of the recording, for errors.

    Yields:
        float32, shape (time,), not empty.

    Raises:
        AudioError: If a sample is NaN, infinite or beyond ``LARGEST``.
    """
    mixer: Mixer | None = None
    position_s = 0.0
    for rate, block in blocks:
        levels.peak = max(levels.peak, check_finite(block, position_s * rate, rate, label))
        position_s += block.shape[1] / rate
        if mixer is None or mixer.kind != (rate, len(block)):
            if mixer:
                yield from mixer.finish()
            mixer = Mixer(rate, len(block), sample_rate, levels)
        yield from mixer.push(block)
    if mixer:
        yield from mixer.finish()


def mix(block: Floats) -> tuple[Floats, bool]:
    """Mixes one segment: the mean over the channels, or the louder one where they cancel.

    Returns:
        float32, shape (time,), and whether the channels cancel.
    """
    mean = block[0].copy()
    for channel in block[1:]:  # one by one: thirty times as fast as NumPy's mean over a short axis
        mean += channel
    mean *= np.float32(1 / len(block))
    if len(block) == 1:
        return mean, False
    powers = [float(np.dot(channel, channel)) for channel in block]
    if float(np.dot(mean, mean)) >= CANCELLED * max(powers):
        return mean, False
    return np.array(block[int(np.argmax(powers))]), True


def mix_all(block: Floats, rate: int, levels: Levels) -> Floats:
    """Mixes segment by segment; ``block`` begins where a segment does."""
    first_channel: Floats = block[0]
    if len(block) == 1:
        return first_channel
    parts: list[Floats] = []
    for first in range(0, max(1, block.shape[1]), SEGMENT):
        part, cancels = mix(block[:, first : first + SEGMENT])
        levels.cancelled_s += cancels * len(part) / rate
        parts.append(part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def check_finite(samples: Floats, first_sample: float, sample_rate: float, label: str) -> float:
    """Checks samples for NaN, infinity, and values that no recording has.

    Args:
        samples: float32, shape (time,) or (channel, time).
        first_sample: Position of the first one in the recording, in samples.
        sample_rate: In Hz.
        label: Name of the recording, for the error.

    Returns:
        The largest magnitude, times full scale; 0 if there are no samples.

    Raises:
        AudioError: If a sample is NaN, infinite, or beyond ``LARGEST``; names the first one.
    """
    if not samples.size:
        return 0.0
    peak = max(float(samples.max()), -float(samples.min()))
    if peak < LARGEST:  # False for NaN
        return peak
    channels = np.atleast_2d(samples)
    is_bad = ~(np.abs(channels) < LARGEST)
    at = int(is_bad.any(0).argmax())
    value = float(channels[int(is_bad[:, at].argmax()), at])
    what = "infinite" if np.isinf(value) else f"{value:.3g} times full scale: scale the samples to [-1, 1]"
    what = "not a number (NaN)" if np.isnan(value) else what
    index = round(first_sample) + at
    raise AudioError(f"{label}: sample {index}, at {index / sample_rate:.3f} s, is {what}")


class Mixer:
    """Mixes blocks of one rate and one number of channels to mono at another rate.

    Mono passes at once; several channels wait until a segment is full, so that the result does not depend on
    the sizes of the blocks.

    Args:
        rate: Of the blocks, in Hz.
        channels: Of the blocks.
        sample_rate: Of the result, in Hz.
        levels: Completed as samples pass.
    """

    def __init__(self, rate: int, channels: int, sample_rate: int, levels: Levels) -> None:
        self.kind = rate, channels
        self._levels = levels
        self._held: list[Floats] = []
        self._size = 0
        self._resampler = Resampler(rate, sample_rate)

    def push(self, block: Floats) -> Iterator[Floats]:
        """Adds a block, float32 (channel, time); yields what is ready, float32 (time,), not empty."""
        if self.kind[1] == 1:
            yield from self._resampled(block[0])
            return
        self._held.append(block)
        self._size += block.shape[1]
        if self._size >= SEGMENT:
            joined = self._held[0] if len(self._held) == 1 else np.concatenate(self._held, 1)
            ready = self._size // SEGMENT * SEGMENT
            self._size -= ready
            self._held = [joined[:, ready:]] if self._size else []
            yield from self._resampled(mix_all(joined[:, :ready], self.kind[0], self._levels))

    def finish(self) -> Iterator[Floats]:
        """Yields the rest."""
        rest = np.zeros(0, np.float32)
        if self._size:
            rest = mix_all(np.concatenate(self._held, 1), self.kind[0], self._levels)
        yield from self._resampled(rest, last=True)

    def _resampled(self, mono: Floats, last: bool = False) -> Iterator[Floats]:
        if (ready := self._resampler.process(mono, last)).size:
            yield ready
