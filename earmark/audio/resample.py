"""Converts the sample rate of waveforms, at once or block by block.

Conventions: mono float32 ``(time,)``; rates in Hz; soxr's "HQ" quality throughout. Resampled blocks joined
together equal the waveform resampled at once, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import soxr
from numpy.typing import NDArray

from earmark.errors import AudioError

_NOTHING = np.zeros(0, np.float32)
_AT_ONCE = 1 << 14
"""Samples passed to soxr at once, few enough for the processor's cache: a clip of 10 s in one call takes 25
to 75 % longer."""
_REACH = 256
"""Reach of soxr's filter, in samples at the lower rate: those beyond contribute less than 3e-7."""


class Resampler:
    """Resamples a stream of blocks, keeping the filter's state between them.

    Args:
        sample_rate: Rate of the blocks in Hz, above 0.
        target_rate: Rate of the result in Hz, above 0.

    Raises:
        AudioError: If a rate is not a positive number, or their ratio is too large for soxr.
    """

    def __init__(self, sample_rate: float, target_rate: float) -> None:
        for rate in (sample_rate, target_rate):
            if not 0 < rate < float("inf"):
                raise AudioError(f"sample rate must be a positive number of Hz, got {rate}")
        self._same = sample_rate == target_rate
        self._first: NDArray[np.float32] = _NOTHING
        self._given = 0
        try:
            self._stream = soxr.ResampleStream(sample_rate, target_rate, 1, dtype="float32", quality="HQ")
        except (RuntimeError, ValueError) as error:
            raise AudioError(f"cannot resample from {sample_rate} Hz to {target_rate} Hz: {error}") from error

    def process(self, block: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """Resamples the next block.

        A stream too short for one sample at the target rate returns its first sample.

        Args:
            block: float32, shape (time,); may be empty.
            last: Whether this is the last block.

        Returns:
            float32, shape (time at the target rate,): the samples that are ready, possibly none. The block
            itself if the rates are equal.
        """
        if self._same:
            return block
        if not self._first.size:
            self._first = block[:1].copy()
        block = np.ascontiguousarray(block, np.float32)
        parts = [
            self._stream.resample_chunk(
                block[first : first + _AT_ONCE], last=last and first + _AT_ONCE >= block.size
            )
            for first in range(0, max(1, block.size), _AT_ONCE)
        ]
        ready: NDArray[np.float32] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._given += ready.size
        return self._first if last and not self._given else ready


def resample(waveform: NDArray[np.float32], sample_rate: float, target_rate: float) -> NDArray[np.float32]:
    """Resamples a whole waveform.

    Args:
        waveform: float32, shape (time,).
        sample_rate: Its rate in Hz, above 0.
        target_rate: Rate of the result in Hz, above 0.

    Returns:
        float32, shape (round(time * target_rate / sample_rate),), at least one sample unless the
        input is empty; the same array if the rates are equal.

    Raises:
        AudioError: If a rate is not a positive number, or their ratio is too large for soxr.
    """
    return Resampler(sample_rate, target_rate).process(waveform, last=True)


def resample_blocks(
    blocks: Iterable[NDArray[np.float32]], sample_rate: float, target_rate: float
) -> Iterator[NDArray[np.float32]]:
    """Resamples an iterable of blocks; joined, the result equals :func:`resample` of the joined blocks.

    Args:
        blocks: float32, each of shape (time,).
        sample_rate: Their rate in Hz, above 0.
        target_rate: Rate of the result in Hz, above 0.

    Yields:
        float32, each of shape (time at the target rate,), not empty.

    Raises:
        AudioError: If a rate is not a positive number, or their ratio is too large for soxr.
    """
    resampler = Resampler(sample_rate, target_rate)
    for block in blocks:
        if (ready := resampler.process(block)).size:
            yield ready
    if (rest := resampler.process(_NOTHING, last=True)).size:
        yield rest


def cut_piece(
    read: Callable[[int, int], NDArray[np.float32]],
    samples: int,
    sample_rate: int,
    target_rate: int,
    length: int,
    start: Callable[[int], int],
) -> NDArray[np.float32] | None:
    """Resamples a section of a waveform, reading only the samples that contribute to it.

    Args:
        read: Maps a first sample and a number of samples to these samples, float32 (time,).
        samples: Length of the whole waveform, above 0.
        sample_rate: Its rate in Hz, above 0.
        target_rate: Rate of the result in Hz, above 0.
        length: Number of samples at that rate, above 0.
        start: Maps the number of excess samples, above 0, to the first sample of the section.

    Returns:
        float32, shape (time,): the section of :func:`resample` of the whole, within 3e-7 (exactly if the
        rates are equal); all of it if it is not longer than ``length``. None if ``read`` returned fewer
        samples than requested.

    Raises:
        AudioError: As :func:`resample`.
    """
    excess = max(1, math.floor(samples * target_rate / sample_rate + 0.5)) - length
    if excess <= 0:
        whole = read(0, samples)
        return resample(whole, sample_rate, target_rate) if len(whole) == samples else None
    begin = start(excess)
    shared = math.gcd(sample_rate, target_rate)
    step, target_step = sample_rate // shared, target_rate // shared  # samples until the two grids coincide
    reach = 0 if step == target_step else math.ceil(_REACH * max(1, sample_rate / target_rate))
    meeting = max(0, begin // target_step - math.ceil(reach / step))
    first = meeting * step
    last = min(samples, math.ceil((begin + length) * step / target_step) + reach)
    around = read(first, last - first)
    if len(around) < last - first:
        return None
    return resample(around, sample_rate, target_rate)[begin - meeting * target_step :][:length]
