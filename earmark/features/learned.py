"""Front-ends within a graph: those that learn, and log-mels that an export has put there.

Conventions: such a graph takes waveforms, float32 in [-1, 1], shape (batch, time), at the front-end's
``sample_rate``; whoever feeds it resamples. The filters of a front-end that learns are weights; the record
holds what is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np

from earmark.errors import AudioError, ModelError
from earmark.features.front_end import Float32s, FrontEnd, check_level

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


@dataclass(frozen=True)
class GraphFrontEnd:
    """A log-mel that the graph of a model file computes by itself, from waveforms at its sample rate.

    Args:
        log_mel: What it computes.
    """

    log_mel: FrontEnd

    graph_input: ClassVar[str] = "waveform"
    """Name of what goes into the graph of a model file."""

    @property
    def sample_rate(self) -> int:
        """Of the waveform, in Hz."""
        return self.log_mel.sample_rate

    @property
    def n_mels(self) -> int:
        """Number of mel bands that the network sees."""
        return self.log_mel.n_mels

    @property
    def min_samples(self) -> int:
        """The shortest waveform that can be padded by reflection, in samples."""
        return self.log_mel.min_samples

    @property
    def neutral(self) -> float:
        """What features are overwritten by where they are masked."""
        return self.log_mel.neutral

    def num_frames(self, num_samples: int) -> int:
        """How many frames a waveform of ``num_samples`` samples has.

        Raises:
            AudioError: If there are fewer than :attr:`min_samples` samples.
        """
        return self.log_mel.num_frames(num_samples)

    def to_dict(self) -> dict[str, Any]:
        """Every field of the log-mel by name, and that it is ``in_graph``."""
        return {**self.log_mel.to_dict(), "in_graph": True}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GraphFrontEnd:
        """The front-end that :meth:`to_dict` wrote.

        Raises:
            ModelError: If a field is unknown, missing or out of range.
        """
        fields_of_log_mel = dict(values)
        if fields_of_log_mel.pop("in_graph", None) is not True:
            raise ModelError(f"front-end: in_graph must be true, not {values.get('in_graph')!r}")
        return cls(FrontEnd.from_dict(fields_of_log_mel))


NetworkFrontEnd = FrontEnd | LearnedFrontEnd
"""What a network is trained behind."""
AnyFrontEnd = NetworkFrontEnd | GraphFrontEnd
"""What a model file may have."""


def front_end_from_dict(values: Mapping[str, Any]) -> AnyFrontEnd:
    """The front-end that its ``to_dict`` wrote: one that learns says its kind, a log-mel whether in a graph.

    Raises:
        ModelError: If a field is unknown, missing or out of range.
    """
    kinds = {"kind": LearnedFrontEnd, "in_graph": GraphFrontEnd}
    made: type[AnyFrontEnd] = next((kinds[key] for key in kinds if key in values), FrontEnd)
    return made.from_dict(values)


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
