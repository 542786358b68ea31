"""Where FLAC and Vorbis streams end, which FFmpeg does not tell.

Conventions: frames of samples are a rate in Hz and float32, shape (channel, time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

Frame = tuple[int, NDArray[np.float32]]
_LONGEST_VORBIS_BLOCK = 8192


def bytes_after_flac(packet: bytes, is_frame: Callable[[bytes], bool]) -> int:
    """Counts the bytes that follow the frame in the last packet of a FLAC file.

    Source: RFC 9639, section 9.3: the checksum of a frame that includes its own is 0.

    Args:
        packet: The packet: FFmpeg takes everything up to the end of the file for the last frame.
        is_frame: Whether bytes are a whole frame; asked where the checksum, of 16 bits, is 0.

    Returns:
        The number; 0 if the packet holds no whole frame.
    """
    table = _checksums()
    checksum = 0
    ends = []
    for at, byte in enumerate(packet, start=1):
        checksum = (checksum << 8 & 0xFF00) ^ table[checksum >> 8 ^ byte]
        if not checksum:
            ends.append(at)
    if ends == [len(packet)]:
        return 0
    return next((len(packet) - end for end in ends if is_frame(packet[:end])), 0)


@cache
def _checksums() -> tuple[int, ...]:
    """The checksum of each byte: polynomial 0x8005."""
    values = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x8005 if value & 0x8000 else 0)) & 0xFFFF
        values.append(value)
    return tuple(values)


def exact_vorbis(frames: Iterator[Frame], samples: int) -> Iterator[Frame]:
    """The frames of a Vorbis stream without what its decoder returns before its start and beyond its end.

    FFmpeg itself drops a block too many where the stream is a single page, up to 3 s.

    Args:
        frames: All frames that were decoded; the first one precedes the stream.
        samples: Length of the stream by its last page; where more than a block follows, that page is wrong.
    """
    next(frames, None)
    beyond: list[Frame] = []
    count = 0
    for rate, frame in frames:
        inside = max(0, min(frame.shape[1], samples - count))
        count += frame.shape[1]
        if inside:
            yield rate, frame[:, :inside]
        if inside < frame.shape[1]:
            beyond.append((rate, frame[:, inside:]))
        if count > samples + _LONGEST_VORBIS_BLOCK:
            yield from beyond
            beyond = []
