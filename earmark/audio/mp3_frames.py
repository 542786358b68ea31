"""Reads sections of MP3 files: the frames that contribute to a section, decoded by FFmpeg.

Sources: ISO/IEC 11172-3 (frame headers); the Info frame of LAME (gabriel.mp3-tech.org/mp3infotag.html).

Conventions: samples are float32, shape (channel, time); positions are bytes or samples.
"""

from __future__ import annotations

import struct
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_LEAD = 48
"""Frames after which a decoder's state no longer depends on where it started. The bit reservoir reaches back
over more frames the smaller they are: measured, 32 are enough at 10 kbit/s."""
_DECODER_DELAY = 528 + 1
_RATES = (44100, 48000, 32000)
_KBITS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
)
_HALVINGS = {3: 0, 2: 1, 0: 2}
"""Version in a frame's header (MPEG 1, 2, 2.5) -> how often its rate is half that of MPEG 1."""


class Mp3Frames:
    """A reader of an MP3 that consists of nothing but frames of one kind, as many as its Info frame counts.

    Args:
        content: The file, without tags.

    Raises:
        ValueError: If it is any other file.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._starts, kinds = _frames(content)
        if len(kinds) != 1 or len(self._starts) < 3:
            raise ValueError("not an MP3 of frames of one kind")
        (self.sample_rate, self.channels, self._frame_samples) = kinds.pop()
        first, count = self._starts[1], len(self._starts) - 2  # without the Info frame, and the end
        stated, start, end = _info(content[:first])
        if stated != count:
            raise ValueError(f"the Info frame states {stated} frames, there are {count}")
        self._skip = start + _DECODER_DELAY
        self.samples = count * self._frame_samples - self._skip - max(0, end - _DECODER_DELAY)

    def read(self, first: int, count: int) -> Floats:
        """Reads ``count`` samples from the sample ``first`` on; fewer where a frame is damaged."""
        begin = max(0, (first + self._skip) // self._frame_samples - _LEAD)
        end = -(-(first + count + self._skip) // self._frame_samples)
        decoder: Any = av.CodecContext.create("mp3float", "r")
        decoded = np.zeros((self.channels, (end - begin) * self._frame_samples), np.float32)
        offset = first + self._skip - begin * self._frame_samples
        for number in range(begin, end):
            at = (number - begin) * self._frame_samples
            frame = self._content[self._starts[number + 1] : self._starts[number + 2]]
            try:
                (samples,) = (one.to_ndarray() for one in decoder.decode(av.Packet(frame)))
                decoded[:, at : at + self._frame_samples] = samples
            except (av.FFmpegError, ValueError):
                if at + self._frame_samples > offset:  # the first ones may lack what precedes them
                    return decoded[:, offset : max(offset, at)]
        return decoded[:, offset : offset + count]


def _frames(content: bytes) -> tuple[list[int], set[tuple[int, int, int]]]:
    """Where each frame starts and the last one ends; and sample rates, channels and samples of a frame.

    Raises:
        ValueError: If there is anything but frames of layer III.
    """
    starts, kinds, at = [0], set(), 0
    while at < len(content):
        length, kind = parse_head(content[at : at + 4])
        kinds.add(kind)
        at += length
        starts.append(at)
    if at != len(content):
        raise ValueError("the last frame is cut off")
    return starts, kinds


def parse_head(head: bytes) -> tuple[int, tuple[int, int, int]]:
    """The bytes of a frame by its first 4, and its sample rate, channels and samples.

    Raises:
        ValueError: If this is no frame of layer III.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        raise ValueError("no frame of layer III")
    version, kbits, rate, padding = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or kbits in (0, 15) or rate == 3:
        raise ValueError("a damaged frame")
    is_mpeg_1 = version == 3
    sample_rate = _RATES[rate] >> _HALVINGS[version]
    length = (144 if is_mpeg_1 else 72) * 1000 * _KBITS[is_mpeg_1][kbits] // sample_rate + padding
    return length, (sample_rate, 1 if head[3] & 0xC0 == 0xC0 else 2, 1152 if is_mpeg_1 else 576)


def _info(frame: bytes) -> tuple[int, int, int]:
    """The number of frames, and the samples that the encoder added at the start and at the end.

    Raises:
        ValueError: If this is not an Info frame of LAME or FFmpeg, which alone state these.
    """
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    flags = struct.unpack(">I", frame[at + 4 : at + 8])[0] if 0 <= at <= len(frame) - 8 else 0
    program = at + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2
    if not flags & 1 or frame[program : program + 4] not in (b"LAME", b"Lavf", b"Lavc"):
        raise ValueError("no Info frame")
    delays = int.from_bytes(frame[program + 21 : program + 24], "big")
    return struct.unpack(">I", frame[at + 8 : at + 12])[0], delays >> 12, delays & 0xFFF
