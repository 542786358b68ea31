"""Headers of WAV, RF64, W64, AIFF, CAF and AU files: what the samples are, and how many bytes there are.

Neither libsndfile nor FFmpeg reports that a file is shorter or longer than its header states. Sources:
Microsoft's RIFF and WAVEFORMATEXTENSIBLE, EBU Tech 3306 (RF64), Sony's Wave64, Apple's AIFF-C and Core Audio
Format, Sun's AU.

Conventions: positions and sizes are bytes. A size field of 32 bits that wrapped, that a recorder never filled
in, or that a program writing into a pipe set to its maximum does not shorten a file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from earmark.audio.sources import ByteRange

_MOST_CHUNKS = 1000
"""Chunks examined; a file with millions of empty ones must not stall the program."""
_LONGEST = 1 << 48
"""Sizes from here on (256 TiB) are placeholders."""


@dataclass(frozen=True)
class SampleFormat:
    """What the samples are.

    Attributes:
        sample_rate: In Hz, as stated: any number.
        channels: As stated: any number.
        encoding: NumPy's name of uncompressed samples, "i3" for 24 bits; None for what a codec has to decode.
    """

    sample_rate: int
    channels: int
    encoding: str | None


@dataclass(frozen=True)
class PcmHeader:
    """A header.

    Attributes:
        format: What the samples are.
        first: Position of the first sample.
        size: Bytes of samples that are there.
        stated: Bytes of samples that the header states; None where it leaves that open.
        completed: Whether the recorder came back to fill in the size.
        end: Position of the first byte that belongs neither to the samples nor to the chunks around them.
    """

    format: SampleFormat
    first: int
    size: int
    stated: int | None
    completed: bool
    end: int


@dataclass(frozen=True)
class _Family:
    """How a family of files is divided into chunks."""

    first_chunk: int
    id_size: int
    size_field: str  # for struct
    alignment: int
    format_id: bytes
    samples_id: bytes
    parse: Callable[[bytes, bool], SampleFormat]
    samples_at: int = 0  # bytes of the chunk of samples that precede them
    counts_head: bool = False  # whether a chunk's size includes its id and its size

    @property
    def head(self) -> int:
        """Bytes before a chunk's content."""
        return self.id_size + struct.calcsize(self.size_field)

    @property
    def is_big_endian(self) -> bool:
        """Whether numbers begin with their most significant byte."""
        return self.size_field[0] == ">"


def read_header(file: ByteRange) -> PcmHeader | None:
    """Reads the header at the start of a file.

    Args:
        file: The file.

    Returns:
        The header; None for other kinds of files, and where it lacks a format or samples.
    """
    head = file.read_at(0, 40)
    if head[:4] in (b".snd", b"dns."):
        return _read_au(file, head)
    family = _family(head)
    if family is None:
        return None
    found: SampleFormat | None = None
    samples: tuple[int, int] | None = None  # where their chunk's content starts, and its size
    long_size = 0xFFFFFFFF
    for chunk_id, at, size in _chunks(file, family, family.first_chunk):
        if chunk_id == family.format_id:
            try:
                found = family.parse(file.read_at(at, min(size, 64)), family.is_big_endian)
            except (struct.error, OverflowError, ValueError):
                return None
        elif chunk_id == b"ds64":
            long_size = int.from_bytes(file.read_at(at + 8, 8), "little")
        elif chunk_id == family.samples_id and samples is None:
            samples = at, long_size if size == 0xFFFFFFFF else size
        if found and samples:
            return _measured(file, family, found, *samples)
    return None


def _family(head: bytes) -> _Family | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _WAVE
    if head[:4] == b"RIFX" and head[8:12] == b"WAVE":
        return _RIFX
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _AIFF
    if head[:4] == b"caff":
        return _CAF
    if head[:16] == _guid(b"riff") and head[24:40] == _guid(b"wave"):
        return _W64
    return None


def _chunks(file: ByteRange, family: _Family, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields id, position of the content, and stated size of each chunk from a position on."""
    for _ in range(_MOST_CHUNKS):
        head = file.read_at(at, family.head)
        if len(head) < family.head:
            return
        size = struct.unpack(family.size_field, head[family.id_size :])[0]
        at += family.head
        yield head[: family.id_size], at, size - family.head * family.counts_head
        size = max(0, size - family.head * family.counts_head)
        at += size + -size % family.alignment


def _measured(file: ByteRange, family: _Family, found: SampleFormat, at: int, size: int) -> PcmHeader:
    """The header, once the size of the samples was compared with what is there."""
    first = at + family.samples_at
    there = file.size - first
    stated: int | None = size - family.samples_at
    completed = True
    if size < 0 or size >= _LONGEST or (family.size_field[1] == "I" and _is_placeholder(size)):
        stated = None
    elif stated is not None and stated <= 0 < there and _is_unfilled(file, family, at):
        stated, completed = None, False
    elif stated is not None and family.size_field[1] == "I" and there - stated >= 1 << 32:
        stated += (there - stated) >> 32 << 32  # the field wrapped, once or several times
    if stated is None:
        return PcmHeader(found, first, max(0, there), None, completed, file.size)
    stated = max(0, stated)
    end = first + stated
    return PcmHeader(
        found, first, max(0, min(stated, there)), stated, True, _end_of_chunks(file, family, end)
    )


def _is_placeholder(size: int) -> bool:
    """Whether a 32-bit size is what programs state that write into a pipe."""
    return 0xFFFFFF00 <= size <= 0xFFFFFFFF or 0x7FFFF000 <= size <= 0x80000100


def _is_unfilled(file: ByteRange, family: _Family, at: int) -> bool:
    """Whether an empty chunk of samples is followed by samples, rather than by chunks."""
    if family.first_chunk == 12:  # the size of the whole file was not filled in either
        order = ">" if family.is_big_endian else "<"
        return int(struct.unpack(f"{order}I", file.read_at(4, 4))[0]) + 8 < file.size
    return _end_of_chunks(file, family, at) < file.size


def _end_of_chunks(file: ByteRange, family: _Family, end: int) -> int:
    """Position after the chunks that follow the samples; where another file begins, they end."""
    aligned = end + -end % family.alignment
    for start in dict.fromkeys((aligned, end)):  # some writers omit the byte that aligns
        last = start
        for chunk_id, at, size in _chunks(file, family, start):
            if not _is_chunk(chunk_id) or chunk_id == family.samples_id or size < 0 or at + size > file.size:
                break
            last = min(file.size, at + size + -size % family.alignment)
        if last > start:
            return last
    return min(file.size, end if file.read_at(end, 4) in _FIRST_WORDS else aligned)


def _is_chunk(chunk_id: bytes) -> bool:
    name = chunk_id[:4]
    return name.isascii() and name.decode("ascii").isprintable() and name not in _FIRST_WORDS


_FIRST_WORDS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b"riff", b"fLaC", b"OggS", b"    ")


def _wave_format(content: bytes, is_big_endian: bool) -> SampleFormat:
    order = ">" if is_big_endian else "<"
    tag, channels, rate, _, block, bits = struct.unpack(f"{order}HHIIHH", content[:16])
    if tag == 0xFFFE and len(content) >= 26:  # WAVEFORMATEXTENSIBLE
        tag = struct.unpack(f"{order}H", content[24:26])[0]
    width = block // channels if channels and block else (bits + 7) // 8
    kinds = {(1, 1): "u1", (1, 2): "i2", (1, 3): "i3", (1, 4): "i4", (3, 4): "f4", (3, 8): "f8"}
    kind = kinds.get((tag, width))
    return SampleFormat(rate, channels, kind and order + kind)


def _aiff_format(content: bytes, _: bool) -> SampleFormat:
    channels, _frames, bits, exponent, mantissa = struct.unpack(">HIHHQ", content[:18])
    rate = math.ldexp(mantissa, (exponent & 0x7FFF) - 16383 - 63)
    codec = content[18:22] or b"NONE"
    width = (bits + 7) // 8
    encoding = None
    if codec in (b"NONE", b"twos", b"sowt") and 1 <= width <= 4:
        encoding = ("<" if codec == b"sowt" else ">") + f"i{width}"
    elif codec.lower() in (b"fl32", b"fl64"):
        encoding = ">f4" if codec.lower() == b"fl32" else ">f8"
    return SampleFormat(_whole(rate), channels, encoding)


def _caf_format(content: bytes, _: bool) -> SampleFormat:
    rate, codec, flags, packet, frames, channels, bits = struct.unpack(">d4sIIIII", content[:32])
    width = packet // channels if channels and frames == 1 and packet else bits // 8
    kind = f"{'f' if flags & 1 else 'i'}{width}"
    is_known = codec == b"lpcm" and kind in ("i1", "i2", "i3", "i4", "f4", "f8")
    return SampleFormat(_whole(rate), channels, ("<" if flags & 2 else ">") + kind if is_known else None)


def _read_au(file: ByteRange, head: bytes) -> PcmHeader | None:
    order = ">" if head[:4] == b".snd" else "<"
    if len(head) < 24:
        return None
    first, size, code, rate, channels = struct.unpack(f"{order}IIIII", head[4:24])
    kind = {2: "i1", 3: "i2", 4: "i3", 5: "i4", 6: "f4", 7: "f8"}.get(code)
    found = SampleFormat(rate, channels, kind and order + kind)
    there = max(0, file.size - first)
    if size == 0xFFFFFFFF or (size == 0 and there):
        return PcmHeader(found, first, there, None, size != 0, file.size)
    size += max(0, there - size) >> 32 << 32
    return PcmHeader(found, first, min(size, there), size, True, min(first + size, file.size))


def _whole(rate: float) -> int:
    return round(rate) if math.isfinite(rate) else 0


def _guid(name: bytes) -> bytes:
    """A GUID of Wave64: four letters and one of two fixed endings."""
    tail = "2e91cf11a5d628db04c10000" if name == b"riff" else "f3acd3118cd100c04f8edb8a"
    return name + bytes.fromhex(tail)


_WAVE = _Family(12, 4, "<I", 2, b"fmt ", b"data", _wave_format)
_RIFX = _Family(12, 4, ">I", 2, b"fmt ", b"data", _wave_format)
_AIFF = _Family(12, 4, ">I", 2, b"COMM", b"SSND", _aiff_format, samples_at=8)
_CAF = _Family(8, 4, ">q", 1, b"desc", b"data", _caf_format, samples_at=4)
_W64 = _Family(40, 16, "<Q", 8, _guid(b"fmt "), _guid(b"data"), _wave_format, counts_head=True)
