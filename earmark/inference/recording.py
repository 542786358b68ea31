"""What a tagger takes as a recording: a file, an open recording, or samples in memory.

Conventions: samples are float32 in [-1, 1], shape (time,); integers are scaled, channels mixed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.audio import Levels, check_finite, mix_all, mixed, open_audio, to_channels
from earmark.errors import AudioError
from earmark.inference.feature_extractor import FeatureExtractor, FeatureWindow
from earmark.model_file.info import Padding

Floats = NDArray[np.float32]
FilePath = str | os.PathLike[str]


@runtime_checkable
class OpenRecording(Protocol):
    """A recording that is open: :func:`earmark.audio.open_audio` returns one."""

    @property
    def path(self) -> str:
        """Path, or a name for messages."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""

    @property
    def duration_s(self) -> float | None:
        """Duration that is stated, in seconds, or None."""

    @property
    def samples_read(self) -> int:
        """Samples that were read so far."""

    @property
    def warnings(self) -> list[str]:
        """Faults, one line each; complete when all blocks are read."""

    def blocks(self) -> Iterator[Floats]:
        """Reads the samples, float32 (time,)."""


Source = FilePath | OpenRecording | ArrayLike

BLOCK_S = 5.0
"""Length of the blocks that samples in memory are processed in, in seconds."""


class Recording:
    """A recording that is read once; its attributes are complete when its windows are used up.

    Args:
        source: A path, "-" for standard input, an open recording, which stays open, or samples.
        sample_rate: Sample rate of samples in Hz; None for a file.

    Attributes:
        path: Path of a file, or None.
        sample_rate: Sample rate in Hz; 0 until the file is open.
        duration_s: Duration in seconds.
        stated_s: Duration that an open file states, in seconds, or None.
        warnings: Faults that did not prevent reading, one line each.

    Raises:
        AudioError: If a file comes with a sample rate, or samples without one.
    """

    def __init__(self, source: Source, sample_rate: int | None = None) -> None:
        self.path: str | None = None
        self.sample_rate, self.duration_s = sample_rate or 0, 0.0
        self.stated_s: float | None = None
        self.warnings: tuple[str, ...] = ()
        self._opened: OpenRecording | None = None
        if isinstance(source, (str, os.PathLike, OpenRecording)):
            if isinstance(source, OpenRecording):
                self.path, self._opened = source.path, source
            else:
                self.path = os.fspath(source)
            if sample_rate is not None:
                raise AudioError(f"{self.path}: sample_rate is for samples: omit it for a file")
        else:
            if sample_rate is None:
                raise AudioError("samples need their sample rate: tag(samples, sample_rate)")
            channels, levels = to_channels(source), Levels()
            levels.peak = check_finite(channels, 0, sample_rate, "samples")
            self._waveform = np.ascontiguousarray(mix_all(channels, sample_rate, levels))
            self.warnings = tuple(f"samples: {note}" for note in levels.notes())
            self.duration_s = len(self._waveform) / sample_rate if sample_rate else 0.0

    def windows(
        self, extractor: FeatureExtractor, length: int | None, hop: int, padding: Padding
    ) -> Generator[FeatureWindow, None, None]:
        """Reads the recording and computes the features of its windows; as :meth:`FeatureExtractor.stream`.

        Raises:
            AudioError: If the recording cannot be read, or has no samples, NaN or infinite samples.
        """
        if self.path is None:
            blocks = _blocks(self._waveform, self.sample_rate)
            yield from chain.from_iterable(extractor.stream(blocks, self.sample_rate, length, hop, padding))
            return
        with nullcontext(self._opened) if self._opened else open_audio(self.path) as stream:
            self.sample_rate, self.stated_s = stream.sample_rate, stream.duration_s
            groups = extractor.stream(stream.blocks(), stream.sample_rate, length, hop, padding)
            yield from chain.from_iterable(groups)
            self.duration_s = stream.samples_read / stream.sample_rate
            self.warnings = tuple(stream.warnings)


def checked_blocks(blocks: Iterable[ArrayLike], sample_rate: int) -> Iterator[Floats]:
    """Converts the blocks of a stream to mono float32; each is a copy, so its buffer may be used again.

    Raises:
        AudioError: If a block is not of numbers, or has NaN or infinite samples.
    """
    copies = ((sample_rate, np.array(to_channels(block, in_blocks=True))) for block in blocks)
    return mixed(copies, sample_rate, Levels(), "stream")


def _blocks(waveform: Floats, sample_rate: int) -> Iterator[Floats]:
    size = max(1, round(BLOCK_S * sample_rate))
    for start in range(0, len(waveform), size):
        yield waveform[start : start + size]
