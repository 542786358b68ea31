"""What surrounds the sound in a file and is not sound: tags, and padding of zeros.

Sources: id3.org (ID3v1, ID3v2, Lyrics3), the APEv2 specification.

Conventions: positions are bytes.
"""

from __future__ import annotations

import re
import struct

from earmark.audio.sources import ByteRange

ID3 = re.compile(rb"ID3[\2-\4][\0-\x0f][\0-\xff][\0-\x7f]{4}", re.DOTALL)
"""The head of an ID3v2 tag: 10 bytes, whose last 4 state its size, 7 bits per byte."""
_ID3V1 = 128
_LONGEST_LYRICS = 1 << 16


def skip_tags(file: ByteRange, at: int) -> int:
    """Position of the first byte, from ``at`` on, that is part of neither a tag nor padding."""
    while at < file.size:
        start = at
        at = file.first_where(at, lambda chunk: chunk.lstrip(b"\0"))
        for zeros in (3, 2):  # the size of an MP4's first box begins with zeros
            if at - zeros >= start and file.read_at(at - zeros + 4, 4) == b"ftyp":
                return at - zeros
        at += _length_of_tag(file, at)
        if at == start:
            break
    return min(at, file.size)


def end_without_tags(file: ByteRange) -> int:
    """Position after the last byte that is not part of a tag; frames may end in zeros, so padding stays."""
    end = file.size
    while True:
        start = end
        tail = file.read_at(end - 32, 32) if end >= 32 else b""
        if file.read_at(end - _ID3V1, 3) == b"TAG" and end >= _ID3V1:
            end -= _ID3V1
        elif tail[:8] == b"APETAGEX":  # its last 32 bytes; the size excludes a head of the same length
            size, _, flags = struct.unpack("<III", tail[12:24])
            end -= min(end, size + (32 if flags & 1 << 31 else 0))
        elif tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
            end -= min(end, int(tail[-15:-9]) + 15)
        if end == start:
            return end


def _length_of_tag(file: ByteRange, at: int) -> int:
    """The length of the tag at a position; 0 where there is none."""
    head = file.read_at(at, 32)
    if ID3.match(head):
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:4] == b"TAG+":
        return 227
    if head[:3] == b"TAG" and file.read_at(at + _ID3V1, 3) in (b"", b"ID3"):
        return _ID3V1
    if head[:8] == b"APETAGEX" and len(head) == 32:
        size, _, flags = struct.unpack("<III", head[12:24])
        return int(size + 32) if flags & 1 << 29 else 32
    if head[:11] == b"LYRICSBEGIN":
        end = file.read_at(at, _LONGEST_LYRICS).find(b"LYRICS200")
        return max(0, end + 9)
    return 0
