"""Detects whether a part of a recording occurs in a set of clips, also cut, quieter, resampled or re-encoded.

The segments of the recording with the largest spectral changes are slid along every clip, and compared by the
normalised correlation of the change of the log-mel spectrogram from frame to frame, less the change of the
level: many sounds share the shape of a bang or a hum, but not its changes.

Conventions: samples are float64 of shape (time,) at studio.RATE; spectrograms are (frame, band); no change of
speed or pitch is recognised.
"""

from __future__ import annotations

import numpy as np
from studio import RATE

HOP, WINDOW, BANDS = 800, 1600, 16  # 25 and 50 ms
BAND_HZ = (100.0, 5000.0)  # what survives resampling to 11 kHz
FLOOR_DB = 35.0  # below the loudest band of the moment: quieter is silence
SHIFTS = 4  # places between two frames at which the recording's are taken, as clips need not start on one
MOMENTS, LENGTHS = 4, (40, 20, 10)  # so many of 1 s each, or of what a short sound has
SAME = {40: 0.60, 20: 0.70, 10: 0.85}  # correlation, by length in frames, from which on two are one
SHORTEST = WINDOW + (LENGTHS[-1] - 1) * HOP  # samples, below which nothing can be detected


def spectrogram(samples: np.ndarray) -> np.ndarray:
    """Logarithmic mel spectrogram in dB: (frame, band)."""
    padded = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames.astype(np.float32), axis=1)) ** 2
    return 10 * np.log10(power @ _mel_weights() + 1e-10)


def _mel_weights() -> np.ndarray:
    mel = [2595 * np.log10(1 + hz / 700) for hz in BAND_HZ]
    edges = 700 * (10 ** (np.linspace(*mel, BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rise = (hz[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    fall = (edges[2:] - hz[:, None]) / np.diff(edges)[1:]
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)


def _patch(frames: np.ndarray) -> np.ndarray:
    """How frames change, less the level and the mean over time, at unit length: (..., frame, band)."""
    floored = np.maximum(frames, frames.max(axis=(-2, -1), keepdims=True) - FLOOR_DB)
    change = np.diff(floored - floored.mean(axis=-1, keepdims=True), axis=-2)
    change = change - change.mean(axis=-2, keepdims=True)
    return change / np.maximum(np.linalg.norm(change, axis=(-2, -1), keepdims=True), 1e-3)


class Clips:
    """Clips to be recognised."""

    def __init__(self, clips: dict[str, np.ndarray]) -> None:
        """Takes samples by name."""
        self.spectrograms = {name: spectrogram(samples) for name, samples in clips.items()}
        self.windows: dict[int, tuple[list[str], np.ndarray]] = {}

    def closest(self, samples: np.ndarray) -> tuple[float, float, str]:
        """How close the closest clip is: (correlation less what counts as the same, correlation, name)."""
        if len(samples) < SHORTEST:
            raise ValueError(f"{len(samples)} samples are too few to be recognised: give {SHORTEST} or more")
        shifted = [spectrogram(samples[shift:]) for shift in range(0, HOP, HOP // SHIFTS)]
        length = next(n for n in LENGTHS if len(shifted[0]) >= n)
        starts = _liveliest(shifted[0], length)
        cut = [frames[at : at + length] for frames in shifted for at in starts if at + length <= len(frames)]
        moments = _patch(np.stack(cut))
        names, windows = self._windows(length)
        likeness = windows @ moments.reshape(len(moments), -1).T.astype(np.float32)
        best = int(likeness.max(axis=1).argmax())
        correlation = float(likeness[best].max())
        return (correlation - SAME[length], correlation, names[best])

    def _windows(self, length: int) -> tuple[list[str], np.ndarray]:
        if length not in self.windows:
            names, patches = list[str](), []
            for name, frames in self.spectrograms.items():
                views = np.lib.stride_tricks.sliding_window_view(frames, length, axis=0).swapaxes(1, 2)
                views = views[views.max(axis=(1, 2)) > frames.max() - FLOOR_DB]
                patches.append(_patch(views).reshape(len(views), -1).astype(np.float32))
                names += [name] * len(views)
            self.windows[length] = (names, np.concatenate(patches))
        return self.windows[length]


def _liveliest(frames: np.ndarray, length: int) -> list[int]:
    """Where the moments with the largest changes start, none overlapping another by more than half."""
    moving = np.abs(np.diff(frames, axis=0, prepend=frames[:1])).sum(axis=1)
    loud = 10 ** (frames.max(axis=1) / 10)
    total = np.convolve(loud / loud.max() + moving / max(moving.max(), 1e-9), np.ones(length), "valid")
    starts = list[int]()
    while len(starts) < MOMENTS and np.isfinite(total).any() and total.max() > -1:
        start = int(total.argmax())
        starts.append(start)
        total[max(0, start - length // 2) : start + length // 2 + 1] = -2
    return starts
