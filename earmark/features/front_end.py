"""Every constant of waveform -> log-mel, the mel filter banks, and the transform in NumPy.

Conventions: a waveform is float32 in [-1, 1], shape (time,) or (batch, time), at ``FrontEnd.sample_rate``; a
log-mel is float32, shape (mel, frame) or (batch, mel, frame). Frequencies are in Hz, lengths in samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from earmark.errors import AudioError, ModelError

Float64s = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
_Map = Callable[[Float64s], Float64s]


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
        preemphasis: a in ``y[n] = x[n + 1] - a * x[n]``, which is a sample shorter than x; 0: y is x.
        window: Only "hann".
        window_symmetric: True: the window ends on zero; False: it is one period of its cosine.
        window_placement: Where the window lies in a transform of ``n_fft`` samples: "centre", or "start"
            (audax), which also fits more frames into a waveform: they end with their window.
        padding: "reflect" pads ``n_fft // 2`` samples at both ends, so that frame t is centred on
            ``t * hop_length`` (with ``window_placement="centre"``).
        power: Exponent of the magnitude: 2 is the power spectrum.
        mel_scale: "kaldi" (1127 ln(1 + f / 700), triangles linear in mel), "htk"
            (2595 log10(1 + f / 700)) or "slaney" (linear below 1 kHz), both with triangles linear in Hz.
        mel_norm: None: triangles of height 1; "slaney": of equal area.
        log: "ln" or "db" (10 log10).
        floor_mode: "add": log(x + floor); "clip": log(max(x, floor)).
        floor: What keeps the logarithm finite; 0 leaves silence at minus infinity.
        ceiling: Upper limit of the mel energies before the logarithm, or None.
        shift: Added after the logarithm.
        scale: What the sum is divided by.

    Raises:
        ModelError: If a field is out of range.
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

    graph_input: ClassVar[str] = "log_mel"
    """Name of what goes into the graph of a model file."""

    def __post_init__(self) -> None:
        for name, (fewest, most) in _INTEGERS.items():
            self._check_integer(name, fewest, most)
        for name, (low, high) in _NUMBERS.items():
            self._check_number(name, low, high)
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            self._require(isinstance(value, str | None) and value in allowed, name, f"one of {allowed}")
        self._require(isinstance(self.window_symmetric, bool), "window_symmetric", "true or false")
        self._require(self.n_fft % 2 == 0, "n_fft", "even")
        self._require(self.win_length <= self.n_fft, "win_length", f"at most n_fft, {self.n_fft}")
        self._require(self.f_min <= self.f_max - 1.0, "f_min", f"at least 1 Hz below f_max, {self.f_max}")
        nyquist = self.sample_rate / 2
        self._require(self.f_max <= nyquist, "f_max", f"at most half the sample rate, {nyquist}")
        self._require(self.floor == 0.0 or self.floor >= _SMALLEST, "floor", f"0, or at least {_SMALLEST:g}")
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
        self._require(is_number and low <= value <= high, name, f"a number from {low:g} to {high:g}")
        object.__setattr__(self, name, float(value))  # so that 15000 and 15000.0 are written as the same JSON

    @property
    def min_samples(self) -> int:
        """The shortest waveform that can be padded by reflection, in samples."""
        return self.n_fft // 2 + 1 + bool(self.preemphasis)

    @property
    def window_offset(self) -> int:
        """Where the window of the first frame starts in the padded waveform, in samples."""
        return (self.n_fft - self.win_length) // 2 if self.window_placement == "centre" else 0

    @property
    def neutral(self) -> float:
        """What a log-mel is overwritten by where it is masked: the value of an energy of 1."""
        return self.shift / self.scale

    @property
    def silence(self) -> float:
        """What digital silence becomes: the lowest value of a log-mel, minus infinity without a floor."""
        if self.floor == 0.0:
            return -math.inf
        logarithm = 10.0 * math.log10(self.floor) if self.log == "db" else math.log(self.floor)
        return (logarithm + self.shift) / self.scale

    def num_frames(self, num_samples: int) -> int:
        """How many frames a waveform of ``num_samples`` samples has.

        Raises:
            AudioError: If there are fewer than :attr:`min_samples` samples.
        """
        if num_samples < self.min_samples:
            raise AudioError(
                f"the waveform has {num_samples} samples, and this front-end needs {self.min_samples}: pad it"
            )
        padded = num_samples - bool(self.preemphasis) + self.n_fft
        frame_length = self.n_fft if self.window_placement == "centre" else self.win_length
        return (padded - frame_length) // self.hop_length + 1

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


_BLOCK = 64  # frames whose spectra stay in the processor's cache: measured faster than all at once
_GROUP = 16  # mel bands that are summed up by one matrix product
_LOUDEST = 1e6  # in a waveform that should stay within [-1, 1]: its power spectrum still fits float32
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)
# Limits wide enough for any audio, narrow enough that a damaged file cannot ask for gigabytes.
_INTEGERS = {
    "sample_rate": (1000, 768_000),
    "n_fft": (4, 16_384),
    "win_length": (4, 16_384),
    "hop_length": (1, 16_384),
    "n_mels": (1, 1024),
}
_NUMBERS = {
    "f_min": (0.0, _LARGEST),
    "f_max": (0.0, _LARGEST),
    "preemphasis": (0.0, 1.0),
    "power": (0.1, 2.0),
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
}


def window(front_end: FrontEnd) -> Float64s:
    """The Hann window of a front-end: float64, shape (win_length,)."""
    period = front_end.win_length - front_end.window_symmetric
    angles: Float64s = 2 * np.pi / period * np.arange(front_end.win_length, dtype=np.float64)
    if not front_end.window_symmetric:
        # Angles as PyTorch rounds them: in very quiet bands beside loud tones the networks saw that rounding.
        steps = np.arange(front_end.win_length, dtype=np.float32)
        angles = (np.float32(2 * np.pi / period) * steps).astype(np.float64)
    hann: Float64s = 0.5 - 0.5 * np.cos(angles)
    return hann


def mel_bank(front_end: FrontEnd) -> Float64s:
    """The triangles that turn a spectrum into mel bands.

    Source: Kaldi's mel-computations, HTK's and Slaney's mel scales; held by the golden banks of the tests.

    Returns:
        float64, at least zero, shape (n_mels, n_fft // 2 + 1). Bands narrower than a bin may be empty.
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
    """Triangles between ``edges`` (band + 2,), looked up at ``positions`` (bin,): (band, bin)."""
    left, centre, right = (edges[start : len(edges) - 2 + start, None] for start in range(3))
    rising = (positions - left) / (centre - left)
    falling = (right - positions) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling))


class LogMel:
    """Turns waveforms into the log-mel spectrograms that the networks see, in NumPy.

    Source: Schmid et al., arXiv:2211.04772, section 3, for the default front-end; held by the golden log-mels
    of the tests. Each frame is computed by itself, whatever other frames are asked for.

    Args:
        front_end: Every constant of the transform.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self.front_end = front_end

    def __call__(self, waveform: Float32s) -> Float32s:
        """The log-mel of one waveform or of a batch.

        Args:
            waveform: float32 in [-1, 1], shape (time,) or (batch, time), at ``front_end.sample_rate``.

        Returns:
            float32, shape (n_mels, frame) or (batch, n_mels, frame); see :meth:`FrontEnd.num_frames`.

        Raises:
            AudioError: If the waveform is of another type or shape, shorter than ``front_end.min_samples``,
                or holds NaN, infinities or samples far outside [-1, 1].
        """
        _validate(waveform, 1, 2)
        num_frames = self.front_end.num_frames(waveform.shape[-1])
        rows = np.atleast_2d(waveform)
        log_mel = np.empty((len(rows), self.front_end.n_mels, num_frames), np.float32)
        for index, row in enumerate(rows):
            self._fill(log_mel[index : index + 1], row, np.zeros((1, 1), np.int64), len(row))
        return log_mel if waveform.ndim == 2 else log_mel[0]

    def windows(self, waveform: Float32s, starts: Sequence[int], length: int) -> Float32s:
        """The log-mel of several windows of one waveform; what overlapping windows share is computed once.

        Frames are shared where the starts lie a multiple of ``hop_length`` apart. The few at the ends of a
        window reach into its own reflected padding and belong to it alone.

        Args:
            waveform: float32 in [-1, 1], shape (time,), at ``front_end.sample_rate``.
            starts: First sample of each window.
            length: Samples in each window.

        Returns:
            float32, shape (window, n_mels, frame): for each start ``s`` the same as
            ``self(waveform[s : s + length])``.

        Raises:
            AudioError: As for a call, or if a window does not lie within the waveform.
        """
        _validate(waveform, 1)
        num_frames = self.front_end.num_frames(length)
        first = np.asarray(starts, np.int64).reshape(-1, 1)
        log_mel = np.empty((len(first), self.front_end.n_mels, num_frames), np.float32)
        if len(first) == 0:
            return log_mel
        begin, end = int(first.min()), int(first.max()) + length
        if begin < 0 or end > len(waveform):
            raise AudioError(
                f"windows over samples {begin} to {end} do not lie within the {len(waveform)} samples of the "
                "waveform: choose other starts, or pad it"
            )
        self._fill(log_mel, waveform[begin:end], first - begin, length)
        return log_mel

    def _fill(self, log_mel: Float32s, waveform: Float32s, first: Int64s, length: int) -> None:
        """Computes windows of ``length`` samples from ``first`` (window, 1) into (window, mel, frame)."""
        signal = self._signal(waveform)
        begins = np.arange(log_mel.shape[2]) * self.front_end.hop_length
        begins += self.front_end.window_offset - self.front_end.n_fft // 2
        end = length - bool(self.front_end.preemphasis)
        outside = (begins < 0) | (begins + self.front_end.win_length > end)
        log_mel[:, :, ~outside] = self._inner_frames(signal, first + begins[~outside])
        log_mel[:, :, outside] = self._edge_frames(signal, first, begins[outside], end)

    def _inner_frames(self, signal: Float32s, begins: Int64s) -> Float32s:
        """The frames that begin at sample ``begins`` (window, frame) of the signal: (window, mel, frame)."""
        if begins.size == 0:  # the windows may be shorter than a frame
            return np.empty((len(begins), self.front_end.n_mels, 0), np.float32)
        unique, places = np.unique(begins, return_inverse=True)
        views = np.lib.stride_tricks.sliding_window_view(signal, self.front_end.win_length)
        shared = self._log_mel(lambda block: views[unique[block]], len(unique))
        by_window: Float32s = shared[:, places.reshape(begins.shape)].transpose(1, 0, 2)
        return by_window

    def _edge_frames(self, signal: Float32s, first: Int64s, begins: Int64s, end: int) -> Float32s:
        """The frames that reach beyond ``[0, end)`` of each window, by reflection: (window, mel, frame)."""
        window_starts, frame_begins = (grid.ravel() for grid in np.broadcast_arrays(first, begins))
        taps = np.arange(self.front_end.win_length)

        def frames(block: slice) -> Float32s:
            mirrored = np.abs(frame_begins[block, None] + taps)
            mirrored = end - 1 - np.abs(end - 1 - mirrored)
            mirrored_signal: Float32s = signal[window_starts[block, None] + mirrored]
            return mirrored_signal

        edges = self._log_mel(frames, len(frame_begins))
        by_window: Float32s = edges.reshape(len(edges), len(first), len(begins)).transpose(1, 0, 2)
        return by_window

    def _log_mel(self, frames: Callable[[slice], Float32s], count: int) -> Float32s:
        """The log-mel of ``count`` frames, of which ``frames`` gives a block, (frame, time): (mel, frame)."""
        energies = np.empty((self.front_end.n_mels, count), np.float32)
        # Zeros follow the window: where it lies within n_fft changes phases only. Left to rfft, the padding
        # makes it take half as long again.
        padded = np.zeros((min(count, _BLOCK), self.front_end.n_fft), np.float32)
        for start in range(0, count, _BLOCK):
            block = slice(start, min(start + _BLOCK, count))
            rows = padded[: block.stop - block.start]
            np.multiply(frames(block), self._window, out=rows[:, : self.front_end.win_length])
            squares = np.fft.rfft(rows).view(np.float32)  # real and imaginary parts in turns
            squares *= squares
            power = squares[:, ::2] + squares[:, 1::2]
            if self.front_end.power != 2.0:
                power **= self.front_end.power / 2
            for bands, bins, weights in self._bank:
                energies[bands, block] = weights @ power[:, bins].T
        return self._compressed(energies)

    def _compressed(self, energies: Float32s) -> Float32s:
        """The logarithm and what surrounds it, in place."""
        front_end = self.front_end
        if front_end.floor_mode == "add":
            energies += np.float32(front_end.floor)
        else:
            np.maximum(energies, np.float32(front_end.floor), out=energies)
        if front_end.ceiling is not None:
            np.minimum(energies, np.float32(front_end.ceiling), out=energies)
        with np.errstate(divide="ignore"):  # without a floor, silence is minus infinity
            (np.log10 if front_end.log == "db" else np.log)(energies, out=energies)
        if front_end.log == "db":
            energies *= np.float32(10.0)
        energies += np.float32(front_end.shift)
        energies /= np.float32(front_end.scale)
        return energies

    def _signal(self, waveform: Float32s) -> Float32s:
        """The samples that frames are cut from: checked, and emphasized."""
        check_level(waveform)
        if not self.front_end.preemphasis:
            return np.ascontiguousarray(waveform)
        emphasized: Float32s = waveform[:-1] * np.float32(-self.front_end.preemphasis)
        emphasized += waveform[1:]
        return emphasized

    @cached_property
    def _window(self) -> Float32s:
        return window(self.front_end).astype(np.float32)

    @cached_property
    def _bank(self) -> list[tuple[slice, slice, Float32s]]:
        """The mel bank in groups of neighbouring bands, with only the bins that these reach.

        Products as small as these are not only less work: BLAS keeps them on one thread, where on a busy
        machine threads that wait for each other made the whole transform up to a hundred times slower.
        """
        bank = mel_bank(self.front_end).astype(np.float32)
        groups = []
        for start in range(0, len(bank), _GROUP):
            bands = slice(start, min(start + _GROUP, len(bank)))
            reached = np.flatnonzero(bank[bands].any(axis=0))
            bins = slice(reached[0], reached[-1] + 1) if len(reached) else slice(0, 1)
            groups.append((bands, bins, np.ascontiguousarray(bank[bands, bins])))
        return groups


def check_level(waveform: Float32s) -> None:
    """Refuses a waveform that holds NaN, infinities or samples far outside [-1, 1], with an AudioError."""
    lowest, highest = waveform.min(), waveform.max()
    if not (lowest >= -_LOUDEST and highest <= _LOUDEST):  # NaN is neither
        raise AudioError(f"the waveform holds NaN, or samples beyond {_LOUDEST:g}: scale it to [-1, 1]")


def _validate(waveform: Float32s, *dimensions: int) -> None:
    if not isinstance(waveform, np.ndarray):
        raise AudioError(
            f"the waveform must be a NumPy array of float32, not {type(waveform).__name__}: convert it"
        )
    if waveform.ndim not in dimensions or waveform.dtype != np.float32:
        shapes = " or ".join({1: "(time,)", 2: "(batch, time)"}[dimension] for dimension in dimensions)
        raise AudioError(
            f"the waveform must be float32 of shape {shapes}, "
            f"not {waveform.dtype} of shape {waveform.shape}: convert it"
        )
