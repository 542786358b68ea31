"""Ogg Opus in memory -> any of its samples, by FFmpeg's decoder, which takes a third of libsndfile's time.

Conventions: mono float32 ``(time, 1)`` at 48000 Hz, within 1e-6 what libsndfile gives. This is for whole
files of the common kind; :mod:`earmark.audio.decode` reads all others. Positions are samples of the stream;
the first that is heard lies behind the encoder's pre-skip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.audio import ogg

Floats = NDArray[np.float32]
RATE = 48000
_LONGEST = 5760
"""Samples of a packet, at most: 120 ms (RFC 6716, section 3.2.5)."""
_LEAD = 24 * 960
"""Samples after which the decoder has forgotten where it started. A band's energy is coded as its change, of
which half is left after each 20 ms: measured, 2e-6 after 20 such frames, 4e-7 after 24, 3e-8 after 32."""
_HEAD = b"OpusHead\x01\x01"  # version 1, one channel


class OpusReader:
    """A recording of which any piece can be decoded.

    Args:
        head: The stream's first packet, which says how to decode it.
        packets: Of sound.
        starts: Where each begins, and where the last ends, (packet + 1,).
        skip: Samples in front of the first that is heard.
        samples: That are heard.

    Attributes:
        sample_rate: In Hz.
        frames: Samples that are heard.
        duration_s: The same in seconds.
    """

    def __init__(
        self, head: bytes, packets: Sequence[bytes], starts: NDArray[np.int64], skip: int, samples: int
    ) -> None:
        self.sample_rate = RATE
        self.frames: int | None = samples
        self.duration_s: float | None = samples / RATE
        self._head, self._packets, self._starts = head, packets, starts
        self._skip, self._end = skip, skip + samples

    def blocks(self, frames: int) -> Iterator[Floats]:
        """Decodes all; yields (time, 1), at most so many samples at a time."""
        decoder, begin = self._decoder(), 0
        while begin < len(self._packets):
            at = int(self._starts[begin])
            end = max(begin + 1, int(np.searchsorted(self._starts, at + frames, "right")) - 1)
            block, is_whole = self._decoded(decoder, begin, end)
            heard = block[max(0, self._skip - at) : max(0, self._end - at)]
            yield from (heard[first : first + frames] for first in range(0, len(heard), frames))
            if not is_whole:
                return
            begin = end

    def piece(self, first: int, count: int) -> Floats:
        """Decodes a piece, (time, 1), from a little in front of it on: as cut from the whole, within 1e-6."""
        wanted = first + self._skip
        begin = max(0, int(np.searchsorted(self._starts, wanted - _LEAD, "right")) - 1)
        end = int(np.searchsorted(self._starts, wanted + count))
        block, _ = self._decoded(self._decoder(), begin, end)
        cut = wanted - int(self._starts[begin])
        return block[cut : cut + count]

    def faults(self, samples_read: int) -> list[str]:
        """What went wrong, now that all has been read."""
        if samples_read == self._end - self._skip:
            return []
        return [f"the file is damaged: it could be read up to {samples_read / RATE:.2f} s"]

    def _decoder(self) -> Any:
        import av

        decoder: Any = av.CodecContext.create("opus", "r")
        decoder.extradata = self._head
        decoder.sample_rate, decoder.layout = RATE, "mono"
        return decoder

    def _decoded(self, decoder: Any, begin: int, end: int) -> tuple[Floats, bool]:
        """Samples of packets, (time, 1), and whether those are all."""
        import av

        block = np.empty((int(self._starts[end] - self._starts[begin]), 1), np.float32)
        filled = 0
        with suppress(av.FFmpegError):
            for packet in _joined(self._packets[begin:end]):
                for frame in decoder.decode(av.Packet(packet)):  # copied at once, while it is in the cache
                    samples = np.frombuffer(frame.planes[0], np.float32, frame.samples)[: len(block) - filled]
                    block[filled : filled + len(samples), 0] = samples
                    filled += len(samples)
        return block[:filled], filled == len(block)


def find_opus(content: bytes) -> OpusReader | None:
    """Finds the packets of an Ogg file (RFC 3533, RFC 7845).

    Args:
        content: The file.

    Returns:
        A reader; None unless the file is one whole stream of Opus, mono, made from 48 kHz, without SILK
        and without gain, and PyAV is installed.
    """
    if content[28 : 28 + len(_HEAD)] != _HEAD:
        return None
    try:
        import av  # noqa: F401 - slow to import, and optional
    except ImportError:
        return None
    try:
        (head, _, *packets), positions = _packets(content)
        starts = np.cumsum([0, *map(_samples, packets)])
    except (IndexError, ValueError):
        return None
    skip, rate = int.from_bytes(head[10:12], "little"), int.from_bytes(head[12:16], "little")
    end = positions.pop(len(packets), 0)
    is_whole = all(starts[done] == position for done, position in positions.items())
    is_plain = (rate, head[16:]) == (RATE, bytes(3))
    if not (is_plain and is_whole and 0 <= starts[-1] - end < _LONGEST and end > skip):
        return None
    return OpusReader(head[:10] + bytes(2) + head[12:], packets, starts, skip, end - skip)


def _packets(content: bytes) -> tuple[list[bytes], dict[int, int]]:
    """Packets of a stream, and its position behind so many packets of sound.

    Raises:
        ValueError: If the file is not one whole stream.
    """
    packets, positions, held, page = [], {}, b"", b""
    for number, page in enumerate(ogg.pages(content)):
        is_next = (page[14:18], page[18:22]) == (content[14:18], number.to_bytes(4, "little"))
        if not is_next or page[22:26] != ogg.checksum(page):
            raise ValueError("another stream, a hole in this one, or damage")
        at = 27 + page[26]
        for size in page[27:at]:
            held += page[at : at + size]
            at += size
            if size < 255:
                packets.append(held)
                held = b""
        if len(packets) > 2 and size < 255:
            positions[len(packets) - 2] = int.from_bytes(page[6:14], "little")
    if held or not page[5] & 4:
        raise ValueError("it is cut off")
    return packets, positions


def _samples(packet: bytes) -> int:
    """Samples of a packet (RFC 6716, section 3.1).

    Raises:
        IndexError: If it is empty.
        ValueError: If part of it is SILK, which decoders bring to 48 kHz each in its own way.
    """
    kind, code = packet[0] >> 3, packet[0] & 3
    if kind < 16:
        raise ValueError("SILK")
    return (120 << (kind & 3)) * (1 if code == 0 else 2 if code < 3 else packet[1] & 63)


def _joined(packets: Sequence[bytes]) -> Iterator[bytes]:
    """Packets of one frame made packets of 120 ms, which pass through Python in a sixth of the calls."""
    for kind, group in groupby(packets, _alike):
        own = list(group)
        most = 1 if kind is None else _LONGEST // _samples(own[0])
        for first in range(0, len(own), most):
            frames = own[first : first + most]
            yield frames[0] if len(frames) == 1 else _join(frames)


def _alike(packet: bytes) -> int | None:
    """What packets that can be joined have in common."""
    return packet[0] if not packet[0] & 3 and len(packet) > 1 else None


def _join(packets: Sequence[bytes]) -> bytes:
    """A packet of several frames, each of its own size (RFC 6716, section 3.2.5)."""
    sizes = b"".join(_size(len(packet) - 1) for packet in packets[:-1])
    frames = b"".join(packet[1:] for packet in packets)
    return bytes([packets[0][0] | 3, 0x80 | len(packets)]) + sizes + frames


def _size(count: int) -> bytes:
    if count < 252:
        return bytes([count])
    low = 252 + count % 4
    return bytes([low, (count - low) // 4])
