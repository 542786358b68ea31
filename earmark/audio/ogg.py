"""Pages of an Ogg file (RFC 3533, section 6).

Conventions: a page is its bytes: the capture pattern, at 5 its flags (4: the last of its stream), at 6 its
position, at 14 the stream's number, at 18 its own, at 22 its checksum, at 26 the number of its segments, then
their sizes, then what they hold.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def pages(content: bytes) -> Iterator[bytes]:
    """Takes a file apart.

    Args:
        content: The file.

    Yields:
        Its pages; the last may be cut off.

    Raises:
        ValueError: If something else lies where a page should be.
    """
    at = 0
    while at < len(content):
        body = at + 27 + content[at + 26] if at + 26 < len(content) else at
        if content[at : at + 4] != b"OggS" or body == at:
            raise ValueError(f"there is no page at byte {at}")
        end = body + sum(content[at + 27 : body])
        yield content[at:end]
        at = end


def checksum(page: bytes) -> bytes:
    """A page's CRC: zlib's polynomial with the bits of each byte the other way round, from 0."""
    reversed_bits = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    found = zlib.crc32(reversed_bits, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return struct.pack(">I", found).translate(_REVERSED)
