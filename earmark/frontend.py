"""Every constant of waveform -> log-mel, the mel filter banks, and the transform in NumPy.

Conventions: a waveform is float32 in [-1, 1], shape (time,) or (batch, time), at ``FrontEnd.sample_rate``; a log-mel
is float32, shape (mel, frame) or (batch, mel, frame). Frequencies are in Hz, lengths in samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from earmark.errors import AudioError, ModelError

_Array = npt.NDArray[np.float64]
_Map = Callable[[_Array], _Array]


@dataclass(frozen=True)
class FrontEnd:
    """The recipe of a log-mel spectrogram, complete enough to be computed anywhere.

    The defaults are EfficientAT's front-end (Schmid et al., arXiv:2211.04772).

    Args:
        sample_rate: Of the waveform, in Hz.
        n_fft: Length of the Fourier transform.
        win_length: Length of the window, at most ``n_fft``.
        hop_length: From one frame to the next.
        n_mels: Number of mel bands.
        f_min: Lower edge of the first band, in Hz.
        f_max: Upper edge of the last band, in Hz.
        preemphasis: a in ``y[n] = x[n + 1] - a * x[n]``, which is one sample shorter than x; 0 leaves x as it is.
        window: Only "hann".
        window_symmetric: True: the window ends on zero; False: it is one period of its cosine.
        window_placement: Where the window lies in a transform of ``n_fft`` samples: "centre", or "start" (audax).
        padding: "reflect" pads ``n_fft // 2`` samples at both ends, so that frame t is centred on ``t * hop_length``
            (with ``window_placement="centre"``).
        power: Exponent of the magnitude: 2 is the power spectrum.
        mel_scale: "kaldi" (1127 ln(1 + f / 700), triangles linear in mel, nothing at Nyquist), "htk"
            (2595 log10(1 + f / 700)) or "slaney" (linear below 1 kHz), both with triangles linear in Hz.
        mel_norm: None: triangles of height 1; "slaney": of equal area.
        log: "ln" or "db" (10 log10).
        floor_mode: "add": log(x + floor); "clip": log(max(x, floor)).
        floor: What keeps the logarithm finite; 0 leaves silence at minus infinity.
        ceiling: Upper limit of the mel energies before the logarithm, or None.
        shift: Added after the logarithm.
        scale: What the sum is divided by.
    """

    sample_rate: int = 32000
    n_fft: int = 1024
    win_length: int = 800
    hop_length: int = 320
    n_mels: int = 128
    f_min: float = 0.0
    f_max: float = 15000.0
    preemphasis: float = 0.97
    window: Literal["hann"] = "hann"
    window_symmetric: bool = True
    window_placement: Literal["centre", "start"] = "centre"
    padding: Literal["reflect"] = "reflect"
    power: float = 2.0
    mel_scale: Literal["kaldi", "htk", "slaney"] = "kaldi"
    mel_norm: Literal["slaney"] | None = None
    log: Literal["ln", "db"] = "ln"
    floor_mode: Literal["add", "clip"] = "add"
    floor: float = 1e-5
    ceiling: float | None = None
    shift: float = 4.5
    scale: float = 5.0

    def __post_init__(self) -> None:
        for name, (low, high) in _INTEGERS.items():
            self._check_integer(name, low, high)
        for name, (low, high) in _NUMBERS.items():
            self._check_number(name, low, high)
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            self._require(isinstance(value, str | None) and value in allowed, name, f"one of {allowed}")
        self._require(isinstance(self.window_symmetric, bool), "window_symmetric", "true or false")
        self._require(self.n_fft % 2 == 0, "n_fft", "even")
        self._require(self.win_length <= self.n_fft, "win_length", f"at most n_fft, {self.n_fft}")
        self._require(self.f_min < self.f_max, "f_min", f"below f_max, {self.f_max}")
        nyquist = self.sample_rate / 2
        self._require(self.f_max <= nyquist, "f_max", f"at most half the sample rate, {nyquist}")
        if self.ceiling is not None:
            self._check_number("ceiling", 0.0, _LARGEST)
            self._require(self.ceiling > self.floor, "ceiling", f"above floor, {self.floor}")

    def _require(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise ModelError(f"front-end: {name} must be {wanted}, not {getattr(self, name)!r}")

    def _check_integer(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        self._require(is_integer and low <= value <= high, name, f"a whole number from {low} to {high}")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        self._require(is_number and low <= value <= high, name, f"a number from {low} to {high}")
        object.__setattr__(self, name, float(value))  # so that 15000 and 15000.0 are written as the same JSON

    @property
    def min_samples(self) -> int:
        """The shortest waveform that can be padded by reflection, in samples."""
        return self.n_fft // 2 + 1 + bool(self.preemphasis)

    @property
    def frame_length(self) -> int:
        """Samples from the start of a frame to its end, as frames are counted: see :meth:`num_frames`."""
        return self.n_fft if self.window_placement == "centre" else self.win_length

    @property
    def window_offset(self) -> int:
        """Where the window starts within a frame, in samples."""
        return (self.frame_length - self.win_length) // 2

    @property
    def silence(self) -> float:
        """What digital silence becomes: the lowest value of a log-mel, minus infinity without a floor."""
        if self.floor == 0.0:
            return -math.inf
        energy = self.floor if self.ceiling is None else min(self.floor, self.ceiling)
        return (
            (10.0 * math.log10(energy) if self.log == "db" else math.log(energy)) + self.shift
        ) / self.scale

    def num_frames(self, num_samples: int) -> int:
        """How many frames a waveform of ``num_samples`` samples has.

        Raises:
            AudioError: If there are fewer than :attr:`min_samples` samples.
        """
        if num_samples < self.min_samples:
            raise AudioError(
                f"the waveform has {num_samples} samples, and this front-end needs {self.min_samples}: pad it"
            )
        padded = num_samples - bool(self.preemphasis) + 2 * (self.n_fft // 2)
        return (padded - self.frame_length) // self.hop_length + 1

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FrontEnd:
        """The front-end that :meth:`to_dict` wrote.

        Raises:
            ModelError: If a field is unknown, missing or out of range.
        """
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(values) - names, key=str), sorted(names - set(values))
        if unknown or missing:
            raise ModelError(
                f"front-end: unknown fields {unknown}, missing fields {missing}; write all of {sorted(names)}"
            )
        return cls(**values)


_LARGEST = float(np.finfo(np.float32).max)
# Limits wide enough for any audio, narrow enough that a damaged file cannot ask for gigabytes.
_INTEGERS = {
    "sample_rate": (1000, 768_000),
    "n_fft": (4, 32_768),
    "win_length": (4, 32_768),
    "hop_length": (1, 32_768),
    "n_mels": (1, 2048),
}
_NUMBERS = {
    "f_min": (0.0, _LARGEST),
    "f_max": (0.0, _LARGEST),
    "preemphasis": (0.0, 1.0),
    "power": (0.1, 4.0),
    "floor": (0.0, _LARGEST),
    "shift": (-_LARGEST, _LARGEST),
    "scale": (1e-6, _LARGEST),
}
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "window": ("hann",),
    "window_placement": ("centre", "start"),
    "padding": ("reflect",),
    "mel_scale": ("kaldi", "htk", "slaney"),
    "mel_norm": (None, "slaney"),
    "log": ("ln", "db"),
    "floor_mode": ("add", "clip"),
}

EFFICIENTAT = FrontEnd()
"""The front-end of EfficientAT's networks at 32 kHz (Schmid et al., arXiv:2211.04772)."""

SP4ASC = FrontEnd(
    sample_rate=44100,
    n_fft=2048,
    win_length=2048,
    hop_length=1024,
    n_mels=256,
    f_max=22050.0,
    preemphasis=0.0,
    window_symmetric=False,
    mel_scale="slaney",
    mel_norm="slaney",
    log="db",
    floor_mode="clip",
    floor=1e-10,
    shift=0.0,
    scale=1.0,
)
"""The front-end of SP4ASC's networks at 44.1 kHz (DCASE 2021, task 1a)."""

FSDKAGGLE = FrontEnd(
    sample_rate=44100,
    n_fft=1024,
    win_length=1024,
    hop_length=441,
    n_mels=64,
    f_max=22050.0,
    preemphasis=0.0,
    window_symmetric=False,
    mel_scale="htk",
    floor_mode="clip",
    floor=0.0,
    shift=0.0,
    scale=1.0,
)
"""The front-end of sound-clf-pytorch's FSDKaggle2018 networks at 44.1 kHz; silence is minus infinity."""

AUDAX = FrontEnd(
    sample_rate=16000,
    n_fft=1024,
    win_length=400,
    hop_length=160,
    n_mels=64,
    f_min=60.0,
    f_max=7800.0,
    preemphasis=0.0,
    window_placement="start",
    mel_scale="htk",
    floor_mode="clip",
    floor=1e-8,
    ceiling=1e8,
    shift=0.0,
    scale=1.0,
)
"""The front-end of audax's networks at 16 kHz."""


def _log_mel_scale(factor: float) -> tuple[_Map, _Map]:
    return (
        lambda hz: factor * np.log1p(hz / 700.0),
        lambda mel: 700.0 * np.expm1(mel / factor),
    )


_SLANEY_HZ_PER_MEL = 200.0 / 3  # below 1 kHz, which is mel 15
_SLANEY_STEP = math.log(6.4) / 27  # above: 27 mels from 1 to 6.4 kHz


def _slaney_mel(hz: _Array) -> _Array:
    above = 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) / _SLANEY_STEP
    return np.where(hz < 1000.0, hz / _SLANEY_HZ_PER_MEL, above)


def _slaney_hz(mel: _Array) -> _Array:
    above = 1000.0 * np.exp(_SLANEY_STEP * (np.maximum(mel, 15.0) - 15.0))
    return np.where(mel < 15.0, mel * _SLANEY_HZ_PER_MEL, above)


_SCALES: dict[str, tuple[_Map, _Map]] = {
    "kaldi": _log_mel_scale(1127.0),
    "htk": _log_mel_scale(2595.0 / math.log(10.0)),
    "slaney": (_slaney_mel, _slaney_hz),
}


def window(front_end: FrontEnd) -> npt.NDArray[np.float64]:
    """The Hann window of a front-end: float64, shape (win_length,)."""
    period = front_end.win_length - front_end.window_symmetric
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(front_end.win_length) / period)


def mel_bank(front_end: FrontEnd) -> npt.NDArray[np.float64]:
    """The triangles that turn a spectrum into mel bands.

    Source: Kaldi's mel-computations, HTK's and Slaney's mel scales; held by the golden banks of the tests.

    Returns:
        float64, at least zero, shape (n_mels, n_fft // 2 + 1). Bands narrower than a bin may be empty.
    """
    to_mel, to_hz = _SCALES[front_end.mel_scale]
    bins_hz = np.arange(front_end.n_fft // 2 + 1) * (front_end.sample_rate / front_end.n_fft)
    edges = np.linspace(*to_mel(np.array([front_end.f_min, front_end.f_max])), front_end.n_mels + 2)
    if front_end.mel_scale == "kaldi":
        bank = _triangles(to_mel(bins_hz), edges)
        bank[:, -1] = 0.0  # Kaldi leaves Nyquist out
    else:
        edges = to_hz(edges)
        bank = _triangles(bins_hz, edges)
    if front_end.mel_norm == "slaney":
        edges_hz = to_hz(edges) if front_end.mel_scale == "kaldi" else edges
        bank *= (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]
    return bank


def _triangles(positions: _Array, edges: _Array) -> _Array:
    """Triangles between ``edges`` (band + 2,), looked up at ``positions`` (bin,): (band, bin)."""
    left, centre, right = (edges[start : len(edges) - 2 + start, None] for start in range(3))
    rising = (positions - left) / (centre - left)
    falling = (right - positions) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling))
