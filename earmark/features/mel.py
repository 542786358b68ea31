"""Analysis windows, mel scales and mel filter banks.

Conventions: all values are float64; both implementations of the transform round them to float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from earmark.features.front_end import FrontEnd

Float64s = npt.NDArray[np.float64]
_Map = Callable[[Float64s], Float64s]


def _log_mel_scale(factor: float) -> tuple[_Map, _Map]:
    return (
        lambda hz: factor * np.log1p(hz / 700.0),
        lambda mel: 700.0 * np.expm1(mel / factor),
    )


_SLANEY_HZ_PER_MEL = 200.0 / 3  # below 1 kHz, which is mel 15
_SLANEY_STEP = math.log(6.4) / 27  # above: 27 mels from 1 to 6.4 kHz


def _slaney_mel(hz: Float64s) -> Float64s:
    above = 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) / _SLANEY_STEP
    return np.where(hz < 1000.0, hz / _SLANEY_HZ_PER_MEL, above)


def _slaney_hz(mel: Float64s) -> Float64s:
    above = 1000.0 * np.exp(_SLANEY_STEP * (np.maximum(mel, 15.0) - 15.0))
    return np.where(mel < 15.0, mel * _SLANEY_HZ_PER_MEL, above)


_SCALES: dict[str, tuple[_Map, _Map]] = {
    "kaldi": _log_mel_scale(1127.0),
    "htk": _log_mel_scale(2595.0 / math.log(10.0)),
    "slaney": (_slaney_mel, _slaney_hz),
    "linear": (np.positive, np.positive),
}


def analysis_window(front_end: FrontEnd) -> Float64s:
    """Computes the Hann window of a front-end.

    Source: golden tests/golden/front_end.npz, keys window/*.

    Returns:
        float64, shape (win_length,).
    """
    period = front_end.win_length - front_end.window_symmetric
    angles: Float64s = 2 * np.pi / period * np.arange(front_end.win_length, dtype=np.float64)
    if not front_end.window_symmetric:
        # Rounded as PyTorch does: the reference networks were trained with it, and it shows in quiet bands.
        steps = np.arange(front_end.win_length, dtype=np.float32)
        angles = (np.float32(2 * np.pi / period) * steps).astype(np.float64)
    hann: Float64s = 0.5 - 0.5 * np.cos(angles)
    return hann


def mel_filter_bank(front_end: FrontEnd) -> Float64s:
    """Computes the triangular filters from spectrum to mel bands.

    Source: Kaldi's mel-computations.cc; HTK's and Slaney's mel scales as in librosa.filters.mel; the linear
    scale as in torchaudio's linear_fbanks; golden tests/golden/front_end.npz, keys bank/*.

    Returns:
        float64, not negative, shape (n_mels, n_fft // 2 + 1). Bands narrower than a bin may be empty.
    """
    to_mel, to_hz = _SCALES[front_end.mel_scale]
    bins_hz = np.arange(front_end.n_fft // 2 + 1, dtype=np.float64) * (
        front_end.sample_rate / front_end.n_fft
    )
    low, high = to_mel(np.array([front_end.f_min, front_end.f_max])).tolist()
    edges_mel: Float64s = np.linspace(low, high, front_end.n_mels + 2, dtype=np.float64)
    edges_hz = to_hz(edges_mel)
    if front_end.mel_scale == "kaldi":
        bank = _triangles(to_mel(bins_hz), edges_mel)
    else:
        bank = _triangles(bins_hz, edges_hz)
    if front_end.mel_norm == "slaney":
        bank *= (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]
    return bank


def _triangles(positions: Float64s, edges: Float64s) -> Float64s:
    """Evaluates triangles between ``edges`` (band + 2,) at ``positions`` (bin,): (band, bin)."""
    left, centre, right = (edges[start : len(edges) - 2 + start, None] for start in range(3))
    rising = (positions - left) / (centre - left)
    falling = (right - positions) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling))
