"""Decodes recordings of any format to mono float32 samples, block by block.

Conventions: samples are float32 ``(time,)``: in [-1, 1] for integer formats, unscaled for float formats;
several channels are averaged. A file is read to its last byte: recordings joined in one file follow each
other, and where bytes are left that are neither sound nor a tag, or the file is damaged or cut off,
``AudioStream.warnings`` says so. One that cannot be read at all raises an AudioError. Errors and warnings are
one line and start with the path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.audio.formats import begins_recording, check_format
from earmark.audio.mixing import Levels, mixed
from earmark.audio.pcm_header import read_header
from earmark.audio.pcm_reader import PcmReader
from earmark.audio.resample import cut_piece, resample_blocks
from earmark.audio.sources import ByteRange, Source, open_source, path_and_label, reason
from earmark.audio.tags import skip_tags
from earmark.errors import AudioError

Floats = NDArray[np.float32]


class Reader(Protocol):
    """Reads the recording at the start of a file, which others may follow."""

    sample_rate: int
    duration_s: float | None
    end: int
    """Position of the first byte that is not part of the recording."""
    faults: list[str]
    """How it is not whole; complete when everything has been read."""
    notes: list[str]
    """What else is worth knowing."""

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yields all samples in order: rate in Hz, and float32 (channel, time)."""


class AudioStream:
    """An open recording, read once from start to end; a context manager.

    Attributes:
        path: The path as given, "-" for standard input, or "audio data" for bytes.
        sample_rate: In Hz; where the rate changes within a recording, its first one.
        duration_s: Duration stated in the header (of the first of several joined recordings), in seconds, or
            None; the file may hold fewer samples.
        warnings: One line each, starting with the path; complete when the last block has been read.
        is_whole: Whether all of the recording could be read; known when the last block has been read.
        samples_read: Number of mono samples returned so far.
    """

    def __init__(self, path: str, label: str, file: ByteRange, resources: ExitStack) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.is_whole = True
        self.samples_read = 0
        self._label, self._file, self._resources = label, file, resources
        self._suffix = os.path.splitext(path)[1].lower()
        self._at = skip_tags(file, 0)
        self._levels = Levels()
        try:
            self._reader = self._open_reader()
        except AudioError as error:
            raise AudioError(f"{label}: {error}") from error.__cause__
        self.sample_rate = self._reader.sample_rate
        self.duration_s = self._reader.duration_s

    def blocks(self, frames: int | None = None) -> Iterator[Floats]:
        """Reads the remaining samples, averaged over the channels.

        Args:
            frames: Samples of each block but the last; default: what the decoder returns at once.

        Yields:
            float32, shape (time,), at least one sample.

        Raises:
            AudioError: If a sample is NaN or infinite, or the recording is empty.
        """
        mono = mixed(self._parts(), self.sample_rate, self._levels, self._label)
        for block in _regrouped(mono, frames) if frames else mono:
            self.samples_read += block.size
            yield block
        if not self.samples_read:
            raise AudioError(
                f"{self._label}: no samples could be read: the recording is empty, or cut off before them"
            )
        self._note(self._levels.notes())

    def close(self) -> None:
        """Closes the file, unless the caller opened it."""
        self._resources.close()

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _parts(self) -> Iterator[tuple[int, Floats]]:
        """All samples of the file: of one recording after the other."""
        while True:
            yield from self._reader.blocks()
            self._note(self._reader.faults, is_whole=not self._reader.faults)
            self._note(self._reader.notes)
            self._at = skip_tags(self._file, self._at + self._reader.end)
            left = self._file.size - self._at
            if left <= 0:
                return
            try:
                if not begins_recording(self._file.part(self._at)):
                    raise AudioError("no recording begins there")
                self._reader = self._open_reader()
            except AudioError:
                self._note(
                    [f"the last {left} bytes of the file were not read: they are in no known format"], False
                )
                return

    def _open_reader(self) -> Reader:
        """Opens the recording that begins at ``_at``; errors do not name the file."""
        file = self._file.part(self._at)
        header = read_header(file)
        if header and header.format.encoding:
            check_format(header.format.sample_rate, header.format.channels)
            return PcmReader(file, header)
        # FFmpeg takes time to load, and plain WAV does not need it.
        from earmark.audio.av_reader import AvReader

        reader = AvReader(file, self._suffix, header)
        self._resources.callback(reader.close)
        check_format(reader.sample_rate, reader.channels)
        return reader

    def _note(self, lines: list[str], is_whole: bool = True) -> None:
        self.is_whole = self.is_whole and is_whole
        self.warnings += [f"{self._label}: {line}" for line in lines]


def open_audio(source: Source) -> AudioStream:
    """Opens a recording.

    Args:
        source: A path, "-" for standard input, the bytes of a file, or an open binary file (read from its
            start; copied to a temporary file if it cannot seek).

    Returns:
        The stream, for use in a ``with`` statement.

    Raises:
        AudioError: If the file is missing, unreadable, empty or not audio.
    """
    path, label = path_and_label(source)
    resources = ExitStack()
    try:
        return AudioStream(path, label, _open_file(source, label, resources), resources)
    except BaseException:
        resources.close()
        raise


def load_audio(source: Source, target_rate: int, whole: bool = False) -> tuple[Floats, list[str]]:
    """Reads a whole recording into memory, resampled.

    Args:
        source: As in :func:`open_audio`.
        target_rate: Sample rate of the result, in Hz.
        whole: Whether to refuse a recording that could not be read to its end.

    Returns:
        float32, shape (time,), at least one sample; and warnings, one line each, starting with the path.

    Raises:
        AudioError: If the recording cannot be read, is empty, has NaN or infinite samples, or is to be whole
            and is not.
    """
    with open_audio(source) as stream:
        waveform = np.concatenate(list(resample_blocks(stream.blocks(), stream.sample_rate, target_rate)))
        if whole and not stream.is_whole:
            raise AudioError(stream.warnings[0])
        return waveform, stream.warnings


def load_piece(
    source: Source, target_rate: int, length: int, start: Callable[[int], int], whole: bool = False
) -> tuple[Floats, list[str]]:
    """Reads a section of a recording, without decoding the rest where that is safe.

    Safe are uncompressed samples, FLAC and MP3 whose headers agree with the file; others are decoded from
    their start, because a decoder may crash when it seeks in a damaged file.

    Args:
        source: As in :func:`open_audio`.
        target_rate: Sample rate of the result, in Hz.
        length: Number of samples at that rate.
        start: Maps the number of excess samples, above 0, to the first sample of the section.
        whole: As in :func:`load_audio`.

    Returns:
        float32, shape (time,): ``length`` samples, or the whole recording where it is shorter; and warnings
        where the recording had to be read completely.

    Raises:
        AudioError: As :func:`load_audio`.
    """
    # Only trainings need libsndfile, which takes time to load.
    from earmark.audio.sections import open_section

    _, label = path_and_label(source)
    with ExitStack() as resources:
        section = open_section(_open_file(source, label, resources), label, resources)
        if section:
            rate, samples = section.sample_rate, section.samples
            wanted = cut_piece(section.mono, samples, rate, target_rate, length, start)
            if wanted is not None:
                return wanted, []
    waveform, warnings = load_audio(source, target_rate, whole)
    excess = len(waveform) - length
    first = start(excess) if excess > 0 else 0
    return waveform[first : first + length] if excess > 0 else waveform, warnings


def _open_file(source: Source, label: str, resources: ExitStack) -> ByteRange:
    try:
        file = open_source(source, resources)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it, a file that is closed
        raise AudioError(f"{label}: {reason(error)}") from error
    if not file.size:
        raise AudioError(f"{label}: the file is empty (0 bytes)")
    return file


def _regrouped(blocks: Iterator[Floats], size: int) -> Iterator[Floats]:
    """The same samples in blocks of a size."""
    held: list[Floats] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += block.size
        if count >= size:
            joined = np.concatenate(held)
            whole = count // size * size
            yield from joined[:whole].reshape(-1, size)
            held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)
