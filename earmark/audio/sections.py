"""Reads sections of recordings without decoding what precedes them.

Uncompressed samples are read where they are; FLAC and MP3 through libsndfile, which seeks to a sample. Only
files whose header agrees with their bytes have sections: its count of samples is right, and seeking safe.
(libsndfile crashes when it seeks in a damaged Ogg file, so Ogg is decoded from its start.)

Conventions: samples are float32, shape (channel, time); positions are bytes or samples.
"""

from __future__ import annotations

import io
import os
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
_MP3_LEAD = 24 * 1152
"""Samples after which an MP3 decoder's state no longer depends on where it started. Its bit reservoir reaches
back over more frames the smaller they are: measured, 12 are enough at 10 kbit/s."""
_LONGEST_MP3 = 1 << 26
"""Bytes of an mp3 that is read into memory: libsndfile reads it 144 bytes at a time."""
_MP3_RATES = (44100, 48000, 32000)
_MP3_KBITS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
)


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
                reader = _SoundFile(file, 0, resources)
        elif (frames := mp3_info(file)[0]) and file.size <= _LONGEST_MP3:
            content = file.read_at(0, end_without_tags(file))
            if _mp3_frames(content) == 1 + frames:
                reader = _SoundFile(_Memory(content), _MP3_LEAD, resources)
    except (AudioError, soundfile.LibsndfileError):
        return None  # reading the whole reports it
    return Section(reader, label) if reader and 0 < reader.samples < 1 << 62 else None


def _is_all(file: ByteRange, end: int) -> bool:
    return skip_tags(file, end) >= file.size


class _SoundFile:
    """A file that libsndfile seeks in."""

    def __init__(self, file: io.RawIOBase | io.BytesIO, lead: int, resources: ExitStack) -> None:
        self._sound: Any = resources.enter_context(_Forward(file))
        self._lead = lead
        self.sample_rate, self.channels = int(self._sound.samplerate), int(self._sound.channels)
        self.samples = int(self._sound.frames)
        check_format(self.sample_rate, self.channels)

    def read(self, first: int, count: int) -> Floats:
        lead = min(first, self._lead)
        try:
            self._sound.seek(first - lead)
            block: Floats = self._sound.read(lead + count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            return np.zeros((self.channels, 0), np.float32)
        return block[lead:].T


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read without the seek that soundfile otherwise makes after each block.

    Such a seek resets the MP3 decoder's bit reservoir, and its output drops out.
    """

    def seekable(self) -> bool:
        """Always False."""
        return False


class _Memory(io.BytesIO):
    """Bytes in memory; as in :class:`ByteRange`, positions are clipped."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = self.getbuffer().nbytes
        return super().seek(min(max(0, (0, self.tell(), size)[whence] + offset), size))


def _mp3_frames(content: bytes) -> int | None:
    """The number of frames of an MP3, that of its Info frame included; None if it has other bytes too."""
    at, frames = 0, 0
    while at < len(content):
        length = _mp3_frame_length(content[at : at + 4])
        if not length:
            return None
        at, frames = at + length, frames + 1
    return frames if at == len(content) else None


def _mp3_frame_length(head: bytes) -> int:
    """The bytes of a frame of MPEG layer III, by its first 4 bytes (ISO/IEC 11172-3); 0 for anything else."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version = head[1] >> 3 & 3  # 0: MPEG 2.5, 2: MPEG 2, 3: MPEG 1
    kbits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or kbits in (0, 15) or rate == 3:
        return 0
    is_mpeg_1 = version == 3
    sample_rate = _MP3_RATES[rate] >> (0, 0, 1, 2)[3 - version if version else 3]
    return (144 if is_mpeg_1 else 72) * 1000 * _MP3_KBITS[is_mpeg_1][kbits] // sample_rate + padding
