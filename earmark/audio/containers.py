"""Inspects the first and last bytes of audio files: their format, and whether they are complete.

libsndfile does not report truncated files, so that their headers are checked here.

Conventions: handles are open for reading in binary and can seek; positions are bytes from the file's start.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

_MAGIC = (  # offset, bytes, FFmpeg's name of the format; libsndfile reads none of these
    (4, b"ftyp", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"#!AMR", "amr"),
    (0, b"\x0b\x77", "ac3"),
    (0, b"MAC ", "ape"),
    (0, b"wvpk", "wv"),
)
_SUFFIXES = {".aac": "aac", ".ac3": "ac3", ".amr": "amr", ".ape": "ape", ".wma": "asf", ".wv": "wv"}
_SUFFIXES |= dict.fromkeys((".m4a", ".m4b", ".mp4", ".mov", ".3gp"), "mov")
_SUFFIXES |= dict.fromkeys((".mka", ".mkv", ".weba", ".webm"), "matroska")

_MP3_RATES = (44100, 48000, 32000, 0)
_MP3_FRAMES = 0x7FFFFFFF

_MOST_CHUNKS = 1000
"""Chunks examined before the samples; a file with millions of empty ones must not stall the program."""


@dataclass(frozen=True)
class _Layout:
    """Layout of a family of chunked files."""

    first_chunk: int
    id_size: int
    size_format: str
    samples: bytes  # prefix of the id of the chunk that holds the samples
    alignment: int
    counts_head: bool = False  # whether a chunk's size includes its id and its size


_LAYOUTS = {
    b"RIFF": _Layout(12, 4, "<I", b"data", 2),
    b"RIFX": _Layout(12, 4, ">I", b"data", 2),
    b"RF64": _Layout(12, 4, "<I", b"data", 2),
    b"FORM": _Layout(12, 4, ">I", b"SSND", 2),
    b"caff": _Layout(8, 4, ">q", b"data", 1),
    b"riff": _Layout(40, 16, "<Q", b"data", 8, counts_head=True),
}


@dataclass(frozen=True)
class Extent:
    """Bytes of samples that a file's header states, and those that are there.

    Attributes:
        promised: The size in the header, or None where it leaves the length open.
        present: Bytes from the first sample to the end of the file.
        mending: Position and corrected bytes of a size in the header that libsndfile cannot handle.
    """

    promised: int | None
    present: int
    mending: tuple[int, bytes] | None = None

    def mended_head(self, handle: BinaryIO) -> tuple[bytes, int] | None:
        """The start of the file with the corrected size, and the position of the rest."""
        if not self.mending:
            return None
        at, size = self.mending
        return read_at(handle, 0, at) + size, at + len(size)


def ffmpeg_format(handle: BinaryIO, suffix: str) -> tuple[str | None, str | None]:
    """Detects formats that FFmpeg reads and libsndfile does not.

    Args:
        handle: The file.
        suffix: Of its name, such as ".m4a".

    Returns:
        FFmpeg's name of the format by the first bytes, and by the suffix; None where undetermined.
    """
    handle.seek(_after_id3(handle))
    head = handle.read(16)
    kind = next((kind for at, magic, kind in _MAGIC if head[at : at + len(magic)] == magic), None)
    return kind, _SUFFIXES.get(suffix.lower())


def sample_extent(handle: BinaryIO) -> Extent | None:
    """Compares the stated length of a wav, rf64, w64, aiff or caf file with the bytes that are there.

    Args:
        handle: The file.

    Returns:
        The comparison, or None where the file is of another kind or has no samples.
    """
    size = handle.seek(0, os.SEEK_END)
    head = read_at(handle, 0, 12)
    layout = _LAYOUTS.get(head[:4])
    if layout is None:
        return None
    at, long_size = layout.first_chunk, None
    width = struct.calcsize(layout.size_format)
    for _ in range(_MOST_CHUNKS):
        if at >= size:
            return None
        chunk_id = read_at(handle, at, layout.id_size)
        stated = read_at(handle, at + layout.id_size, width)
        if len(stated) < width:
            return None
        length = struct.unpack(layout.size_format, stated)[0]
        body = at + layout.id_size + width
        if layout.counts_head:
            length -= layout.id_size + width
        if chunk_id.startswith(layout.samples):
            if length == 0xFFFFFFFF and long_size is not None:
                return Extent(long_size, size - body)
            return _extent(head, at + layout.id_size, length, size - body)
        if chunk_id == b"ds64" and len(sizes := read_at(handle, body, 16)) == 16:
            long_size = struct.unpack("<QQ", sizes)[1]
        at = body + max(0, length) + -length % layout.alignment
    return None


def ogg_is_cut(handle: BinaryIO) -> bool:
    """Whether an Ogg file lacks the page that ends its stream (RFC 3533, section 6), or a part of it.

    Args:
        handle: The file; False for other formats.
    """
    if read_at(handle, 0, 4) != b"OggS":
        return False
    size = handle.seek(0, os.SEEK_END)
    tail = read_at(handle, max(0, size - 2 * 65307), 2 * 65307)  # a page has at most 65307 bytes
    at = tail.rfind(b"OggS\0")
    head = tail[at : at + 27]
    if at < 0 or len(head) < 27:
        return True
    lacing = tail[at + 27 : at + 27 + head[26]]
    is_whole = len(lacing) == head[26] and at + 27 + len(lacing) + sum(lacing) <= len(tail)
    return not (is_whole and head[5] & 4)


def mp3_states_length(handle: BinaryIO) -> bool:
    """Whether an MP3 file starts with a Xing or Info frame that counts its frames.

    Args:
        handle: The file.
    """
    first_frame = read_at(handle, _after_id3(handle), 2048)
    at = max(first_frame.find(b"Xing"), first_frame.find(b"Info"))
    return at >= 0 and len(first_frame) > at + 7 and bool(first_frame[at + 7] & 1)


def mp3_info_frame(handle: BinaryIO) -> tuple[bytes, int] | None:
    """Makes the Info frame that an MP3 file without a stated length lacks.

    Without it libsndfile assumes the first frame's bit rate for all, and stops too early if that is above the
    mean.

    Args:
        handle: The file.

    Returns:
        An Info frame that states an unlimited length, and the position of the file's own frames; None for
        other files.
    """
    start = _after_id3(handle)
    head = read_at(handle, start, 4)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or mp3_states_length(handle):  # layer III
        return None
    is_mpeg_1, is_mono = head[1] & 0x18 == 0x18, head[3] & 0xC0 == 0xC0
    rate = _MP3_RATES[head[2] >> 2 & 3] >> (0 if is_mpeg_1 else 1 if head[1] & 0x10 else 2)
    if not rate:
        return None
    size = 144 * 128_000 // rate if is_mpeg_1 else 72 * 80_000 // rate  # the ninth bit rate of either version
    side_info = (17 if is_mono else 32) if is_mpeg_1 else (9 if is_mono else 17)
    info = bytes([0xFF, head[1] | 1, 0x90 | head[2] & 0x0C, head[3]]) + bytes(side_info)
    return (info + b"Info" + struct.pack(">II", 1, _MP3_FRAMES)).ljust(size, b"\0"), start


def _extent(head: bytes, size_at: int, promised: int, present: int) -> Extent:
    kind = head[:4]
    if kind == b"caff":
        promised -= 4  # an edit count comes before the first sample
        present -= 4
        if promised < 0:
            return Extent(None, present)
        return Extent(
            promised, present, (size_at, struct.pack(">q", present + 4)) if promised > present else None
        )
    if promised == 0 and kind in (b"RIFF", b"RIFX"):
        order = "<I" if kind == b"RIFF" else ">I"
        stated = struct.unpack(order, head[4:8])[0]
        if present > 0 and stated < size_at + present - 8:  # the recorder never filled it in
            return Extent(None, present, (size_at, struct.pack(order, min(present, 0xFFFFFFFF))))
    return Extent(None if _is_open_end(promised) else promised, present)


def _is_open_end(size: int) -> bool:
    """Whether a 32-bit size is a placeholder of programs that write into a pipe."""
    return 0xFFFFFF00 <= size <= 0xFFFFFFFF or 0x7FFFF000 <= size <= 0x80000100


def _after_id3(handle: BinaryIO) -> int:
    """Position after an ID3v2 tag (its size has 7 bits per byte)."""
    head = read_at(handle, 0, 10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def read_at(handle: BinaryIO, at: int, count: int) -> bytes:
    """Reads up to ``count`` bytes at a position."""
    handle.seek(at)
    return handle.read(count)
