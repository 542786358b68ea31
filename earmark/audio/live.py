"""Streams that are listened to as they come: raw samples, or any format that needs no seeking.

Conventions: a source yields float32 samples in [-1, 1], shape (time,) or (time, channel), as soon as they are
there, and :class:`Lost` where some are missing. A source waits for its samples, and where it can, for those
who take them.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.audio.formats import ALLOWED, check_format
from earmark.audio.mixing import Levels, Mixer
from earmark.audio.pcm_reader import decode
from earmark.audio.sources import first_line, reason
from earmark.errors import AudioError

Floats = NDArray[np.float32]

ENCODINGS = {
    "s16le": "<i2",
    "s16be": ">i2",
    "s24le": "<i3",
    "s24be": ">i3",
    "s32le": "<i4",
    "s32be": ">i4",
    "f32le": "<f4",
    "f32be": ">f4",
    "s8": "<i1",
    "u8": "<u1",
}
"""FFmpeg's names of raw samples -> NumPy's."""
NAME = "standard input"
_READ_BYTES = 1 << 16
_POLL_S = 0.1
"""How often a stream that waits looks whether it was stopped."""
_LONGEST_END_S = 2.0
_TOLERANCE_S = 0.05
"""How far time stamps may be ahead of the samples."""
_WAITING = 16
"""Blocks that a thread reads ahead."""


class Lost(NamedTuple):
    """Samples that are missing from a stream: how many, and why in a few words."""

    samples: int
    reason: str


class LiveSource(Protocol):
    """A stream that comes in.

    Attributes:
        name: For messages.
        sample_rate: In Hz.
    """

    name: str
    sample_rate: int

    def blocks(self) -> Iterator[Floats | Lost]:
        """Yields the samples as they come."""

    def stop(self) -> None:
        """Ends the blocks soon; may be called by another thread."""


class RawStream:
    """Samples without a header.

    Args:
        file: Where the bytes come from.
        sample_rate: In Hz.
        channels: Interleaved.
        encoding: One of :data:`ENCODINGS`.

    Raises:
        AudioError: If rate, channels or encoding are not possible.
    """

    name = NAME

    def __init__(self, file: BinaryIO, sample_rate: int, channels: int = 1, encoding: str = "s16le") -> None:
        if encoding not in ENCODINGS:
            raise AudioError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}")
        _check(self.name, sample_rate, channels)
        self.sample_rate = sample_rate
        self._file, self._channels, self._encoding = _Incoming(file), channels, ENCODINGS[encoding]

    def stop(self) -> None:
        """Ends the blocks soon."""
        self._file.stop()

    def blocks(self) -> Iterator[Floats | Lost]:
        """Yields what has come, float32 (time, channel).

        Raises:
            AudioError: If the stream ends within a sample.
        """
        size = int(self._encoding[2:]) * self._channels
        rest = b""
        while content := self._file.read(_READ_BYTES):
            content = rest + content
            whole = len(content) // size * size
            rest = content[whole:]
            if whole:
                yield decode(content[:whole], self._encoding).reshape(-1, self._channels)
        if rest and not self._file.is_stopped:
            raise AudioError(
                f"{self.name}: ends {len(rest)} bytes into a sample of {size} bytes: "
                "are encoding and channels right?"
            )


class DecodedStream:
    """A stream in a format that FFmpeg decodes without seeking, such as WAV, MP3, AAC, Ogg, FLAC or MPEG-TS.

    Args:
        file: Where the bytes come from.

    Raises:
        AudioError: If it has no sound in a format that can be read.
    """

    name = NAME

    def __init__(self, file: BinaryIO) -> None:
        import av

        from earmark.audio.av_reader import FLAC_OPTIONS

        self._file = _Incoming(file)
        self._errors = (av.FFmpegError, ValueError, OverflowError, MemoryError)
        options = {"format_whitelist": ALLOWED}
        try:
            self._container: Any = av.open(
                self._file, options=options, metadata_errors="ignore", buffer_size=4096
            )
        except self._errors as error:
            raise AudioError(
                f"{self.name}: not a stream that can be read without seeking; for raw samples give their rate"
            ) from error
        tracks = self._container.streams.audio
        if not tracks or tracks[0].codec_context is None:
            self._container.close()
            raise AudioError(f"{self.name}: has no audio track that can be decoded")
        self._track = tracks[0]
        if self._track.codec_context.name == "flac":
            self._track.codec_context.options = FLAC_OPTIONS
        self.sample_rate = int(self._track.codec_context.sample_rate)
        _check(self.name, self.sample_rate, self._track.codec_context.channels)

    def blocks(self) -> Iterator[Floats | Lost]:
        """Yields what has come, float32 (time,), at the first rate.

        Where time stamps jump ahead, or packets cannot be decoded, samples are lost.

        Raises:
            AudioError: If the stream breaks off.
        """
        from earmark.audio.av_reader import samples_of

        mixer: Mixer | None = None
        for frame, missing_s in self._frames():
            if missing_s:
                yield Lost(round(missing_s * self.sample_rate), "they did not arrive, or were damaged")
            for block in samples_of(frame):
                kind = (frame.sample_rate, len(block))
                if mixer is None or mixer.kind != kind:
                    yield from mixer.finish() if mixer else ()
                    mixer = Mixer(*kind, self.sample_rate, Levels())
                yield from mixer.push(block)
        if mixer:
            yield from mixer.finish()

    def _frames(self) -> Iterator[tuple[Any, float]]:
        """Each frame, and the seconds that are missing before it."""
        codec = self._track.codec_context
        failed_s = 0.0
        next_s: float | None = None
        for packet in self._packets():
            try:
                frames = codec.decode(packet)
            except self._errors:
                failed_s += float((packet.duration or 0) * (packet.time_base or 0))
                continue
            for frame in frames:
                ahead_s = 0.0 if frame.time is None or next_s is None else frame.time - next_s
                yield frame, ahead_s if ahead_s > _TOLERANCE_S else failed_s
                known_s = next_s if frame.time is None else frame.time
                failed_s = 0.0
                next_s = None if known_s is None else known_s + frame.samples / frame.sample_rate

    def stop(self) -> None:
        """Ends the blocks soon."""
        self._file.stop()

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._track)
        except self._errors as error:
            raise AudioError(f"{self.name}: the stream broke off ({first_line(error)})") from error
        finally:
            self._container.close()


class _Incoming:
    """A file that can only be read from, returns what is there, and can be stopped while it waits.

    Args:
        file: A pipe, socket or terminal can be stopped where the system can wait for it (not on Windows); it
            should be unbuffered.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.is_stopped = False
        try:
            self._number = None if os.name == "nt" else file.fileno()
        except (OSError, ValueError):
            self._number = None

    def stop(self) -> None:
        self.is_stopped = True

    def read(self, size: int) -> bytes:
        """At least one byte, as many as are there up to a size; none at the end."""
        read: Any = getattr(self._file, "read1", self._file.read)
        try:
            while not self.is_stopped:
                if self._number is None or select.select([self._number], [], [], _POLL_S)[0]:
                    return read(size) or b""
        except OSError as error:
            raise AudioError(f"{NAME}: {reason(error)}") from error
        return b""


def _check(name: str, sample_rate: int, channels: int) -> None:
    try:
        check_format(sample_rate, channels)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from None


class ReadingThread:
    """Reads a source in a thread, so that waiting for it can be interrupted; a context manager.

    Args:
        source: Its blocks run in the thread.
    """

    def __init__(self, source: LiveSource) -> None:
        self._source = source
        self._items: queue.Queue[Floats | Lost | Exception | None] = queue.Queue(_WAITING)
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="earmark-live", daemon=True)
        self._thread.start()

    def __enter__(self) -> ReadingThread:
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the source and waits for the thread, but not for a source that cannot be stopped."""
        self._source.stop()
        end = time.monotonic() + _LONGEST_END_S
        while self._thread.is_alive() and time.monotonic() < end:
            with suppress(queue.Empty):  # a full queue would hold up the thread
                self._items.get(timeout=_POLL_S)

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended and all of it was returned."""
        return self._is_over

    def get(self, timeout_s: float) -> Floats | Lost | None:
        """Returns the next block; None if there is none within a time, or the stream is over.

        Raises:
            Exception: What the source raised.
        """
        try:
            item = None if self._is_over else self._items.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self._is_over = item is None or isinstance(item, Exception)
        if isinstance(item, Exception):
            raise item
        return item

    def _run(self) -> None:
        try:
            for block in self._source.blocks():
                self._items.put(block)
            self._items.put(None)
        except Exception as error:  # raised again where it can be handled
            self._items.put(error)
