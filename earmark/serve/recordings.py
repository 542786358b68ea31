"""Uploads as recordings: opened, decoded block by block, and stopped at the limits.

Conventions: nothing of a request names a file of the server. An upload is bytes in memory or in a temporary
file without a name; FFmpeg reads it through Python, with a list of formats that open no other file.
"""

from __future__ import annotations

import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from earmark.audio import AudioStream, open_audio
from earmark.audio.formats import check_format
from earmark.errors import AudioError
from earmark.serve.errors import RequestError
from earmark.serve.limits import SPOOL_BYTES

Floats = NDArray[np.float32]

PCM_ENCODINGS = {"s16le": (1, 16, "<i2"), "f32le": (3, 32, "<f4")}
"""Raw samples: format tag and bits of a WAV file, and NumPy's name."""
_HEADER = 44
_LONGEST_BLOCK = 1 << 16
"""Samples after which the limits are checked; at low rates those of a second."""
NAME = "upload"
"""How messages call the recording."""


class PcmFormat(NamedTuple):
    """How raw samples are to be read."""

    rate: int
    channels: int
    encoding: str

    @property
    def frame_bytes(self) -> int:
        """Bytes of a sample of all channels."""
        return PCM_ENCODINGS[self.encoding][1] // 8 * self.channels


def pcm_format(rate: int, channels: int, encoding: str) -> PcmFormat:
    """Checks a format of raw samples.

    Raises:
        RequestError: If it is not possible.
    """
    if encoding not in PCM_ENCODINGS:
        raise RequestError(415, f"format must be one of {', '.join(PCM_ENCODINGS)}, got {encoding!r}")
    try:
        check_format(rate, channels)
    except AudioError as error:
        raise RequestError(415, f"raw samples: {error}") from None
    return PcmFormat(rate, channels, encoding)


class Upload(tempfile.SpooledTemporaryFile[bytes]):
    """The bytes of a recording, in memory while they are few.

    Args:
        pcm: The format of raw samples; None: the bytes are a file.
    """

    name = NAME

    def __init__(self, pcm: PcmFormat | None = None) -> None:
        super().__init__(SPOOL_BYTES)
        self.size, self._pcm = 0, pcm
        if pcm:
            super().write(bytes(_HEADER))

    def add(self, content: bytes) -> None:
        """Adds the next bytes."""
        super().write(content)
        self.size += len(content)

    def complete(self) -> None:
        """Checks what has come, and gives raw samples a header.

        Raises:
            RequestError: If there is nothing, or a part of a sample.
        """
        if not self.size:
            raise RequestError(400, "the body is empty: send a recording", "empty_body")
        if self._pcm:
            rest = self.size % self._pcm.frame_bytes
            if rest:
                raise RequestError(
                    400,
                    f"the body ends {rest} bytes into a sample of {self._pcm.frame_bytes} bytes: are format "
                    "and channels right?",
                    "partial_sample",
                )
            self.seek(0)
            super().write(_wav_header(self._pcm, self.size))
        self.seek(0)


def _wav_header(pcm: PcmFormat, size: int) -> bytes:
    tag, bits, _ = PCM_ENCODINGS[pcm.encoding]
    facts = tag, pcm.channels, pcm.rate, pcm.rate * pcm.frame_bytes % (1 << 32), pcm.frame_bytes, bits
    return struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", size + _HEADER - 8, b"WAVEfmt ", 16, *facts, b"data", size
    )


class Deadline:
    """The end of a request's time; also its end because the client has gone.

    Args:
        seconds: From now.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._end = seconds, time.monotonic() + seconds
        self._is_cancelled = threading.Event()

    @property
    def left_s(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def cancel(self) -> None:
        """Ends the request at the next check."""
        self._is_cancelled.set()

    def check(self) -> None:
        """Raises a RequestError where the time is over."""
        if self._is_cancelled.is_set() or not self.left_s:
            raise self.error()

    def error(self) -> RequestError:
        """The error of a request whose time is over."""
        return RequestError(
            503,
            f"the request took longer than {self._seconds:g} s: send a shorter recording, or try again later",
            "timeout",
            {"Retry-After": "10"},
        )


class LimitedRecording:
    """An open recording that is read up to a duration and a time.

    Args:
        stream: The recording.
        max_duration_s: A longer one is an error as soon as it has been decoded so far.
        deadline: Is checked at every block.
    """

    def __init__(self, stream: AudioStream, max_duration_s: float, deadline: Deadline) -> None:
        self._stream, self._longest_s, self._deadline = stream, max_duration_s, deadline
        self.path, self.sample_rate, self.duration_s = stream.path, stream.sample_rate, stream.duration_s
        self.warnings = stream.warnings

    @property
    def samples_read(self) -> int:
        """Samples that were read so far."""
        return self._stream.samples_read

    def blocks(self) -> Iterator[Floats]:
        """Reads the samples, float32 (time,).

        Raises:
            RequestError: If the recording is too long, or the time is over.
            AudioError: As :meth:`AudioStream.blocks`.
        """
        for block in self._stream.blocks(min(self.sample_rate, _LONGEST_BLOCK)):
            self._deadline.check()
            if self.samples_read > self._longest_s * self.sample_rate:
                raise RequestError(
                    413, f"the recording is longer than {self._longest_s:g} s: send it in parts", "too_long"
                )
            yield block


@contextmanager
def open_upload(upload: Upload, max_duration_s: float, deadline: Deadline) -> Iterator[LimitedRecording]:
    """Opens an upload that is complete.

    Raises:
        RequestError: If it is in no format that can be read.
    """
    deadline.check()
    try:
        stream = open_audio(cast(BinaryIO, upload))
    except AudioError as error:
        raise RequestError(415, str(error)) from None
    with stream:
        yield LimitedRecording(stream, max_duration_s, deadline)
