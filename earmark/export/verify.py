"""Whether what was exported answers as the model it came from: on real sounds, and on some that break graphs.

Conventions: what is compared are logits and embedding of each sound by itself; a difference is relative to
the largest value of an answer where that is above 1. Source and export each get what they take of the same
samples: log-mels by NumPy, or the waveform.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.audio import load_audio, pad
from earmark.export.source import Source
from earmark.export.waveform import FoldedLogMel
from earmark.features.front_end import FrontEnd
from earmark.features.learned import AnyFrontEnd, LearnedFrontEnd
from earmark.features.log_mel import LogMel
from earmark.features.mel import analysis_window
from earmark.model_file.info import ModelInfo
from earmark.models.onnx_graph import OUTPUT_NAMES

Floats = NDArray[np.float32]
Recording = str | PathLike[str]
_LogMels = Callable[[FrontEnd, Floats], Floats]
"""From waveforms (batch, time) to log-mels (batch, mel, frame)."""
EXAMPLE = Path(__file__).parents[1] / "hub" / "shipped" / "siren_and_bell.ogg"
"""A recording that every export is verified on."""
TOLERANCE = 1e-4
"""Of logits and embedding against the model, relative to the largest where that is above 1."""
_ROUNDINGS = 4
"""Some networks and log-mels magnify what is rounded off: drawn weights on loud sounds, bands that hold next
to nothing. Another program rounds otherwise, and may differ by so many times what float64 changes."""


class Model(NamedTuple):
    """What answers: a session with ``run(names, inputs)`` as those of ONNX Runtime have, and its record."""

    session: Any
    info: ModelInfo

    def answers(self, waveforms: Floats, log_mel: _LogMels | None = None) -> list[Floats]:
        """Logits and embedding, (batch, class) and (batch, channel), of waveforms.

        Args:
            waveforms: (batch, time).
            log_mel: What computes log-mels; by default earmark's own, in float32.
        """
        front_end, log_mel = self.info.front_end, log_mel or _log_mel
        features = log_mel(front_end, waveforms) if isinstance(front_end, FrontEnd) else waveforms
        answers: list[Floats] = self.session.run(list(OUTPUT_NAMES), {self.info.graph_input: features})
        return answers


@dataclass(frozen=True)
class Case:
    """One sound that was compared.

    Args:
        sound: What it was.
        batch: How many sounds went through together.
        seconds: Its length.
        difference: The largest; None where the source itself answers with something that is no number.
        allowed: What it may be.
    """

    sound: str
    batch: int
    seconds: float
    difference: float | None
    allowed: float

    def summary(self) -> str:
        """A line for people."""
        found = "no number in the model either" if self.difference is None else f"{self.difference:.1e}"
        rounding = f", of {self.allowed:.1e} that rounding explains" if self.allowed > TOLERANCE else ""
        return f"  {self.sound:<24}  {self.batch} x {self.seconds:<8.3f} s  {found}{rounding}"


@dataclass(frozen=True)
class Check:
    """What an export was found to differ by.

    Args:
        cases: All that was compared.
    """

    cases: tuple[Case, ...]

    @property
    def difference(self) -> float:
        """The largest of all."""
        return max((case.difference for case in self.cases if case.difference is not None), default=math.inf)

    @property
    def holds(self) -> bool:
        """Whether the export may be used."""
        differences = [(case.difference, case.allowed) for case in self.cases if case.difference is not None]
        return bool(differences) and all(difference <= allowed for difference, allowed in differences)

    def summary(self) -> str:
        """For people: a line for each case, and one for all."""
        lines = [case.summary() for case in self.cases]
        return "\n".join([*lines, f"  largest {self.difference:.1e}"])


def verify(
    source: Source, made: Model, recordings: Sequence[Recording] = (), tolerance: float = TOLERANCE
) -> Check:
    """Compares an export with its source, at several lengths and batches where it takes them.

    Args:
        source: What was exported.
        made: What came of it; its front-ends are the source's, within the graph or not.
        recordings: To hear besides the one that ships.
        tolerance: What a difference may be.

    Raises:
        AudioError: If a recording cannot be read.
    """
    model, cases = Model(source.session(), source.info), []
    for trial in _trials(made.info, recordings):
        waveforms = trial.waveforms(made.info)
        wanted, got = model.answers(waveforms), made.answers(waveforms)
        seconds = trial.samples / made.info.front_end.sample_rate
        for row, name in enumerate(trial.sounds):
            difference, allowed = _difference(wanted, got, row), tolerance
            if (difference or 0) > tolerance:
                exact = _exact_answers(source, model, made.info, waveforms)
                allowed = max(allowed, _ROUNDINGS * (_difference(wanted, exact, row) or 0))
            cases.append(Case(name, len(trial.sounds), seconds, difference, allowed))
    return Check(tuple(cases))


def _exact_answers(
    source: Source, model: Model, made: ModelInfo, waveforms: Floats
) -> list[Floats]:
    """What the source answers where float64 rounds off next to nothing of what the export computes."""
    exact = Model(source.exact_session() or model.session, source.info)
    return exact.answers(
        waveforms, _log_mel if made.graph_input == source.info.graph_input else _exact_log_mel
    )


_Sound = Callable[[AnyFrontEnd, int], Floats]
"""From a front-end and a number of samples to a waveform at its rate, (time,)."""
_HALF_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class _Trial:
    """Sounds that go through together, and how many samples of each."""

    sounds: Mapping[str, _Sound]
    samples: int

    def waveforms(self, info: ModelInfo) -> Floats:
        """The sounds at the rate of the front-end, (batch, time)."""
        return np.stack([sound(info.front_end, self.samples) for sound in self.sounds.values()])


def _trials(info: ModelInfo, recordings: Sequence[Recording]) -> Iterator[_Trial]:
    window = info.num_samples(info.window_s)
    short, long = window, window
    if not info.fixed_window:
        short = info.num_samples(max(info.min_window_s, info.window_s / 3))
        long = 2 * window + 7
    hostile = {"silence": _silence, "full scale": _square, "more than fp16 holds": _overflowing}
    example = {EXAMPLE.name: _recorded(EXAMPLE)}
    yield _Trial(example, window)
    yield _Trial(hostile, window)
    yield _Trial({"noise": _noise, **example}, short)
    yield _Trial({"noise": _noise}, long)
    for recording in recordings:
        yield _Trial({Path(recording).name: _recorded(recording)}, window)


def _recorded(recording: Recording) -> _Sound:
    def sound(front_end: AnyFrontEnd, samples: int) -> Floats:
        waveform, _ = load_audio(recording, front_end.sample_rate)
        return pad(waveform[:samples], samples, "repeat")

    return sound


def _silence(front_end: AnyFrontEnd, samples: int) -> Floats:
    return np.zeros(samples, np.float32)


def _square(front_end: AnyFrontEnd, samples: int) -> Floats:
    """Every sample is 1 or -1."""
    phase = 2 * np.pi * 440 * (np.arange(samples) + 0.5) / front_end.sample_rate
    return np.sign(np.sin(phase)).astype(np.float32)


def _overflowing(front_end: AnyFrontEnd, samples: int) -> Floats:
    """A tone, of at least full scale, whose power lies beyond the range of fp16, with noise.

    Where there is nothing but a tone, the other bands hold what was rounded off, which no two programs share.
    """
    amplitude = 1.0
    if not isinstance(front_end, LearnedFrontEnd):
        log_mel = front_end if isinstance(front_end, FrontEnd) else front_end.log_mel
        gain = analysis_window(log_mel).sum() / 2 * math.hypot(1, log_mel.preemphasis)
        amplitude = max(1.0, math.sqrt(2 * _HALF_LARGEST) / gain)
    # At a quarter of the sample rate, where pre-emphasis has the gain above.
    tone: Floats = (amplitude * np.cos(np.pi / 2 * np.arange(samples))).astype(np.float32)
    return tone + _noise(front_end, samples)


def _noise(front_end: AnyFrontEnd, samples: int) -> Floats:
    drawn: Floats = np.random.default_rng(0).standard_normal(samples, np.float32)
    return np.multiply(drawn, 0.1, dtype=np.float32)


def _log_mel(front_end: FrontEnd, waveforms: Floats) -> Floats:
    return LogMel(front_end)(waveforms)


def _exact_log_mel(front_end: FrontEnd, waveforms: Floats) -> Floats:
    log_mel: Floats = FoldedLogMel(front_end).double()(torch.from_numpy(waveforms).double()).float().numpy()
    return log_mel


def _difference(wanted: Sequence[Floats], answered: Sequence[Floats], row: int) -> float | None:
    """Of logits and embedding of one of a batch."""
    pairs = [(want[row], got[row]) for want, got in zip(wanted, answered, strict=True)]
    if not all(np.isfinite(want).all() for want, _ in pairs):
        return None
    largest = 0.0
    for want, got in pairs:
        if got.shape != want.shape or not np.isfinite(got).all():
            return math.inf
        largest = max(largest, float(np.abs(want - got).max() / max(1.0, np.abs(want).max())))
    return largest
