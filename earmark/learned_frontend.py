"""Front-ends that learn: what the record says of them, and what a tagger feeds a graph that holds one.

Conventions: such a front-end is part of the network's graph, which takes waveforms, float32 in [-1, 1], shape
(batch, time), at ``LearnedFrontEnd.sample_rate``. Its filters are weights; the record holds what is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np

from earmark.errors import AudioError, ModelError
from earmark.frontend import Float32s, FrontEnd, check_level

#: The fields that count something, and the least and the largest of each.
_COUNTS = {
    "sample_rate": (1000, 768_000),
    "n_mels": (1, 1024),
    "win_length": (1, 16_383),
    "hop_length": (1, 16_384),
}


@dataclass(frozen=True)
class LearnedFrontEnd:
    """What is fixed of a front-end whose filters are learned with the network.

    The defaults are audax's LEAF.

    Args:
        kind: "leaf" (Zeghidour et al., arXiv:2101.08596) or "sincnet" (Ravanelli and Bengio,
            arXiv:1808.00158).
        sample_rate: Of the waveform, in Hz.
        n_mels: Number of filters, which are the mel bands that the network sees.
        win_length: Length of a filter in samples, odd.
        hop_length: From one frame to the next, in samples; at most ``win_length``.
        f_min: Where the filters begin before they have learned, in Hz.
        f_max: Where they end.

    Raises:
        ModelError: If a field is out of range.
    """

    kind: Literal["leaf", "sincnet"] = "leaf"
    sample_rate: int = 16000
    n_mels: int = 64
    win_length: int = 401
    hop_length: int = 160
    f_min: float = 60.0
    f_max: float = 7800.0

    graph_input: ClassVar[str] = "waveform"
    """Name of what goes into the graph of a model file."""
    min_samples: ClassVar[int] = 1
    """The shortest waveform that gives a frame, in samples."""
    neutral: ClassVar[float] = 0.0
    """What features are overwritten by where they are masked."""

    def __post_init__(self) -> None:
        self._require(self.kind in ("leaf", "sincnet"), "kind", "leaf or sincnet")
        for name, (least, most) in _COUNTS.items():
            value = getattr(self, name)
            holds = type(value) is int and least <= value <= most
            self._require(holds, name, f"a whole number from {least} to {most}")
        self._require(self.win_length % 2 == 1, "win_length", "odd")
        self._require(self.hop_length <= self.win_length, "hop_length", f"at most {self.win_length}")
        for name in ("f_min", "f_max"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            self._require(
                is_number and 0 <= value <= self.sample_rate / 2, name, "within half the sample rate"
            )
            object.__setattr__(self, name, float(value))  # so that equal front-ends are equal JSON
        self._require(self.f_min <= self.f_max - 1, "f_min", f"at least 1 Hz below f_max, {self.f_max}")

    def _require(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise ModelError(f"front-end: {name} must be {wanted}, not {getattr(self, name)!r}")

    def num_frames(self, num_samples: int) -> int:
        """How many frames a waveform of ``num_samples`` samples has.

        Raises:
            AudioError: If there are no samples.
        """
        if num_samples < self.min_samples:
            raise AudioError("the waveform has no samples: give at least one")
        return -(-num_samples // self.hop_length)

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LearnedFrontEnd:
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


LEAF = LearnedFrontEnd()
"""LEAF as audax's networks have it, at 16 kHz."""
SINCNET = LearnedFrontEnd(kind="sincnet", f_min=50.0, f_max=7900.0)
"""SincNet as audax's networks have it, at 16 kHz."""

AnyFrontEnd = FrontEnd | LearnedFrontEnd


def front_end_from_dict(values: Mapping[str, Any]) -> AnyFrontEnd:
    """The front-end that its ``to_dict`` wrote: one that learns says its kind, a log-mel has none.

    Raises:
        ModelError: If a field is unknown, missing or out of range.
    """
    return LearnedFrontEnd.from_dict(values) if "kind" in values else FrontEnd.from_dict(values)


class Waveforms:
    """The windows of a waveform as a graph with its own front-end takes them; the counterpart of LogMel."""

    def windows(self, waveform: Float32s, starts: Sequence[int], length: int) -> Float32s:
        """Several windows of one waveform.

        Args:
            waveform: float32 in [-1, 1], shape (time,).
            starts: First sample of each window.
            length: Samples in each window.

        Returns:
            float32, shape (window, time).

        Raises:
            AudioError: If the waveform holds NaN, infinities or samples far outside [-1, 1].
        """
        check_level(waveform)
        return np.stack([waveform[start : start + length] for start in starts])
