"""When a recording was made: from its file name, or from the header of a WAV file.

Sources: EBU Tech 3285 (bext), the GUANO specification 1.0, iXML 3.0, and the comments of AudioMoth's
firmware; names as of AudioMoth, Song Meter and other recorders.

Conventions: a time has a time zone. Where name or header state none, it is the one that the caller states.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import BinaryIO, Literal, get_args
from zoneinfo import ZoneInfo

from earmark.errors import AudioError, ModelError

TimeSource = Literal["name", "header"]

_NAME = re.compile(
    r"(?<!\d)(\d{4})[-_]?([01]\d)[-_]?([0-3]\d)[-_T $]?([0-2]\d)[-_:.]?([0-5]\d)[-_:.]?([0-5]\d)(?!\d)"
    r"(?:\.(\d{1,6})(?!\d))?(Z|[+-]\d{2}:?\d{2}(?!\d))?",
    re.IGNORECASE,
)
_HEX_NAME = re.compile(r"[0-9A-F]{8}")
_OFFSET = re.compile(r"(?:UTC)?([+-])(\d{1,2})(?::?(\d{2}))?")
_GUANO = re.compile(r"^\s*Timestamp\s*:\s*(\S+(?: \S+)?)\s*$", re.MULTILINE)
_IXML = re.compile(r"<BWF_ORIGINATION_DATE>\s*(\S+?)\s*</.*?<BWF_ORIGINATION_TIME>\s*(\S+?)\s*</", re.DOTALL)
_AUDIOMOTH = re.compile(r"Recorded at (\d\d:\d\d:\d\d(?:\.\d+)?) (\d\d)/(\d\d)/(\d{4}) \(UTC([^)]*)\)")
_DAY_TIME = re.compile(
    r"(\d{4})\D(\d\d)\D(\d\d)[T ](\d\d)\D(\d\d)\D(\d\d)(\.\d{1,6})?(?:\d*)(Z|[+-]\d\d:?\d\d)?$"
)
_RIFF = (b"RIFF", b"RF64", b"BW64")
_LARGEST = 1 << 20
"""Bytes of a chunk of text that are read."""


def time_zone(text: str) -> tzinfo:
    """A time zone by its name or offset.

    Args:
        text: "UTC", an offset as "+02:00" or "UTC-5", or a name as "Europe/Berlin".

    Raises:
        ModelError: If it is none of these.
    """
    if text.upper() in ("UTC", "Z"):
        return UTC
    offset = _OFFSET.fullmatch(text)
    if offset:
        sign, hours, minutes = offset[1], int(offset[2]), int(offset[3] or 0)
        if hours <= 14 and minutes < 60:
            return timezone(timedelta(minutes=(hours * 60 + minutes) * (-1 if sign == "-" else 1)))
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ModelError(
            f"unknown time zone {text!r}: give UTC, an offset such as +02:00, or a name such as Europe/Berlin"
        ) from None


def recorded_at(path: str | os.PathLike[str], source: TimeSource, zone: tzinfo = UTC) -> datetime:
    """When a recording starts.

    Args:
        path: Of the recording.
        source: "name": ``20240131_235959.wav`` with or without more before and after it, separators, ``T``
            and an offset from UTC, or AudioMoth's earlier names of 8 hexadecimal digits. "header": a WAV
            file's GUANO, bext or iXML chunk, or AudioMoth's comment.
        zone: Time zone of times that state none.

    Raises:
        AudioError: If there is no time.
        ModelError: If the source is another one.
    """
    if source not in get_args(TimeSource):
        raise ModelError(f"times come from name or header, got {source!r}")
    try:
        found = _from_name(os.path.basename(os.fspath(path))) if source == "name" else _from_header(path)
        if found is not None:
            return found if found.tzinfo else found.replace(tzinfo=zone)
    except (ValueError, OverflowError):
        pass  # digits that are no date
    place = "name" if source == "name" else "header (GUANO, bext, iXML or AudioMoth's comment)"
    raise AudioError(f"{os.fspath(path)}: its {place} has no date and time")


def _from_name(name: str) -> datetime | None:
    stem = os.path.splitext(name)[0]
    if _HEX_NAME.fullmatch(stem.upper()) and not stem.isdigit():
        return datetime.fromtimestamp(int(stem, 16), UTC)
    found = _NAME.search(name)
    if not found:
        return None
    *parts, fraction, offset = found.groups()
    return _moment(map(int, parts), fraction, offset)


def _from_header(path: str | os.PathLike[str]) -> datetime | None:
    """The first time in the chunks of a WAV file, most precise ones first."""
    try:
        with open(path, "rb") as file:
            chunks = dict(_chunks(file))
    except OSError as error:
        raise AudioError(f"{os.fspath(path)}: {error.strerror or error}") from None
    guano = _GUANO.search(_text(chunks.get(b"guan", b"")))
    bext = chunks.get(b"bext", b"")[320:338]  # after description, originator and its reference
    ixml = _IXML.search(_text(chunks.get(b"iXML", b"")))
    moth = _AUDIOMOTH.search(_text(chunks.get(b"LIST", b"")))
    texts = [
        guano[1] if guano else "",
        f"{_text(bext[:10])} {_text(bext[10:])}",
        f"{ixml[1]} {ixml[2]}" if ixml else "",
    ]
    for text in texts:
        found = _DAY_TIME.fullmatch(text.strip())
        if found:
            *parts, fraction, offset = found.groups()
            return _moment(map(int, parts), fraction and fraction[1:], offset)
    if moth:
        time, day, month, year, offset = moth.groups()
        zone = time_zone(offset) if offset else UTC
        return datetime.fromisoformat(f"{year}-{month}-{day}T{time}").replace(tzinfo=zone)
    return None


def _moment(parts: Iterator[int], fraction: str | None, offset: str | None) -> datetime:
    """A date and time of its six numbers, digits of a fraction of a second, and an offset from UTC."""
    year, month, day, hour, minute, second = parts
    microsecond = int((fraction or "").ljust(6, "0")) if fraction else 0
    zone = time_zone(offset) if offset else None
    return datetime(year, month, day, hour, minute, second, microsecond, zone)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks of text of a WAV file."""
    if file.read(4) not in _RIFF:
        return
    file.seek(12)
    data_size: int | None = None
    while len(head := file.read(8)) == 8:
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        following = file.tell() + size + size % 2
        if name == b"ds64":
            data_size = struct.unpack("<Q", file.read(24)[8:16])[0]
        elif name == b"data" and size == 0xFFFFFFFF:
            if data_size is None:
                return
            following = file.tell() + data_size + data_size % 2
        elif name in (b"guan", b"bext", b"iXML", b"LIST"):
            yield name, file.read(min(size, _LARGEST))
        file.seek(following)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace").strip("\0 \r\n")
