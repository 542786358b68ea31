"""What an audio file's first and last bytes say: its kind, and whether it goes as far as it promises.

libsndfile shortens what a cut-off file holds without a word, so its headers are read here a second time.

Conventions: handles are open for reading in binary and can seek; positions are bytes from the file's start.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

_MAGIC = (  # offset, bytes there, FFmpeg's name for the format; none of these is read by libsndfile
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
"""Chunks looked at before the samples; a file of millions of empty ones must not stop a run."""


@dataclass(frozen=True)
class _Layout:
    """How a family of chunked files is laid out."""

    first_chunk: int
    id_size: int
    size_format: str
    samples: bytes  # how the id of the chunk of samples starts
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
    """Bytes of samples that a file promises, and those that it holds.

    Attributes:
        promised: What the header says, or None where it leaves the length open.
        present: Bytes from the first sample to the end of the file.
        mending: Position and bytes of a size in the header that libsndfile would stumble over, put right.
    """

    promised: int | None
    present: int
    mending: tuple[int, bytes] | None = None

    def mended_head(self, handle: BinaryIO) -> tuple[bytes, int] | None:
        """The file's head with that size put right, and where the rest goes on."""
        if not self.mending:
            return None
        at, size = self.mending
        return _read(handle, 0, at) + size, at + len(size)


class View(io.RawIOBase):
    """A handle with another head, a place of its own, and without its name (which can mislead libsndfile).

    Args:
        handle: What is read; stays open when the view is closed.
        head: Bytes that are seen first.
        rest: Where the handle's own bytes go on behind them.
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
        """As any file does, but that a damaged header may ask for any place."""
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += self._handle.seek(0, os.SEEK_END) - self._shift
        self._at = min(max(0, offset), 1 << 62)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As any file does."""
        content = self._head[self._at : self._at + len(buffer)]
        content = content or _read(self._handle, self._at + self._shift, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def ffmpeg_format(handle: BinaryIO, suffix: str) -> tuple[str | None, str | None]:
    """Says whether a file is one of those that FFmpeg reads and libsndfile does not.

    Args:
        handle: The file.
        suffix: Of its name, such as ".m4a".

    Returns:
        FFmpeg's name of the format by the first bytes, and by the suffix; None where they say nothing.
    """
    handle.seek(_after_id3(handle))
    head = handle.read(16)
    kind = next((kind for at, magic, kind in _MAGIC if head[at : at + len(magic)] == magic), None)
    return kind, _SUFFIXES.get(suffix.lower())


def sample_extent(handle: BinaryIO) -> Extent | None:
    """Compares the length that a wav, rf64, w64, aiff or caf file states with the bytes that are there.

    Args:
        handle: The file.

    Returns:
        The comparison, or None where the file is of another kind or has no samples.
    """
    size = handle.seek(0, os.SEEK_END)
    head = _read(handle, 0, 12)
    layout = _LAYOUTS.get(head[:4])
    if layout is None:
        return None
    at, long_size = layout.first_chunk, None
    width = struct.calcsize(layout.size_format)
    for _ in range(_MOST_CHUNKS):
        if at >= size:
            return None
        chunk_id = _read(handle, at, layout.id_size)
        stated = _read(handle, at + layout.id_size, width)
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
        if chunk_id == b"ds64" and len(sizes := _read(handle, body, 16)) == 16:
            long_size = struct.unpack("<QQ", sizes)[1]
        at = body + max(0, length) + -length % layout.alignment
    return None


def ogg_is_cut(handle: BinaryIO) -> bool:
    """Says whether an Ogg file lacks the page that ends its stream (RFC 3533, section 6), or a part of it.

    Args:
        handle: The file; any other kind is never cut.
    """
    if _read(handle, 0, 4) != b"OggS":
        return False
    size = handle.seek(0, os.SEEK_END)
    tail = _read(handle, max(0, size - 2 * 65307), 2 * 65307)  # a page has at most 65307 bytes
    at = tail.rfind(b"OggS\0")
    head = tail[at : at + 27]
    if at < 0 or len(head) < 27:
        return True
    lacing = tail[at + 27 : at + 27 + head[26]]
    is_whole = len(lacing) == head[26] and at + 27 + len(lacing) + sum(lacing) <= len(tail)
    return not (is_whole and head[5] & 4)


def mp3_states_length(handle: BinaryIO) -> bool:
    """Says whether an MP3 file starts with a Xing or Info frame that counts its frames.

    Args:
        handle: The file.
    """
    first_frame = _read(handle, _after_id3(handle), 2048)
    at = max(first_frame.find(b"Xing"), first_frame.find(b"Info"))
    return at >= 0 and len(first_frame) > at + 7 and bool(first_frame[at + 7] & 1)


def mp3_info_frame(handle: BinaryIO) -> tuple[bytes, int] | None:
    """Makes the frame that an MP3 file of unstated length lacks.

    Without it libsndfile takes the first frame's bit rate for that of all, and if it is above the mean
    stops too early.

    Args:
        handle: The file.

    Returns:
        An Info frame that states a length without end, and where the file's own frames start; None for any
        other file.
    """
    start = _after_id3(handle)
    head = _read(handle, start, 4)
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
        if present > 0 and stated < size_at + present - 8:  # the recorder never came back to it
            return Extent(None, present, (size_at, struct.pack(order, min(present, 0xFFFFFFFF))))
    return Extent(None if _is_open_end(promised) else promised, present)


def _is_open_end(size: int) -> bool:
    """Whether a 32-bit size is one that programs write into a pipe, where they cannot correct it later."""
    return 0xFFFFFF00 <= size <= 0xFFFFFFFF or 0x7FFFF000 <= size <= 0x80000100


def _after_id3(handle: BinaryIO) -> int:
    """Where the file proper starts, behind an ID3v2 tag (its size has 7 bits a byte)."""
    head = _read(handle, 0, 10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _read(handle: BinaryIO, at: int, count: int) -> bytes:
    handle.seek(at)
    return handle.read(count)
