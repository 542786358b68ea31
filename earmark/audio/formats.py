"""The formats that are read: their names in FFmpeg, suffixes, and where a file in them ends.

FFmpeg reads a container to the end that its header states, and says nothing of what follows. A file is
therefore divided here into the recordings that it consists of: chained Ogg streams, joined files.

Conventions: positions are bytes. Formats without a header (.gsm, .vox, raw samples) are not among these:
nothing could tell them from other files.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from earmark.audio.sources import ByteRange
from earmark.audio.tags import ID3, end_without_tags
from earmark.errors import AudioError

# fmt: off
_SUFFIXES = {
    "aac": "aac adts", "ac3": "ac3", "aiff": "aif aifc aiff", "amr": "amr awb", "ape": "ape",
    "asf": "asf wma wmv", "au": "au snd", "avi": "avi", "caf": "caf", "dsf": "dsf", "dts": "dts",
    "eac3": "ec3 eac3", "flac": "flac", "flv": "flv", "iff": "dff", "matroska": "mka mkv weba webm",
    "mlp": "mlp", "mov": "3g2 3gp m4a m4b m4r m4v mov mp4 qt", "mp3": "mp1 mp2 mp3 mpga", "mpc": "",
    "mpc8": "mpc", "mpeg": "mpeg mpg vob", "mpegts": "m2ts mts ts", "mxf": "mxf", "nistsphere": "sph",
    "nut": "nut", "ogg": "oga ogg ogv ogx opus spx", "oma": "aa3 oma", "rm": "ra rm", "tak": "tak",
    "truehd": "thd", "tta": "tta", "voc": "voc", "w64": "w64", "wav": "bwf rf64 wav wave", "wv": "wv",
}
# fmt: on
FORMATS = {f".{suffix}": name for name, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
"""Suffix -> FFmpeg's name of the format."""
ALLOWED = ",".join([*_SUFFIXES, "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"])
"""FFmpeg's names of the formats that a file may turn out to have; playlists, which open other files, are not
among them."""
SUFFIXES = frozenset(FORMATS)
"""Suffixes of files that are taken from folders; a file given by its own path may have any name."""

MIN_RATE, MAX_RATE, MAX_CHANNELS = 1000, 4_000_000, 256
"""What recordings have; a header that states less or more is damaged, and would cost memory without bound."""

# fmt: off
_MAGIC = (  # offset, bytes, FFmpeg's name of the format
    (0, b"RIFF", "wav"), (0, b"RIFX", "wav"), (0, b"RF64", "wav"), (0, b"BW64", "wav"), (0, b"riff", "w64"),
    (0, b"FORM", "aiff"), (0, b"caff", "caf"), (0, b".snd", "au"), (0, b"fLaC", "flac"), (0, b"OggS", "ogg"),
    (4, b"ftyp", "mov"), (0, b"\x1a\x45\xdf\xa3", "matroska"), (0, b"\x30\x26\xb2\x75", "asf"),
    (0, b"#!AMR", "amr"), (0, b"MAC ", "ape"), (0, b"wvpk", "wv"),
)
# fmt: on
_LETTERS = {b"AVI ": "avi", b"8SVX": "iff", b"16SV": "iff"}  # of RIFF and FORM, at byte 8
_FLAC = re.compile(rb"fLaC[\0\x80]\0\0\x22", re.DOTALL)
_OGG_START = re.compile(rb"OggS\0[\2\3\6\7]", re.DOTALL)
_FRAMED = ("aac", "ac3", "eac3", "dts", "mp3")
"""Formats without a container: frames, one after the other, with tags in between where files were joined."""


@dataclass(frozen=True)
class Extent:
    """Where a recording ends within its file.

    Attributes:
        end: Position after its last byte; what follows is another recording, a tag, or unknown.
        is_cut: Whether its own structure promises more bytes than there are.
    """

    end: int
    is_cut: bool = False


def format_of(file: ByteRange) -> str | None:
    """FFmpeg's name of a file's format by its first bytes; None where these leave it open."""
    head = file.read_at(0, 16)
    kind = next((kind for at, magic, kind in _MAGIC if head[at : at + len(magic)] == magic), None)
    return _LETTERS.get(head[8:12], kind) if kind in ("wav", "aiff") else kind


def begins_recording(file: ByteRange) -> bool:
    """Whether a file begins as one of a known format does, or with a frame of MP3, AAC or AC-3."""
    head = file.read_at(0, 2)
    is_frame = head == b"\x0b\x77" or (head[:1] == b"\xff" and head[1:] >= b"\xe0")
    return is_frame or format_of(file) is not None


def check_format(sample_rate: int, channels: int) -> None:
    """Checks what a header states.

    Raises:
        AudioError: If no recording has this rate in Hz, or as many channels; without the file's name.
    """
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise AudioError(
            f"its sample rate is {sample_rate} Hz: recordings of {MIN_RATE} to {MAX_RATE} Hz are read"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"it has {channels} channels: recordings of 1 to {MAX_CHANNELS} channels are read")


def is_framed(kind: str) -> bool:
    """Whether a format is nothing but frames, so that every byte between two of them is lost sound."""
    return kind in _FRAMED


def mp3_info(file: ByteRange) -> tuple[int | None, int | None]:
    """The numbers of frames and of bytes that an MP3's first frame (Xing or Info) states, or None."""
    head = file.read_at(0, 2048)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or len(head) < at + 16:
        return None, None
    flags, *counts = struct.unpack(">III", head[at + 4 : at + 16])
    frames = counts.pop(0) if flags & 1 else None
    return frames, counts[0] if flags & 2 else None


def extent(file: ByteRange, kind: str | None) -> Extent:
    """Finds where the recording at the start of a file ends.

    Args:
        file: The file, from the recording's first byte on.
        kind: FFmpeg's name of its format; None if only FFmpeg can tell.
    """
    if kind == "flac":
        # Up to another one: any other end is in its frames.
        return Extent(file.find(_FLAC, 8, 8) or file.size)
    if kind == "ogg":
        return _ogg_extent(file)
    if kind == "mov":
        return _walk(file, _box)
    if kind == "matroska":
        return _walk(file, _element)
    if kind == "asf":
        return _walk(file, _object)
    if kind is None or is_framed(kind):
        return Extent(end_without_tags(file.part(0, file.find(ID3, 10, 1))))
    return Extent(file.size)


def _ogg_extent(file: ByteRange) -> Extent:
    """An Ogg stream (RFC 3533): pages that start streams, then the others, up to the next that start some."""
    at = 0
    while _OGG_START.match(page := file.read_at(at, 27 + 255)):
        at += 27 + page[26] + sum(page[27 : 27 + page[26]]) if len(page) > 26 else file.size
    end = file.find(_OGG_START, 6, min(at, file.size)) or file.size
    tail_at = max(0, end - 2 * 65307)  # a page has at most 65307 bytes
    tail = file.read_at(tail_at, end - tail_at)
    last = tail.rfind(b"OggS\0")
    head = tail[last : last + 27]
    if last < 0 or len(head) < 27:
        return Extent(end, is_cut=True)
    sizes = tail[last + 27 : last + 27 + head[26]]
    after = last + 27 + len(sizes) + sum(sizes)
    is_whole = len(sizes) == head[26] and after <= len(tail) and bool(head[5] & 4)
    return Extent(min(end, tail_at + after) if is_whole else end, is_cut=not is_whole)


Piece = tuple[int, bool] | None
"""Bytes of a piece of a container, and whether it is the first of a recording; None where none begins."""


def _walk(file: ByteRange, measure: Callable[[ByteRange, int], Piece]) -> Extent:
    at = 0
    while at < file.size:
        piece = measure(file, at)
        if piece is None or (piece[1] and at > 0):
            break
        at += piece[0]
    return Extent(min(at, file.size), is_cut=at > file.size)


def _box(file: ByteRange, at: int) -> Piece:
    """A box of ISO/IEC 14496-12."""
    head = file.read_at(at, 16)
    if len(head) < 8 or head[4:8] not in _BOXES:
        return None
    size = int(struct.unpack(">I", head[:4])[0])
    if size == 1 and len(head) == 16:
        size = int(struct.unpack(">Q", head[8:])[0])
    elif size == 0:
        size = file.size - at
    return (size, head[4:8] == b"ftyp") if size >= 8 else None


def _element(file: ByteRange, at: int) -> Piece:
    """An element of EBML (RFC 8794); one of unknown size reaches to the next of its level."""
    head = file.read_at(at, 16)
    if not head or not head[0]:
        return None
    id_size = 9 - head[0].bit_length()
    if id_size > 4 or len(head) <= id_size or not head[id_size]:
        return None
    size_size = 9 - head[id_size].bit_length()
    name, body = head[:id_size], id_size + size_size
    size = int.from_bytes(head[id_size:body], "big") & ((1 << 7 * size_size) - 1)
    if name not in _EBML_IDS or len(head) < body:
        return None
    if size == (1 << 7 * size_size) - 1:
        size = 0  # its children follow, and are walked as if they were of its own level
    return body + size, name == b"\x1a\x45\xdf\xa3"


# fmt: off
_BOXES = frozenset((
    b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"free", b"skip", b"wide", b"uuid", b"sidx", b"ssix",
    b"styp", b"meta", b"pdin", b"emsg", b"prft", b"udta", b"pnot", b"PICT", b"junk",
))
"""Boxes of the top level."""
_EBML_IDS = frozenset(map(bytes.fromhex, (
    "1a45dfa3", "18538067", "114d9b74", "1549a966", "1654ae6b", "1f43b675", "1c53bb6b", "1941a469",
    "1043a770", "1254c367", "ec", "bf", "a3", "a0", "a7", "ab", "e7",
)))
"""Segments, what they consist of, and the parts of a cluster of unknown size."""
# fmt: on


def _object(file: ByteRange, at: int) -> Piece:
    """An object of ASF; the first of a file is its header, and only its data may be cut off."""
    head = file.read_at(at, 24)
    if len(head) < 24:
        return None
    size = int(struct.unpack("<Q", head[16:])[0])
    is_header = head[:16] == _ASF_HEADER
    is_there = is_header or head[:16] == _ASF_DATA or at + size <= file.size
    return (size, is_header) if size >= 24 and is_there else None


_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
