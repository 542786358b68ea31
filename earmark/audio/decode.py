"""Recordings of any kind -> mono float32 samples, block by block.

Conventions: samples are float32 ``(time,)``: [-1, 1] for integer files, for float files as they are, even
beyond. Several channels become their mean. A file that ends too early is read as far as it goes and the
stream's ``warnings`` say so; whatever cannot be read at all is an AudioError of one line that starts with the
path. libsndfile reads most kinds. Where PyAV is installed, it reads those that libsndfile does not know, and
Opus that lies in memory, as of packs, because it is quicker.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from earmark.audio import containers
from earmark.audio.opus import find_opus
from earmark.audio.resample import cut_piece, resample_blocks
from earmark.errors import AudioError

Floats = NDArray[np.float32]
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

NEVER_COMPLETED = "the header was never completed"
"""How a warning begins that is none of damage: a recorder could not go back to the start of its file."""
_LONGEST_BLOCK = 1 << 16
_LEADS = {"MP3": 24 * 1152, "OGG": 4 * 1152}
"""Samples after which coders that remember have forgotten where they started. An MP3's bit reservoir reaches
back over the more frames the smaller they are: measured, 12 are enough at 10 kbit/s."""
_AS_THEY_ARE = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU")
"""Formats that hold samples without a coder, so that none of them is damaged by itself."""
_UNKNOWN_FORMAT = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT


class AudioStream:
    """An open recording that is read once, from start to end; a context manager.

    Attributes:
        path: The path as given, "-" for standard input, or a word for what has no path.
        sample_rate: In Hz.
        duration_s: What the header says, in seconds, or None where it does not; the samples may be fewer.
        warnings: What was odd, one line each; complete when the last block has been read.
        samples_read: Samples given out by now (of the one channel that they became).
    """

    def __init__(self, path: str, label: str, reader: _Reader, resources: ExitStack) -> None:
        self.path = path
        self.sample_rate = reader.sample_rate
        self.duration_s = reader.duration_s
        self.warnings: list[str] = []
        self.samples_read = 0
        self._label = label
        self._reader = reader
        self._resources = resources

    def blocks(self, frames: int | None = None) -> Iterator[Floats]:
        """Reads on, mixing the channels into one.

        Args:
            frames: Samples a block; by default about a second, at most 65536.

        Yields:
            float32, shape (time,), at most ``frames`` samples, none of them empty.

        Raises:
            AudioError: If a sample is NaN or infinite, or the recording turns out to hold none.
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
        """Samples of the recording, where its header tells and any of them can be gone to; else None."""
        return self._reader.frames

    def piece(self, first: int, count: int) -> Floats:
        """Reads a piece without what lies before it; for a recording that knows its ``samples``.

        Coders that remember (MP3, Vorbis, Opus) start a little earlier, so that the piece is what reading
        everything would give: exactly for others, within 1e-6 for those.

        Args:
            first: Sample that it begins with.
            count: Samples wanted.

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
        """Closes the file; one that was handed in open stays open."""
        self._resources.close()

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Reader(Protocol):
    sample_rate: int
    duration_s: float | None
    frames: int | None  # that can be gone to

    def blocks(self, frames: int) -> Iterator[Floats]:
        """Samples, shape (time, channel)."""

    def piece(self, first: int, count: int) -> Floats:
        """Some of them."""

    def faults(self, samples_read: int) -> list[str]:
        """What went wrong, now that all has been read."""


def open_audio(source: Source) -> AudioStream:
    """Opens a recording.

    Args:
        source: A path, "-" for standard input, the bytes of a file, or an open binary file (read from its
            start; one that cannot seek is copied to a temporary file first).

    Returns:
        The stream, to be used in a ``with`` statement.

    Raises:
        AudioError: If there is no such file, it may not be read, is empty, no audio, or of a kind that needs
            PyAV where that is not installed.
    """
    path, label = _names(source)
    with ExitStack() as resources:
        try:
            handle = _open_bytes(source, resources)
            reader = _open_reader(source, handle, label, resources)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it, a file that is closed
            raise AudioError(f"{label}: {_reason(error)}") from error
        return AudioStream(path, label, reader, resources.pop_all())


def load_audio(source: Source, target_rate: int) -> tuple[Floats, list[str]]:
    """Reads a whole recording into memory, resampled.

    Args:
        source: As ``open_audio`` takes it.
        target_rate: Rate wanted, in Hz.

    Returns:
        float32, shape (time,), at least one sample; and the warnings, one line each.

    Raises:
        AudioError: If the recording cannot be read, holds no samples, or NaN or infinite ones.
    """
    with open_audio(source) as stream:
        waveform = np.concatenate(list(resample_blocks(stream.blocks(), stream.sample_rate, target_rate)))
        return waveform, stream.warnings


def load_piece(
    source: Source, target_rate: int, length: int, start: Callable[[int], int]
) -> tuple[Floats, list[str]]:
    """Reads a piece of a longer recording without decoding the rest, where its coder allows that.

    Args:
        source: As ``open_audio`` takes it.
        target_rate: Rate wanted, in Hz.
        length: Samples wanted at that rate.
        start: From the samples that are too many, above 0, to the first one that is wanted.

    Returns:
        float32, shape (time,): ``length`` samples, or the whole recording where it is not longer; and the
        warnings about a recording that had to be read whole.

    Raises:
        AudioError: As ``load_audio``.
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
    """Refuses samples that mean nothing.

    Args:
        waveform: float32, shape (time,).
        first_sample: Where it starts within the recording, in samples.
        sample_rate: In Hz.
        label: Of the recording, for the error.

    Raises:
        AudioError: If a sample is NaN or infinite; says which one is the first.
    """
    is_finite = np.isfinite(waveform)
    if is_finite.all():
        return
    index = int(is_finite.argmin())
    what = "not a number (NaN)" if np.isnan(waveform[index]) else "infinite"
    at = first_sample + index
    raise AudioError(f"{label}: sample {at}, at {at / sample_rate:.3f} s, is {what}")


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read without a seek after each block, which soundfile else makes.

    Such a seek makes the MP3 decoder forget the bits that frames borrow from earlier ones: it falls silent.
    """

    def seekable(self) -> bool:
        return False


class _SoundFileReader:
    """What libsndfile reads."""

    def __init__(self, sound: Any, handle: BinaryIO, extent: containers.Extent | None) -> None:
        self.sample_rate = int(sound.samplerate)
        self._sound = sound
        self._extent = extent
        self._broken = False
        self._lacks_end = containers.ogg_is_cut(handle)
        is_guess = sound.format == "MP3" and not containers.mp3_states_length(handle)
        is_open = sound.frames > 1 << 62  # libsndfile's way of saying that the header does not tell
        self.frames = None if is_guess or is_open else int(sound.frames)
        self.duration_s = None if self.frames is None else self.frames / self.sample_rate

    def blocks(self, frames: int) -> Iterator[Floats]:
        buffer = np.empty((frames, self._sound.channels), np.float32)
        fill = self._fill
        if self._sound.subtype == "PCM_16" and self._sound.format in _AS_THEY_ARE:
            whole = np.empty(buffer.shape, np.int16)
            fill = partial(self._fill_from, whole)
        while not self._broken:
            count = fill(buffer)
            if not count:
                return
            yield buffer[:count]

    def piece(self, first: int, count: int) -> Floats:
        lead = min(first, _LEADS.get(self._sound.format, 0))
        buffer = np.empty((lead + count, self._sound.channels), np.float32)
        try:
            self._sound.seek(first - lead)
        except soundfile.LibsndfileError:
            return buffer[:0]
        return buffer[lead : max(lead, self._fill(buffer))]

    def _fill(self, buffer: Floats) -> int:
        """Reads as much as fits; where libsndfile gives up in the middle, what it had decoded is kept."""
        untouched = np.float32(-1.5e38)  # no decoder's sample, so that what was written can be told
        buffer[:, 0] = untouched
        try:
            return len(self._sound.read(out=buffer, dtype="float32"))
        except soundfile.LibsndfileError:
            self._broken = True
            written = buffer[:, 0] != untouched
            return len(buffer) if written.all() else int(written.argmin())

    def _fill_from(self, whole: NDArray[np.int16], buffer: Floats) -> int:
        """Reads the integers that the file holds: libsndfile takes ten times as long to make them floats."""
        try:
            count = len(self._sound.read(out=whole, dtype="int16"))
        except soundfile.LibsndfileError:
            self._broken = True
            return 0
        np.multiply(whole[:count], np.float32(2**-15), out=buffer[:count])
        return count

    def faults(self, samples_read: int) -> list[str]:
        read_s = samples_read / self.sample_rate
        extent = self._extent
        if extent and extent.promised is None and extent.mending:
            return [f"{NEVER_COMPLETED}: {read_s:.2f} s were found up to the end of the file"]
        wanted = float(self.frames or 0)
        if extent and extent.promised is not None and extent.promised > extent.present:
            wanted = max(wanted, samples_read * extent.promised / extent.present)
        if samples_read < wanted:
            return [_cut_off(read_s, wanted / self.sample_rate)]
        if self._lacks_end or self._broken:
            return [f"the file is damaged or cut off: it could be read up to {read_s:.2f} s"]
        return []


class _AvReader:
    """What FFmpeg reads, through PyAV."""

    def __init__(self, container: Any, av: Any, states_length: bool) -> None:
        self._av = av
        self._container = container
        self._stream = container.streams.audio[0]
        self.sample_rate = int(self._stream.rate)
        length_s = container.duration and container.duration / av.time_base
        self.duration_s = length_s if states_length and length_s else None
        self._damage = ""
        self.frames: int | None = None  # FFmpeg cannot go to a sample

    def blocks(self, frames: int) -> Iterator[Floats]:
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
        raise NotImplementedError("FFmpeg's readers go from start to end")

    def _pieces(self) -> Iterator[Floats]:
        """Float samples, shape (time, channel), in the file's own channels: FFmpeg's mix is no mean."""
        resampler = self._av.AudioResampler(format="fltp", rate=self.sample_rate)
        try:
            for frame in self._container.decode(self._stream):
                yield from (piece.to_ndarray().T for piece in resampler.resample(frame))
        except (self._av.FFmpegError, ValueError) as error:
            self._damage = _first_line(error)
        with suppress(self._av.FFmpegError, ValueError):  # what the resampler still holds, if it was ever fed
            yield from (piece.to_ndarray().T for piece in resampler.resample(None) if piece is not None)

    def faults(self, samples_read: int) -> list[str]:
        read_s = samples_read / self.sample_rate
        if (
            self.duration_s and read_s < self.duration_s - 0.1
        ):  # coders' frames end a little beside the stated time
            return [_cut_off(read_s, self.duration_s)]
        return (
            [f"the file is damaged or cut off: it could be read up to {read_s:.2f} s"] if self._damage else []
        )


def _open_reader(source: Source, handle: BinaryIO, label: str, resources: ExitStack) -> _Reader:
    if not handle.seek(0, os.SEEK_END):
        raise AudioError(f"{label}: the file is empty (0 bytes)")
    if isinstance(handle, io.BytesIO) and (opus := find_opus(handle.getvalue())):
        return opus
    suffix = os.path.splitext(label)[1]
    by_magic, by_suffix = containers.ffmpeg_format(handle, suffix)
    if by_magic:
        return _open_av(handle, by_magic, label, resources)
    try:
        return _open_sound_file(source, handle, suffix, resources)
    except soundfile.LibsndfileError as error:
        if by_suffix:
            return _open_av(handle, by_suffix, label, resources)
        if error.code == _UNKNOWN_FORMAT:
            raise AudioError(f"{label}: not a format that libsndfile reads") from error
        reason = error.error_string.strip().rstrip(".")
        raise AudioError(
            f"{label}: damaged, or cut off before the first sample (libsndfile: {reason})"
        ) from error


def _open_sound_file(source: Source, handle: BinaryIO, suffix: str, resources: ExitStack) -> _SoundFileReader:
    extent = containers.sample_extent(handle)
    head = extent.mended_head(handle) if extent else containers.mp3_info_frame(handle)
    handle.seek(0)
    # libsndfile is fastest on the path itself; but soundfile takes a path ending in .raw as headerless.
    is_plain = isinstance(handle, io.FileIO) and not head and suffix.lower() != ".raw"
    what = os.fspath(cast(str, source)) if is_plain and isinstance(source, (str, os.PathLike)) else None
    sound = _Forward(what or _without_name(handle, *head or ()))
    resources.enter_context(sound)
    return _SoundFileReader(sound, handle, extent)


class _Memory(io.BytesIO):
    """Bytes of which a damaged header may ask for any place, as of a :class:`containers.View`."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self.tell()
        elif whence == os.SEEK_END:
            offset += self.getbuffer().nbytes
        return super().seek(min(max(0, offset), 1 << 62))


def _without_name(handle: BinaryIO, head: bytes = b"", rest: int = 0) -> BinaryIO:
    """As :class:`~earmark.audio.containers.View`.

    libsndfile asks for an mp3 144 bytes at a time. Memory answers that without Python: a tenth of the time.
    """
    if isinstance(handle, io.BytesIO):
        return _Memory(head + handle.getvalue()[rest:] if head else handle.getvalue())
    return cast(BinaryIO, containers.View(handle, head, rest))


def _open_av(handle: BinaryIO, kind: str, label: str, resources: ExitStack) -> _AvReader:
    try:
        import av  # optional, and slow to import
    except ImportError as error:
        needed = "reading this kind of file (m4a, mp4, webm, wma ...) needs: pip install 'earmark[ffmpeg]'"
        raise AudioError(f"{label}: {needed}") from error
    handle.seek(0)
    try:
        # The format is fixed here: FFmpeg's guess could be a playlist, which opens other files.
        container = resources.enter_context(av.open(handle, format=kind, metadata_errors="ignore"))
    except av.FFmpegError as error:
        raise AudioError(
            f"{label}: damaged, or cut off before the first sample ({_reason(error)})"
        ) from error
    if not container.streams.audio:
        raise AudioError(f"{label}: the file holds no sound track")
    if not container.streams.audio[0].rate:
        raise AudioError(f"{label}: damaged: its sound track has no sample rate")
    return _AvReader(container, av, states_length=kind in ("mov", "matroska", "asf", "ape", "wv"))


def _open_bytes(source: Source, resources: ExitStack) -> BinaryIO:
    """A handle that can seek; it is closed with the resources unless it is the caller's own."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        if os.fspath(source) == "-":
            return _spool(sys.stdin.buffer, resources)
        handle = resources.enter_context(open(source, "rb", buffering=0))  # noqa: SIM115
        return cast(BinaryIO, handle) if handle.seekable() else _spool(cast(BinaryIO, handle), resources)
    return source if source.seekable() else _spool(source, resources)


def _spool(handle: BinaryIO, resources: ExitStack) -> BinaryIO:
    copy = resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    shutil.copyfileobj(handle, copy, 1 << 16)
    return cast(BinaryIO, copy)


def _names(source: Source) -> tuple[str, str]:
    """The path that results carry, and the printable one that starts each error."""
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
    else:
        path = str(getattr(source, "name", "audio data"))
    label = "standard input" if path == "-" else path
    return path, label if label.isprintable() and label else repr(label)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "this is a directory, not a recording"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    return getattr(error, "strerror", None) or _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _cut_off(read_s: float, wanted_s: float) -> str:
    return f"the file is cut off: {read_s:.2f} of {wanted_s:.2f} s could be read"


def _mix(block: Floats) -> Floats:
    """Mean over the channels, column by column: thirty times as fast as NumPy's mean over a short axis."""
    mono = block[:, 0].copy()
    if block.shape[1] > 1:
        with np.errstate(invalid="ignore", over="ignore"):  # checked for, and said better, right afterwards
            for channel in range(1, block.shape[1]):
                mono += block[:, channel]
        mono *= np.float32(1 / block.shape[1])
    return mono
