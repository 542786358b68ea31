"""Reads sections of recordings without decoding what precedes them.

Uncompressed samples are read where they are, FLAC through libsndfile, which seeks to a sample, and MP3 frame
by frame. Only files whose header agrees with their bytes have sections: its count of samples is right, and
seeking safe. (libsndfile crashes when it seeks in a damaged Ogg file, so Ogg is decoded from its start.)

Conventions: samples are float32, shape (channel, time); positions are bytes or samples.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from earmark.audio.formats import check_format, extent, format_of, mp3_info
from earmark.audio.mixing import SEGMENT, Levels, check_finite, mix_all
from earmark.audio.pcm_header import read_header
from earmark.audio.pcm_reader import PcmReader
from earmark.audio.sources import ByteRange
from earmark.audio.tags import end_without_tags, skip_tags
from earmark.errors import AudioError

Floats = NDArray[np.float32]
_LONGEST_MP3 = 1 << 26
"""Bytes of an mp3 up to which it is read into memory."""


class _Seekable(Protocol):
    sample_rate: int
    channels: int
    samples: int

    def read(self, first: int, count: int) -> Floats:
        """Samples, float32 (channel, time); fewer where the file ends."""


class Section:
    """An open recording of which sections are read.

    Attributes:
        sample_rate: In Hz.
        samples: Number of samples.
    """

    def __init__(self, reader: _Seekable, label: str) -> None:
        self.sample_rate, self.samples = reader.sample_rate, reader.samples
        self._reader, self._label = reader, label

    def mono(self, first: int, count: int) -> Floats:
        """Reads a section, mixed as when the whole is read.

        Args:
            first: First sample.
            count: Number of samples.

        Returns:
            float32, shape (time,), ``count`` samples, or fewer where the recording is cut off.

        Raises:
            AudioError: If a sample is NaN or infinite.
        """
        unit = SEGMENT if self._reader.channels > 1 else 1
        begin, end = first // unit * unit, min(self.samples, -(-(first + count) // unit) * unit)
        block = self._reader.read(begin, end - begin)
        check_finite(block, begin, self.sample_rate, self._label)
        return mix_all(block, self.sample_rate, Levels())[first - begin :][:count] if block.size else block[0]


def open_section(file: ByteRange, label: str, resources: ExitStack) -> Section | None:
    """Opens a recording for reading sections.

    Args:
        file: The file.
        label: Name of the recording, for errors.
        resources: Closes what is opened.

    Returns:
        The recording, or None where its header does not agree with the file, or its format has no sections.
    """
    file = file.part(skip_tags(file, 0))
    header = read_header(file)
    reader: _Seekable | None = None
    try:
        if header:
            if header.format.encoding and header.size == header.stated and _is_all(file, header.end):
                check_format(header.format.sample_rate, header.format.channels)
                reader = PcmReader(file, header)
        elif format_of(file) == "flac":
            if _is_all(file, extent(file, "flac").end):
                reader = _Flac(file, resources)
        elif mp3_info(file)[0] and file.size <= _LONGEST_MP3:
            from earmark.audio.mp3_frames import Mp3Frames  # FFmpeg takes time to load

            reader = Mp3Frames(file.read_at(0, end_without_tags(file)))
    except (AudioError, ValueError, soundfile.LibsndfileError):
        return None  # reading the whole reports it
    return Section(reader, label) if reader and 0 < reader.samples < 1 << 62 else None


def _is_all(file: ByteRange, end: int) -> bool:
    return skip_tags(file, end) >= file.size


class _Flac:
    """A FLAC file that libsndfile seeks in."""

    def __init__(self, file: ByteRange, resources: ExitStack) -> None:
        self._sound: Any = resources.enter_context(_Forward(file))
        self.sample_rate, self.channels = int(self._sound.samplerate), int(self._sound.channels)
        self.samples = int(self._sound.frames)
        check_format(self.sample_rate, self.channels)

    def read(self, first: int, count: int) -> Floats:
        try:
            self._sound.seek(first)
            block: Floats = self._sound.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            return np.zeros((self.channels, 0), np.float32)
        return block.T


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read without the seek that soundfile otherwise makes after each block."""

    def seekable(self) -> bool:
        """Always False."""
        return False
