"""The constants of waveform -> log-mel, checked once and stored with every model.

Conventions: frequencies are in Hz, lengths in samples. Names are those of librosa and torchaudio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np

from earmark.errors import AudioError, ModelError


@dataclass(frozen=True)
class CheckedFields:
    """Base of the front-ends' dataclasses: checks of single fields, and conversion to and from JSON values.

    A field that is out of range raises a ModelError that names the field, its range and its value.
    """

    added: ClassVar[tuple[str, ...]] = ()
    """Fields that files of earlier versions lack; written only where they differ from the default."""

    def to_dict(self) -> dict[str, Any]:
        """Returns every field by name, as JSON values, without those of :attr:`added` at their default."""
        defaults = {field.name: field.default for field in fields(self) if field.name in self.added}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in defaults or value != defaults[name]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuilds a front-end from the output of :meth:`to_dict`.

        Raises:
            ModelError: If a field is unknown, missing or out of range.
        """
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - names, key=str)
        missing = sorted(names - set(values) - set(cls.added))
        if unknown or missing:
            raise ModelError(
                f"front-end: unknown fields {unknown}, missing fields {missing}; allowed are {sorted(names)}"
            )
        return cls(**values)

    def _require(self, holds: bool, name: str, allowed: str) -> None:
        if not holds:
            raise ModelError(f"front-end: {name} must be {allowed}, got {getattr(self, name)!r}")

    def _check_integer(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        self._require(is_integer and low <= value <= high, name, f"an integer from {low} to {high}")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        self._require(is_number and low <= value <= high, name, f"a number from {low:g} to {high:g}")
        object.__setattr__(self, name, float(value))  # 15000 and 15000.0 must be the same JSON

    def _check_choice(self, name: str, allowed: tuple[str | None, ...]) -> None:
        value = getattr(self, name)
        self._require(isinstance(value, str | None) and value in allowed, name, f"one of {allowed}")


@dataclass(frozen=True)
class FrontEnd(CheckedFields):
    """All constants of a log-mel spectrogram; the defaults are those of EfficientAT.

    Source: Schmid et al., arXiv:2211.04772, section 3; other published values are in
    :mod:`earmark.features.presets`.

    Args:
        sample_rate: Sample rate of the waveform, in Hz.
        n_fft: Length of the Fourier transform.
        win_length: Length of the analysis window, at most ``n_fft``.
        hop_length: Hop between frames.
        n_mels: Number of mel bands.
        f_min: Lower edge of the first band, in Hz.
        f_max: Upper edge of the last band, in Hz.
        preemphasis: a in ``y[n] = x[n + 1] - a * x[n]``, one sample shorter than x; 0: no pre-emphasis.
        window: "hann", the only one.
        window_symmetric: True: symmetric, both ends are zero; False: periodic.
        window_placement: Position of the window within the ``n_fft`` samples: "centre", or "start" (audax),
            where a frame ends with its window, so that more frames fit into a waveform.
        padding: "reflect" pads ``n_fft // 2`` samples at both ends, so that frame t is centred on
            ``t * hop_length`` (with ``window_placement="centre"``).
        power: Exponent of the magnitude: 2 is the power spectrum.
        mel_scale: "kaldi" (1127 ln(1 + f / 700), triangles linear in mel), "htk"
            (2595 log10(1 + f / 700)), "slaney" (linear below 1 kHz) or "linear" (equal bands in Hz: a linear
            spectrogram; with ``n_mels = n_fft // 2 - 1`` up to half the sample rate, the bins themselves
            without the first and the last), all three with triangles linear in Hz.
        mel_norm: None: triangles of height 1; "slaney": of equal area.
        log: "ln" or "db" (10 log10).
        floor_mode: "add": log(x + floor); "clip": log(max(x, floor)).
        floor: Lower limit of the mel energies; with 0 digital silence becomes minus infinity.
        ceiling: Upper limit of the mel energies before the logarithm, or None.
        shift: Added after the logarithm.
        scale: Divides that sum.
        standardize: What is shifted and scaled to mean 0 and standard deviation 1, window by window: False:
            nothing; True: the waveform, before all else, as in audax's recipes for Speech Commands;
            "log_mel": the finished log-mel, all bands together, as in sound-clf-pytorch, with a floor above
            0. (x - mean) / (standard deviation + 1e-8), which is 0 for digital silence.

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
    mel_scale: Literal["kaldi", "htk", "slaney", "linear"] = "kaldi"
    mel_norm: Literal["slaney"] | None = None
    log: Literal["ln", "db"] = "ln"
    floor_mode: Literal["add", "clip"] = "add"
    floor: float = 1e-5
    ceiling: float | None = None
    shift: float = 4.5
    scale: float = 5.0
    standardize: bool | Literal["log_mel"] = False

    added: ClassVar[tuple[str, ...]] = ("standardize",)
    graph_input: ClassVar[str] = "log_mel"
    """Name of the input of a model file's graph."""

    def __post_init__(self) -> None:
        for name, (low, high) in _INTEGERS.items():
            self._check_integer(name, low, high)
        for name, (lowest, highest) in _NUMBERS.items():
            self._check_number(name, lowest, highest)
        for name, allowed in _CHOICES.items():
            self._check_choice(name, allowed)
        self._require(isinstance(self.window_symmetric, bool), "window_symmetric", "true or false")
        known = isinstance(self.standardize, bool) or self.standardize == "log_mel"
        self._require(known, "standardize", 'true, false or "log_mel"')
        self._require(self.n_fft % 2 == 0, "n_fft", "even")
        self._require(self.win_length <= self.n_fft, "win_length", f"at most n_fft, {self.n_fft}")
        self._require(self.f_min <= self.f_max - 1.0, "f_min", f"at least 1 Hz below f_max, {self.f_max}")
        nyquist = self.sample_rate / 2
        self._require(self.f_max <= nyquist, "f_max", f"at most half the sample rate, {nyquist}")
        self._require(self.floor == 0.0 or self.floor >= _SMALLEST, "floor", f"0, or at least {_SMALLEST:g}")
        if self.standardize == "log_mel":
            self._require(self.floor > 0.0, "floor", 'above 0 for standardize = "log_mel"')
        if self.ceiling is not None:
            self._check_number("ceiling", 0.0, _LARGEST)
            self._require(self.ceiling > self.floor, "ceiling", f"above floor, {self.floor}")

    @property
    def min_samples(self) -> int:
        """The shortest waveform that can be padded by reflection, in samples."""
        return self.n_fft // 2 + 1 + bool(self.preemphasis)

    @property
    def window_offset(self) -> int:
        """Start of the first frame's window in the padded waveform, in samples."""
        return (self.n_fft - self.win_length) // 2 if self.window_placement == "centre" else 0

    @property
    def mask_value(self) -> float:
        """Value of masked parts of a log-mel: that of an energy of 1, or the mean of a standardised one."""
        return 0.0 if self.standardize == "log_mel" else self.shift / self.scale

    @property
    def silence(self) -> float:
        """Log-mel of digital silence: 0 if log-mels are standardised, else the lowest value there is.

        Without a floor it is minus infinity.
        """
        if self.standardize == "log_mel":
            return 0.0
        if self.floor == 0.0:
            return -math.inf
        logarithm = 10.0 * math.log10(self.floor) if self.log == "db" else math.log(self.floor)
        return (logarithm + self.shift) / self.scale

    def num_frames(self, num_samples: int) -> int:
        """Counts the frames of a waveform of ``num_samples`` samples.

        Raises:
            AudioError: If there are fewer than :attr:`min_samples` samples.
        """
        if num_samples < self.min_samples:
            raise AudioError(
                f"the waveform must have at least {self.min_samples} samples for this front-end, "
                f"got {num_samples}: pad it"
            )
        padded = num_samples - bool(self.preemphasis) + self.n_fft
        frame_length = self.n_fft if self.window_placement == "centre" else self.win_length
        return (padded - frame_length) // self.hop_length + 1


_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)
# Wide enough for any audio, narrow enough that a damaged file cannot allocate gigabytes.
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
    "mel_scale": ("kaldi", "htk", "slaney", "linear"),
    "mel_norm": (None, "slaney"),
    "log": ("ln", "db"),
    "floor_mode": ("add", "clip"),
}
