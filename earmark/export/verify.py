"""Verifies that an export has the outputs of its model, on real sounds and on some that break graphs.

Conventions: logits and embedding of each sound are compared; a difference is relative to the largest output
if that is above 1. Model and export each get their own input from the same samples: log-mels computed by
NumPy, or the waveform.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.audio import load_audio, pad
from earmark.export.source import ExportSource
from earmark.export.waveform import FoldedLogMel
from earmark.features.front_end import FrontEnd
from earmark.features.learned import AnyFrontEnd, LearnedFrontEnd
from earmark.features.log_mel import LogMel
from earmark.features.mel import analysis_window
from earmark.inference.engines import Session
from earmark.model_file.info import ModelInfo
from earmark.models.onnx_graph import OUTPUT_NAMES

Floats = NDArray[np.float32]
Recording = str | PathLike[str]
_ComputeLogMel = Callable[[FrontEnd, Floats], Floats]
"""Waveforms (batch, time) -> log-mels (batch, mel, frame)."""
_MakeSound = Callable[[AnyFrontEnd, int], Floats]
"""Front-end and number of samples -> a waveform at its sample rate, (time,)."""
EXAMPLE = Path(__file__).parents[1] / "hub" / "shipped" / "siren_and_bell.ogg"
"""A recording that every export is verified with."""
TOLERANCE = 1e-4
"""Largest difference of logits and embedding, relative to the largest output if that is above 1."""
_MAX_FP16 = float(np.finfo(np.float16).max)
_ROUNDINGS = 4
"""Allowed multiple of the difference between float32 and float64: some networks and log-mels amplify
rounding, such as random weights on loud sounds or bands without energy, and runtimes round differently."""


@dataclass(frozen=True)
class Case:
    """One sound that was compared.

    Args:
        sound: Its name.
        batch: Number of sounds processed together.
        seconds: Its length.
        difference: The largest difference; None if the outputs of the model itself are not finite.
        allowed: The largest allowed difference.
    """

    sound: str
    batch: int
    seconds: float
    difference: float | None
    allowed: float

    def summary(self) -> str:
        """One line, for people."""
        found = "not finite in the model either" if self.difference is None else f"{self.difference:.1e}"
        limit = f" (limit {self.allowed:.1e})" if self.allowed > TOLERANCE else ""
        return f"  {self.sound:<24}  {self.batch} x {self.seconds:<8.3f} s  {found}{limit}"


@dataclass(frozen=True)
class Verification:
    """Differences between an export and its model.

    Args:
        cases: All comparisons.
    """

    cases: tuple[Case, ...]

    @property
    def difference(self) -> float:
        """The largest difference."""
        return max((case.difference for case in self.cases if case.difference is not None), default=math.inf)

    @property
    def passed(self) -> bool:
        """Whether all differences are within their limits, and at least one could be compared."""
        found = [(case.difference, case.allowed) for case in self.cases if case.difference is not None]
        return bool(found) and all(difference <= allowed for difference, allowed in found)

    def summary(self) -> str:
        """One line per comparison, and one for the largest difference."""
        lines = [case.summary() for case in self.cases]
        return "\n".join([*lines, f"  largest difference {self.difference:.1e}"])


def verify(
    source: ExportSource,
    session: Session,
    info: ModelInfo,
    recordings: Sequence[Recording] = (),
    tolerance: float = TOLERANCE,
) -> Verification:
    """Compares an export with its model, at several lengths and batch sizes if it supports them.

    Args:
        source: The model.
        session: Runs the export.
        info: Model info of the export; its front-end is the model's, in the graph or not.
        recordings: Recordings to compare with besides the shipped one.
        tolerance: The largest allowed difference.

    Raises:
        AudioError: If a recording cannot be read.
    """
    original, cases = source.session(), []
    for batch in _batches(info, recordings):
        waveforms = batch.waveforms(info.front_end)
        expected = _outputs(original, source.info, waveforms)
        found = _outputs(session, info, waveforms)
        for row, name in enumerate(batch.sounds):
            difference, allowed = _difference(expected, found, row), tolerance
            if (difference or 0) > tolerance:
                exact = _exact_outputs(source, original, info, waveforms)
                allowed = max(allowed, _ROUNDINGS * (_difference(expected, exact, row) or 0))
            seconds = batch.samples / info.front_end.sample_rate
            cases.append(Case(name, len(batch.sounds), seconds, difference, allowed))
    return Verification(tuple(cases))


def _compute_log_mel(front_end: FrontEnd, waveforms: Floats) -> Floats:
    return LogMel(front_end)(waveforms)


def _compute_exact_log_mel(front_end: FrontEnd, waveforms: Floats) -> Floats:
    log_mel: Floats = FoldedLogMel(front_end).double()(torch.from_numpy(waveforms).double()).float().numpy()
    return log_mel


def _outputs(
    session: Session, info: ModelInfo, waveforms: Floats, log_mel: _ComputeLogMel = _compute_log_mel
) -> list[Floats]:
    """Logits (batch, class) and embedding (batch, channel) of waveforms (batch, time)."""
    front_end = info.front_end
    given = log_mel(front_end, waveforms) if isinstance(front_end, FrontEnd) else waveforms
    return session.run(list(OUTPUT_NAMES), {front_end.graph_input: given})


def _exact_outputs(
    source: ExportSource, original: Session, info: ModelInfo, waveforms: Floats
) -> list[Floats]:
    """The model's outputs, with float64 for what the export computes."""
    same_input = info.front_end.graph_input == source.info.front_end.graph_input
    log_mel = _compute_log_mel if same_input else _compute_exact_log_mel
    return _outputs(source.exact_session() or original, source.info, waveforms, log_mel)


@dataclass(frozen=True)
class _Batch:
    """Sounds that are processed together, and their length in samples."""

    sounds: Mapping[str, _MakeSound]
    samples: int

    def waveforms(self, front_end: AnyFrontEnd) -> Floats:
        """Shape (batch, time)."""
        return np.stack([sound(front_end, self.samples) for sound in self.sounds.values()])


def _batches(info: ModelInfo, recordings: Sequence[Recording]) -> Iterator[_Batch]:
    window = info.num_samples(info.window_s)
    short, long = window, window
    if not info.fixed_window:
        short = info.num_samples(max(info.min_window_s, info.window_s / 3))
        long = 2 * window + 7
    hostile = {"silence": _silence, "full scale": _square, "beyond fp16": _overflowing}
    example = {EXAMPLE.name: _from_recording(EXAMPLE)}
    yield _Batch(example, window)
    yield _Batch(hostile, window)
    yield _Batch({"noise": _noise, **example}, short)
    yield _Batch({"noise": _noise}, long)
    for recording in recordings:
        yield _Batch({Path(recording).name: _from_recording(recording)}, window)


def _from_recording(recording: Recording) -> _MakeSound:
    def sound(front_end: AnyFrontEnd, samples: int) -> Floats:
        waveform, _ = load_audio(recording, front_end.sample_rate)
        return pad(waveform[:samples], samples, "repeat")

    return sound


def _silence(front_end: AnyFrontEnd, samples: int) -> Floats:
    return np.zeros(samples, np.float32)


def _square(front_end: AnyFrontEnd, samples: int) -> Floats:
    """A square wave at full scale."""
    phase = 2 * np.pi * 440 * (np.arange(samples) + 0.5) / front_end.sample_rate
    return np.sign(np.sin(phase)).astype(np.float32)


def _overflowing(front_end: AnyFrontEnd, samples: int) -> Floats:
    """A tone at full scale or above whose power exceeds the range of fp16, in noise.

    With the tone alone, the other bands would hold rounding errors only, which no two programs share.
    """
    amplitude = 1.0
    if not isinstance(front_end, LearnedFrontEnd):
        log_mel = front_end if isinstance(front_end, FrontEnd) else front_end.log_mel
        gain = analysis_window(log_mel).sum() / 2 * math.hypot(1, log_mel.preemphasis)
        amplitude = max(1.0, math.sqrt(2 * _MAX_FP16) / gain)
    # At a quarter of the sample rate, where pre-emphasis has the gain above.
    tone: Floats = (amplitude * np.cos(np.pi / 2 * np.arange(samples))).astype(np.float32)
    return tone + _noise(front_end, samples)


def _noise(front_end: AnyFrontEnd, samples: int) -> Floats:
    noise: Floats = np.random.default_rng(0).standard_normal(samples, np.float32)
    return np.multiply(noise, 0.1, dtype=np.float32)


def _difference(expected: Sequence[Floats], found: Sequence[Floats], row: int) -> float | None:
    """The largest difference of logits and embedding of one item of a batch."""
    pairs = [(one[row], other[row]) for one, other in zip(expected, found, strict=True)]
    if not all(np.isfinite(one).all() for one, _ in pairs):
        return None
    largest = 0.0
    for one, other in pairs:
        if other.shape != one.shape or not np.isfinite(other).all():
            return math.inf
        largest = max(largest, float(np.abs(one - other).max() / max(1.0, np.abs(one).max())))
    return largest
