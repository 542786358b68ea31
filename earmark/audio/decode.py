"""Decodes recordings of any format to mono float32 samples, block by block.

Conventions: samples are float32 ``(time,)``: in [-1, 1] for integer formats, unscaled for float formats;
several channels are averaged. A truncated file is read as far as possible and reported in
``AudioStream.warnings``; one that cannot be read at all raises an AudioError of one line that starts with the
path. libsndfile reads most formats; PyAV, where installed, those that libsndfile does not support.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from earmark.audio.av_reader import open_av
from earmark.audio.containers import ffmpeg_format
from earmark.audio.resample import cut_piece, resample_blocks
from earmark.audio.soundfile_reader import open_sound_file
from earmark.audio.sources import Source, open_source, path_and_label, reason
from earmark.errors import AudioError

Floats = NDArray[np.float32]
_LONGEST_BLOCK = 1 << 16
_UNKNOWN_FORMAT = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT


class Reader(Protocol):
    """Reads an open file; samples are float32, shape (time, channel)."""

    sample_rate: int
    duration_s: float | None
    frames: int | None

    def blocks(self, frames: int) -> Iterator[Floats]:
        """Yields all samples in order, at most ``frames`` per block."""

    def piece(self, first: int, count: int) -> Floats:
        """Seeks and reads; only where ``frames`` is known."""

    def faults(self, samples_read: int) -> list[str]:
        """Warnings, once everything has been read."""


class AudioStream:
    """An open recording, read once from start to end; a context manager.

    Attributes:
        path: The path as given, "-" for standard input, or "audio data" for bytes.
        sample_rate: In Hz.
        duration_s: Duration stated in the header, in seconds, or None; the file may hold fewer samples.
        warnings: Warnings, one line each; complete when the last block has been read.
        samples_read: Number of mono samples returned so far.
    """

    def __init__(self, path: str, label: str, reader: Reader, resources: ExitStack) -> None:
        self.path = path
        self.sample_rate = reader.sample_rate
        self.duration_s = reader.duration_s
        self.warnings: list[str] = []
        self.samples_read = 0
        self._label = label
        self._reader = reader
        self._resources = resources

    def blocks(self, frames: int | None = None) -> Iterator[Floats]:
        """Reads the remaining samples, averaged over the channels.

        Args:
            frames: Maximum samples per block; default: one second, at most 65536.

        Yields:
            float32, shape (time,), 1 to ``frames`` samples.

        Raises:
            AudioError: If a sample is NaN or infinite, or the recording is empty.
        """
        count = frames or max(1, min(self.sample_rate, _LONGEST_BLOCK))
        for block in self._reader.blocks(count):
            mono = _mix(block)
            check_finite(mono, self.samples_read, self.sample_rate, self._label)
            self.samples_read += mono.size
            yield mono
        if not self.samples_read:
            raise AudioError(
                f"{self._label}: no samples could be read: the recording is empty, or cut off before them"
            )
        self.warnings += self._reader.faults(self.samples_read)

    @property
    def samples(self) -> int | None:
        """Number of samples, where the header states it and the format allows seeking; else None."""
        return self._reader.frames

    def piece(self, first: int, count: int) -> Floats:
        """Reads a section without decoding what precedes it; only where ``samples`` is known.

        Decoders with memory (MP3, Vorbis, Opus) start a little earlier, so that the result equals that of
        reading everything: within 1e-6 for these, exactly for others.

        Args:
            first: First sample.
            count: Number of samples.

        Returns:
            float32, shape (time,), fewer than ``count`` samples where the recording is cut off.

        Raises:
            AudioError: If a sample is NaN or infinite.
        """
        block = self._reader.piece(first, count)
        mono = block[:, 0] if block.shape[1] == 1 else _mix(block)
        check_finite(mono, first, self.sample_rate, self._label)
        return mono

    def close(self) -> None:
        """Closes the file, unless the caller opened it."""
        self._resources.close()

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_audio(source: Source) -> AudioStream:
    """Opens a recording.

    Args:
        source: A path, "-" for standard input, the bytes of a file, or an open binary file (read from its
            start; copied to a temporary file if it cannot seek).

    Returns:
        The stream, for use in a ``with`` statement.

    Raises:
        AudioError: If the file is missing, unreadable, empty, not audio, or of a format that needs PyAV where
            that is not installed.
    """
    path, label = path_and_label(source)
    with ExitStack() as resources:
        try:
            handle = open_source(source, resources)
            reader = _open_reader(source, handle, label, resources)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it, a file that is closed
            raise AudioError(f"{label}: {reason(error)}") from error
        return AudioStream(path, label, reader, resources.pop_all())


def load_audio(source: Source, target_rate: int) -> tuple[Floats, list[str]]:
    """Reads a whole recording into memory, resampled.

    Args:
        source: As in :func:`open_audio`.
        target_rate: Sample rate of the result, in Hz.

    Returns:
        float32, shape (time,), at least one sample; and warnings, one line each.

    Raises:
        AudioError: If the recording cannot be read, is empty, or has NaN or infinite samples.
    """
    with open_audio(source) as stream:
        waveform = np.concatenate(list(resample_blocks(stream.blocks(), stream.sample_rate, target_rate)))
        return waveform, stream.warnings


def load_piece(
    source: Source, target_rate: int, length: int, start: Callable[[int], int]
) -> tuple[Floats, list[str]]:
    """Reads a section of a recording without decoding the rest, where the format allows seeking.

    Args:
        source: As in :func:`open_audio`.
        target_rate: Sample rate of the result, in Hz.
        length: Number of samples at that rate.
        start: Maps the number of excess samples, above 0, to the first sample of the section.

    Returns:
        float32, shape (time,): ``length`` samples, or the whole recording where it is shorter; and warnings
        where the recording had to be read completely.

    Raises:
        AudioError: As :func:`load_audio`.
    """
    with open_audio(source) as stream:
        if stream.samples is not None:
            wanted = cut_piece(stream.piece, stream.samples, stream.sample_rate, target_rate, length, start)
            if wanted is not None:
                return wanted, []
    waveform, warnings = load_audio(source, target_rate)
    excess = len(waveform) - length
    first = start(excess) if excess > 0 else 0
    return waveform[first : first + length] if excess > 0 else waveform, warnings


def check_finite(waveform: Floats, first_sample: int, sample_rate: float, label: str) -> None:
    """Checks samples for NaN and infinity.

    Args:
        waveform: float32, shape (time,).
        first_sample: Its position in the recording, in samples.
        sample_rate: In Hz.
        label: Name of the recording, for the error.

    Raises:
        AudioError: If a sample is NaN or infinite; names the first one.
    """
    is_finite = np.isfinite(waveform)
    if is_finite.all():
        return
    index = int(is_finite.argmin())
    what = "not a number (NaN)" if np.isnan(waveform[index]) else "infinite"
    at = first_sample + index
    raise AudioError(f"{label}: sample {at}, at {at / sample_rate:.3f} s, is {what}")


def _open_reader(source: Source, handle: BinaryIO, label: str, resources: ExitStack) -> Reader:
    if not handle.seek(0, os.SEEK_END):
        raise AudioError(f"{label}: the file is empty (0 bytes)")
    suffix = os.path.splitext(label)[1]
    by_magic, by_suffix = ffmpeg_format(handle, suffix)
    if by_magic:
        return open_av(handle, by_magic, label, resources)
    try:
        return open_sound_file(source, handle, suffix, resources)
    except soundfile.LibsndfileError as error:
        if by_suffix:
            return open_av(handle, by_suffix, label, resources)
        if error.code == _UNKNOWN_FORMAT:
            raise AudioError(f"{label}: not a format that libsndfile reads") from error
        reported = error.error_string.strip().rstrip(".")
        raise AudioError(
            f"{label}: damaged, or cut off before the first sample (libsndfile: {reported})"
        ) from error


def _mix(block: Floats) -> Floats:
    """Mean over the channels, one by one: thirty times as fast as NumPy's mean over a short axis."""
    mono = block[:, 0].copy()
    if block.shape[1] > 1:
        with np.errstate(invalid="ignore", over="ignore"):  # reported by check_finite
            for channel in range(1, block.shape[1]):
                mono += block[:, channel]
        mono *= np.float32(1 / block.shape[1])
    return mono
