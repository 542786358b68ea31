"""Waveforms from one sample rate to another, whole or block by block.

Conventions: mono float32 ``(time,)`` in and out; rates in Hz; soxr's "HQ" quality throughout. Blocks joined
again equal the whole waveform resampled at once, bit by bit.
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
"""Samples that soxr is given at once: few enough to stay in the processor's cache. A clip of 10 s in one go
takes a quarter to three quarters longer."""
_REACH = 256
"""Samples (of the lower rate) within which soxr's filter reaches: further ones change nothing above 3e-7."""


class Resampler:
    """Resamples a stream of blocks, keeping the filter's state between them.

    Args:
        sample_rate: Rate of the blocks in Hz, above 0.
        target_rate: Rate wanted in Hz, above 0.

    Raises:
        AudioError: If a rate is not a positive number, or the two lie too far apart for soxr.
    """

    def __init__(self, sample_rate: float, target_rate: float) -> None:
        for rate in (sample_rate, target_rate):
            if not 0 < rate < float("inf"):
                raise AudioError(f"a sample rate must be a positive number of Hz, not {rate}")
        self._same = sample_rate == target_rate
        self._first: NDArray[np.float32] = _NOTHING
        self._given = 0
        try:
            self._stream = soxr.ResampleStream(sample_rate, target_rate, 1, dtype="float32", quality="HQ")
        except (RuntimeError, ValueError) as error:
            raise AudioError(f"cannot resample from {sample_rate} Hz to {target_rate} Hz: {error}") from error

    def process(self, block: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """Resamples the next block.

        A stream too short for even one sample at the target rate keeps its first sample.

        Args:
            block: float32, shape (time,); may be empty.
            last: Whether the stream ends with this block; nothing may follow it.

        Returns:
            float32, shape (time at the target rate,): what is ready by now, possibly nothing. The block
            itself where the two rates are equal.
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
        target_rate: Rate wanted in Hz, above 0.

    Returns:
        float32, shape (round(time * target_rate / sample_rate),), at least one sample for one sample; the
        very same array where the rates are equal.

    Raises:
        AudioError: If a rate is not a positive number, or the two lie too far apart for soxr.
    """
    return Resampler(sample_rate, target_rate).process(waveform, last=True)


def resample_blocks(
    blocks: Iterable[NDArray[np.float32]], sample_rate: float, target_rate: float
) -> Iterator[NDArray[np.float32]]:
    """Resamples an iterator of blocks; joined, the result equals ``resample`` of the joined blocks.

    Args:
        blocks: float32, each of shape (time,).
        sample_rate: Their rate in Hz, above 0.
        target_rate: Rate wanted in Hz, above 0.

    Yields:
        float32, each of shape (time at the target rate,), none of them empty.

    Raises:
        AudioError: If a rate is not a positive number, or the two lie too far apart for soxr.
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
    """A piece of a waveform, resampled, for which only the samples around it are read.

    Args:
        read: From a first sample and a number of samples to them, float32 (time,).
        samples: Of the whole waveform, above 0.
        sample_rate: Its rate in Hz, above 0.
        target_rate: Rate wanted in Hz, above 0.
        length: Samples wanted at that rate, above 0.
        start: From the samples that are too many, above 0, to the first one that is wanted.

    Returns:
        float32, shape (time,): what ``resample`` of the whole would have there, within 3e-7 (exactly where
        the rates are equal); all of it where it is not longer than ``length``. None where ``read`` gave less
        than it was asked for.

    Raises:
        AudioError: As :func:`resample`.
    """
    excess = max(1, math.floor(samples * target_rate / sample_rate + 0.5)) - length
    if excess <= 0:
        whole = read(0, samples)
        return resample(whole, sample_rate, target_rate) if len(whole) == samples else None
    begin = start(excess)
    shared = math.gcd(sample_rate, target_rate)
    step, target_step = sample_rate // shared, target_rate // shared  # samples until the two grids meet
    reach = 0 if step == target_step else math.ceil(_REACH * max(1, sample_rate / target_rate))
    meeting = max(0, begin // target_step - math.ceil(reach / step))
    first = meeting * step
    last = min(samples, math.ceil((begin + length) * step / target_step) + reach)
    around = read(first, last - first)
    if len(around) < last - first:
        return None
    return resample(around, sample_rate, target_rate)[begin - meeting * target_step :][:length]
