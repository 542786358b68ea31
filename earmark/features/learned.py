"""Front-ends inside a model's graph: learned ones, and log-mels that an export has moved into the graph.

Conventions: such a graph takes waveforms, float32 in [-1, 1], shape (batch, time), at the front-end's
``sample_rate``. The filters of a learned front-end are weights of the network; the model info has what is
fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from earmark.errors import AudioError, ModelError
from earmark.features.front_end import CheckedFields, FrontEnd
from earmark.features.log_mel import Float32s, check_level


@dataclass(frozen=True)
class LearnedFrontEnd(CheckedFields):
    """The fixed constants of a front-end whose filters are learned with the network.

    The defaults are those of audax's LEAF.

    Args:
        kind: "leaf" (Zeghidour et al., arXiv:2101.08596) or "sincnet" (Ravanelli and Bengio,
            arXiv:1808.00158).
        sample_rate: Sample rate of the waveform, in Hz.
        n_mels: Number of filters, the mel bands of the network's input.
        win_length: Length of a filter in samples, odd.
        hop_length: Hop between frames in samples, at most ``win_length``.
        f_min: Lower edge of the initial filters, in Hz.
        f_max: Upper edge of the initial filters, in Hz.
        initial_filters: How LEAF's filters start: "mel": near mel bands; "randn", "lecun_normal" and
            "kaiming_normal": random centres and widths, by the rules of audax. Most of these lie outside the
            limits of centre and width, within which alone filters learn. SincNet has "mel" only.

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
    initial_filters: Literal["mel", "randn", "lecun_normal", "kaiming_normal"] = "mel"

    added: ClassVar[tuple[str, ...]] = ("initial_filters",)
    graph_input: ClassVar[str] = "waveform"
    """Name of the input of a model file's graph."""
    min_samples: ClassVar[int] = 1
    """The shortest waveform with a frame, in samples."""
    mask_value: ClassVar[float] = 0.0
    """Value of masked parts of the features."""

    def __post_init__(self) -> None:
        self._check_choice("kind", ("leaf", "sincnet"))
        random = ("randn", "lecun_normal", "kaiming_normal") if self.kind == "leaf" else ()
        self._check_choice("initial_filters", ("mel", *random))
        self._check_integer("sample_rate", 1000, 768_000)
        self._check_integer("n_mels", 1, 1024)
        self._check_integer("win_length", 1, 16_383)
        self._check_integer("hop_length", 1, 16_384)
        self._require(self.win_length % 2 == 1, "win_length", "odd")
        self._require(self.hop_length <= self.win_length, "hop_length", f"at most {self.win_length}")
        for name in ("f_min", "f_max"):
            self._check_number(name, 0, self.sample_rate / 2)
        self._require(self.f_min <= self.f_max - 1, "f_min", f"at least 1 Hz below f_max, {self.f_max}")

    def num_frames(self, num_samples: int) -> int:
        """Counts the frames of a waveform of ``num_samples`` samples.

        Raises:
            AudioError: If there are no samples.
        """
        if num_samples < self.min_samples:
            raise AudioError(f"the waveform must have at least {self.min_samples} sample, got {num_samples}")
        return -(-num_samples // self.hop_length)


LEAF = LearnedFrontEnd()
"""LEAF as in audax, at 16 kHz."""
SINCNET = LearnedFrontEnd(kind="sincnet", f_min=50.0, f_max=7900.0)
"""SincNet as in audax, at 16 kHz."""


LEARNED_FRONT_ENDS: Mapping[str, LearnedFrontEnd] = {"leaf": LEAF, "sincnet": SINCNET}
"""Name, as in recipes and on the command line -> front-end."""


@dataclass(frozen=True)
class GraphFrontEnd:
    """A log-mel that the graph of a model file computes itself, from waveforms at its sample rate.

    Args:
        log_mel: The constants of that log-mel.
    """

    log_mel: FrontEnd

    graph_input: ClassVar[str] = "waveform"
    """Name of the input of a model file's graph."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveform, in Hz."""
        return self.log_mel.sample_rate

    @property
    def n_mels(self) -> int:
        """Number of mel bands of the network's input."""
        return self.log_mel.n_mels

    @property
    def min_samples(self) -> int:
        """The shortest waveform that can be padded by reflection, in samples."""
        return self.log_mel.min_samples

    @property
    def mask_value(self) -> float:
        """Value of masked parts of the features."""
        return self.log_mel.mask_value

    def num_frames(self, num_samples: int) -> int:
        """Counts the frames of a waveform of ``num_samples`` samples.

        Raises:
            AudioError: If there are fewer than :attr:`min_samples` samples.
        """
        return self.log_mel.num_frames(num_samples)

    def to_dict(self) -> dict[str, Any]:
        """Returns every field of the log-mel by name, and ``in_graph: True``."""
        return {**self.log_mel.to_dict(), "in_graph": True}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GraphFrontEnd:
        """Rebuilds a front-end from the output of :meth:`to_dict`.

        Raises:
            ModelError: If a field is unknown, missing or out of range.
        """
        fields_of_log_mel = dict(values)
        if fields_of_log_mel.pop("in_graph", None) is not True:
            raise ModelError(f"front-end: in_graph must be true, got {values.get('in_graph')!r}")
        return cls(FrontEnd.from_dict(fields_of_log_mel))


NetworkFrontEnd = FrontEnd | LearnedFrontEnd
"""The front-ends that a network can be trained with."""
AnyFrontEnd = NetworkFrontEnd | GraphFrontEnd
"""The front-ends that a model file can have."""


def front_end_from_dict(values: Mapping[str, Any]) -> AnyFrontEnd:
    """Rebuilds any front-end from the output of its ``to_dict``.

    Args:
        values: With the key "kind" for a learned front-end, "in_graph" for a log-mel in the graph.

    Raises:
        ModelError: If a field is unknown, missing or out of range.
    """
    kinds = {"kind": LearnedFrontEnd, "in_graph": GraphFrontEnd}
    made: type[AnyFrontEnd] = next((kinds[key] for key in kinds if key in values), FrontEnd)
    return made.from_dict(values)


class WaveformWindows:
    """Cuts windows for graphs with their own front-end; the counterpart of ``LogMel``."""

    def windows(self, waveform: Float32s, starts: Sequence[int], length: int) -> Float32s:
        """Cuts several windows of one waveform.

        Args:
            waveform: float32 in [-1, 1], shape (time,).
            starts: First sample of each window.
            length: Samples in each window.

        Returns:
            float32, shape (window, time).

        Raises:
            AudioError: If the waveform has NaN, infinities or samples far outside [-1, 1].
        """
        check_level(waveform)
        return np.stack([waveform[start : start + length] for start in starts])
