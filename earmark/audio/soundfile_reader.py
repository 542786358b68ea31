"""Reads audio through libsndfile: wav, aiff, flac, ogg, mp3 and most other formats.

Conventions: samples are float32, shape (time, channel). libsndfile is silent about truncated files, so that
headers are checked in :mod:`earmark.audio.containers` as well.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from earmark.audio import containers
from earmark.audio.sources import Source

Floats = NDArray[np.float32]

NEVER_COMPLETED = "the header was never completed"
"""Start of a warning that is not about damage: the recorder could not seek back to the start of its file."""
_LEADS = {"MPEG_LAYER_III": 24 * 1152, "VORBIS": 4 * 1152, "OPUS": 24 * 960}
"""Samples after which a decoder's state no longer depends on where it started. An MP3's bit reservoir reaches
back over more frames the smaller they are: measured, 12 are enough at 10 kbit/s. Opus codes band energies as
differences, half of which remain after each 20 ms: measured, 4e-7 after 24 frames."""
_UNCOMPRESSED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU")


class _ForwardSoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read without the seek that soundfile otherwise makes after each block.

    Such a seek resets the MP3 decoder's bit reservoir, and its output drops out.
    """

    def seekable(self) -> bool:
        """Always False."""
        return False


class SoundFileReader:
    """A reader on top of libsndfile."""

    def __init__(self, sound: Any, handle: BinaryIO, extent: containers.Extent | None) -> None:
        self.sample_rate = int(sound.samplerate)
        self._sound = sound
        self._extent = extent
        self._broken = False
        self._lacks_end = containers.ogg_is_cut(handle)
        is_guess = sound.format == "MP3" and not containers.mp3_states_length(handle)
        is_open = sound.frames > 1 << 62  # libsndfile's value for an unknown length
        self.frames = None if is_guess or is_open else int(sound.frames)
        self.duration_s = None if self.frames is None else self.frames / self.sample_rate

    def blocks(self, frames: int) -> Iterator[Floats]:
        """Yields all samples in order, at most ``frames`` per block; each block overwrites the last."""
        buffer = np.empty((frames, self._sound.channels), np.float32)
        fill = self._fill
        if self._sound.subtype == "PCM_16" and self._sound.format in _UNCOMPRESSED:
            integers = np.empty(buffer.shape, np.int16)
            fill = partial(self._fill_from, integers)
        while not self._broken:
            count = fill(buffer)
            if not count:
                return
            yield buffer[:count]

    def piece(self, first: int, count: int) -> Floats:
        """Seeks and reads; fewer samples where the file is cut off."""
        lead = min(first, _LEADS.get(self._sound.subtype, 0))
        buffer = np.empty((lead + count, self._sound.channels), np.float32)
        try:
            self._sound.seek(first - lead)
        except soundfile.LibsndfileError:
            return buffer[:0]
        return buffer[lead : max(lead, self._fill(buffer))]

    def _fill(self, buffer: Floats) -> int:
        """Fills the buffer; where libsndfile fails in between, what it has decoded is kept."""
        untouched = np.float32(-1.5e38)  # a value that no decoder writes
        buffer[:, 0] = untouched
        try:
            return len(self._sound.read(out=buffer, dtype="float32"))
        except soundfile.LibsndfileError:
            self._broken = True
            written = buffer[:, 0] != untouched
            return len(buffer) if written.all() else int(written.argmin())

    def _fill_from(self, integers: NDArray[np.int16], buffer: Floats) -> int:
        """Reads int16 and converts it: ten times as fast as libsndfile's own conversion."""
        try:
            count = len(self._sound.read(out=integers, dtype="int16"))
        except soundfile.LibsndfileError:
            self._broken = True
            return 0
        np.multiply(integers[:count], np.float32(2**-15), out=buffer[:count])
        return count

    def faults(self, samples_read: int) -> list[str]:
        """Warnings, once everything has been read."""
        read_s = samples_read / self.sample_rate
        extent = self._extent
        if extent and extent.promised is None and extent.mending:
            return [f"{NEVER_COMPLETED}: {read_s:.2f} s were found up to the end of the file"]
        wanted = float(self.frames or 0)
        if extent and extent.promised is not None and extent.promised > extent.present:
            wanted = max(wanted, samples_read * extent.promised / extent.present)
        if samples_read < wanted:
            wanted_s = wanted / self.sample_rate
            return [f"the file is cut off: {read_s:.2f} of {wanted_s:.2f} s could be read"]
        if self._lacks_end or self._broken:
            return [f"the file is damaged or cut off: it could be read up to {read_s:.2f} s"]
        return []


def open_sound_file(source: Source, handle: BinaryIO, suffix: str, resources: ExitStack) -> SoundFileReader:
    """Opens a file with libsndfile.

    Args:
        source: What the caller gave.
        handle: The opened source; can seek.
        suffix: Of the file name, such as ".wav".
        resources: Closes the sound file.

    Raises:
        soundfile.LibsndfileError: If libsndfile cannot open it.
    """
    extent = containers.sample_extent(handle)
    head = extent.mended_head(handle) if extent else containers.mp3_info_frame(handle)
    handle.seek(0)
    # libsndfile is fastest on a path; but soundfile treats a path ending in .raw as headerless.
    is_plain = isinstance(handle, io.FileIO) and not head and suffix.lower() != ".raw"
    what = os.fspath(cast(str, source)) if is_plain and isinstance(source, (str, os.PathLike)) else None
    sound = _ForwardSoundFile(what or _without_name(handle, *head or ()))
    resources.enter_context(sound)
    return SoundFileReader(sound, handle, extent)


class View(io.RawIOBase):
    """A handle with another head, its own position, and no name (which can mislead libsndfile).

    Args:
        handle: The file; stays open when the view is closed.
        head: Bytes that come first.
        rest: Position in ``handle`` of the bytes that follow the head.
    """

    def __init__(self, handle: BinaryIO, head: bytes = b"", rest: int = 0) -> None:
        super().__init__()
        self._handle = handle
        self._head = head
        self._shift = rest - len(head)
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As usual, but a position outside the file, from a damaged header, is clipped."""
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += self._handle.seek(0, os.SEEK_END) - self._shift
        self._at = min(max(0, offset), 1 << 62)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As usual."""
        content = self._head[self._at : self._at + len(buffer)]
        content = content or containers.read_at(self._handle, self._at + self._shift, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


class _Memory(io.BytesIO):
    """Bytes in memory whose positions are clipped as those of a :class:`View`."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self.tell()
        elif whence == os.SEEK_END:
            offset += self.getbuffer().nbytes
        return super().seek(min(max(0, offset), 1 << 62))


def _without_name(handle: BinaryIO, head: bytes = b"", rest: int = 0) -> BinaryIO:
    """A handle without a name, and with another head if given.

    libsndfile reads an mp3 144 bytes at a time; from memory that takes a tenth of the time it takes
    from a Python object.
    """
    if isinstance(handle, io.BytesIO):
        return _Memory(head + handle.getvalue()[rest:] if head else handle.getvalue())
    return cast(BinaryIO, View(handle, head, rest))
