"""Variations of few clips: shifts, gain, speed, a part, noise.

Conventions: waveforms are mono float32 (time,). With 4 clips a class, five variations of each are worth up
to a percentage point (docs/fit.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earmark.audio import resample

Floats = NDArray[np.float32]
VARIATIONS = 5
SPEEDS = (0.85, 0.9, 1.1, 1.18)
QUIETEST_DB = -20.0
NOISE_DB = (-20.0, -5.0)


def vary(waveform: Floats, rate: int, variation: int, rng: np.random.Generator) -> Floats:
    """Returns a variation of a sound.

    Args:
        waveform: float32, shape (time,).
        rate: Sample rate in Hz.
        variation: From 1 to ``VARIATIONS``: rolled, quieter, faster or slower, its loudest half, noisy.
        rng: Random numbers.
    """
    if variation == 1:
        return np.roll(waveform, int(rng.integers(len(waveform))))
    if variation == 2:
        return np.asarray(waveform * np.float32(10 ** (rng.uniform(QUIETEST_DB, 0) / 20)), np.float32)
    if variation == 3:
        return resample(waveform, rate, round(rate * float(rng.choice(SPEEDS))))
    if variation == 4:
        return _loudest_half(waveform)
    level = np.sqrt(np.mean(waveform**2)) * 10 ** (rng.uniform(*NOISE_DB) / 20)
    noise = rng.standard_normal(len(waveform)).astype(np.float32)
    return np.clip(waveform + noise * np.float32(level), -1, 1)


def _loudest_half(waveform: Floats) -> Floats:
    length = max(1, len(waveform) // 2)
    energy = np.cumsum(np.concatenate([[0.0], waveform.astype(np.float64) ** 2]))
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return waveform[start : start + length]
