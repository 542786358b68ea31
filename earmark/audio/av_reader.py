"""Reads audio through PyAV (FFmpeg): the formats that libsndfile does not support.

Conventions: samples are float32, shape (time, channel), in the file's own channels. PyAV is optional: the
extra ``ffmpeg`` installs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from earmark.audio.sources import first_line, reason
from earmark.errors import AudioError

Floats = NDArray[np.float32]
_STATES_LENGTH = ("mov", "matroska", "asf", "ape", "wv")
"""Formats whose header states the duration; FFmpeg estimates it for others."""


class AvReader:
    """A reader on top of FFmpeg."""

    def __init__(self, container: Any, av: Any, states_length: bool) -> None:
        self._av = av
        self._container = container
        self._stream = container.streams.audio[0]
        self.sample_rate = int(self._stream.rate)
        length_s = container.duration and container.duration / av.time_base
        self.duration_s = length_s if states_length and length_s else None
        self._damage = ""
        self.frames: int | None = None  # FFmpeg cannot seek to a sample

    def blocks(self, frames: int) -> Iterator[Floats]:
        """Yields all samples in order, at most ``frames`` per block."""
        held: list[Floats] = []
        size = 0
        for piece in self._pieces():
            held.append(piece)
            size += len(piece)
            while size >= frames:
                joined = np.concatenate(held)
                yield joined[:frames]
                held, size = [joined[frames:]], size - frames
        if size:
            yield np.concatenate(held)

    def piece(self, first: int, count: int) -> Floats:
        """Not supported; ``frames`` is None."""
        raise NotImplementedError("FFmpeg readers read from start to end")

    def _pieces(self) -> Iterator[Floats]:
        """Decoded samples; channels stay separate, because FFmpeg's downmix is not their mean."""
        resampler = self._av.AudioResampler(format="fltp", rate=self.sample_rate)
        try:
            for frame in self._container.decode(self._stream):
                yield from (piece.to_ndarray().T for piece in resampler.resample(frame))
        except (self._av.FFmpegError, ValueError) as error:
            self._damage = first_line(error)
        with suppress(self._av.FFmpegError, ValueError):  # the rest, if the resampler got any input
            yield from (piece.to_ndarray().T for piece in resampler.resample(None) if piece is not None)

    def faults(self, samples_read: int) -> list[str]:
        """Warnings, once everything has been read."""
        read_s = samples_read / self.sample_rate
        if self.duration_s and read_s < self.duration_s - 0.1:  # codec frames do not end at the stated time
            return [f"the file is cut off: {read_s:.2f} of {self.duration_s:.2f} s could be read"]
        if self._damage:
            return [f"the file is damaged or cut off: it could be read up to {read_s:.2f} s"]
        return []


def open_av(handle: BinaryIO, kind: str, label: str, resources: ExitStack) -> AvReader:
    """Opens a file with PyAV.

    Args:
        handle: The file; can seek.
        kind: FFmpeg's name of the format.
        label: Of the recording, for errors.
        resources: Closes the container.

    Raises:
        AudioError: If PyAV is not installed, or the file is damaged or has no audio track.
    """
    try:
        import av  # optional, and slow to import
    except ImportError as error:
        needed = "reading this kind of file (m4a, mp4, webm, wma ...) needs: pip install 'earmark[ffmpeg]'"
        raise AudioError(f"{label}: {needed}") from error
    handle.seek(0)
    try:
        # The format is given: FFmpeg might detect a playlist, which opens other files.
        container = resources.enter_context(av.open(handle, format=kind, metadata_errors="ignore"))
    except av.FFmpegError as error:
        raise AudioError(f"{label}: damaged, or cut off before the first sample ({reason(error)})") from error
    if not container.streams.audio:
        raise AudioError(f"{label}: the file has no audio track")
    if not container.streams.audio[0].rate:
        raise AudioError(f"{label}: damaged: the audio track has no sample rate")
    return AvReader(container, av, states_length=kind in _STATES_LENGTH)
