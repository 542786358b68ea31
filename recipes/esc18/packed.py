"""Finds the recordings inside an unpacked package, also in the archives and banks that games pack them into.

Conventions: a recording is named by its path, parts inside an archive after a "!"; file formats are detected
by their first bytes, never by their suffix; samples are float64 of shape (time,), channels averaged.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import soundfile

from earmark.errors import DataError

SOUNDS = (b"OggS", b"fLaC", b"FORM", b"ID3", b"\xff\xfb")  # and RIFF of the WAVE form
GROUP, GROUP_HEADER, GROUP_ENTRY = b"\x1e\x8c", 204, 316  # OpenClonk: gzip under another magic number
Recording = tuple[np.ndarray, int]


def recordings(folder: Path, patterns: list[str]) -> Iterator[tuple[str, Recording]]:
    """The recordings below a folder whose names match a pattern, in the order of their names.

    Args:
        folder: An unpacked package.
        patterns: As ``usr/share/sounds/*.ogg`` or ``usr/games/data.zip!sounds/*``; a star crosses slashes.

    Returns:
        Pairs of a name and its samples with their rate in Hz.

    Raises:
        DataError: If a file that should be a recording cannot be read.
    """
    outer = [pattern.split("!")[0] for pattern in patterns]
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.is_symlink() or not any(fnmatchcase(name, p) for p in outer):
            continue
        for inner, read in _opened(path.read_bytes()):
            full = f"{name}!{inner}" if inner else name
            if any(fnmatchcase(full, pattern) for pattern in patterns):
                try:
                    yield full, read()
                except (soundfile.SoundFileError, struct.error, ValueError) as error:
                    raise DataError(f"{path}: {inner or 'this file'} is no readable recording") from error


def _opened(data: bytes):
    """Names and readers of what a file holds: itself if it is a recording, else its members."""
    if _is_sound(data):
        yield "", lambda: _decoded(data)
    elif data[8:12] == b"sfbk":
        yield from _bank(data)
    elif data[:4] in (b"IWAD", b"PWAD"):
        yield from _lumps(data)
    elif data[:2] == GROUP:
        for name, member in _group(gzip.decompress(b"\x1f\x8b" + data[2:])):
            if _is_sound(member):
                yield name, lambda member=member: _decoded(member)
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in sorted(archive.namelist()):
                if _is_sound(archive.open(name).read(12)):
                    yield name, lambda name=name: _decoded(archive.read(name))


def _is_sound(data: bytes) -> bool:
    return data.startswith(SOUNDS) or (data[:4] == b"RIFF" and data[8:12] == b"WAVE")


def _decoded(data: bytes) -> Recording:
    samples, rate = soundfile.read(io.BytesIO(data), always_2d=True)
    return samples.mean(axis=1), int(rate)


def _bank(data: bytes):
    """The samples of a SoundFont 2 bank: 16 bits, one channel each."""
    chunks = {tag: data.rfind(tag) + 8 for tag in (b"shdr", b"smpl")}
    size = struct.unpack_from("<I", data, chunks[b"shdr"] - 4)[0]
    for at in range(chunks[b"shdr"], chunks[b"shdr"] + size, 46):
        name, start, end, _, _, rate = struct.unpack_from("<20sIIIII", data, at)
        if rate and end > start:
            where = (end - start, chunks[b"smpl"] + 2 * start)
            shown = name.split(b"\0")[0].decode("latin1")
            yield shown, lambda where=where, rate=rate: (np.frombuffer(data, "<i2", *where) / 32768, rate)


def _lumps(data: bytes):
    """The sounds (DS...) of a Doom WAD: 8 bits, under a header of 8 bytes and 16 of padding at either end."""
    count, table = struct.unpack_from("<II", data, 4)
    for at in range(table, table + 16 * count, 16):
        start, size, name = struct.unpack_from("<II8s", data, at)
        if name.startswith(b"DS") and size > 40 and data[start : start + 2] == b"\x03\x00":
            rate = struct.unpack_from("<H", data, start + 2)[0]
            samples = np.frombuffer(data, np.uint8, size - 40, start + 24)
            yield (
                name.rstrip(b"\0").decode("latin1"),
                lambda samples=samples, rate=rate: ((samples - 128.0) / 128, rate),
            )


def _group(data: bytes, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Names and contents of an OpenClonk group and of the groups in it; the header is scrambled."""
    header = bytearray(byte ^ 237 for byte in data[:GROUP_HEADER])
    for at in range(0, GROUP_HEADER - 2, 3):
        header[at], header[at + 2] = header[at + 2], header[at]
    count = struct.unpack_from("<i", header, 36)[0]
    contents = GROUP_HEADER + GROUP_ENTRY * count
    for at in range(GROUP_HEADER, contents, GROUP_ENTRY):
        name = prefix + data[at : at + 260].split(b"\0")[0].decode("latin1")
        _, is_group, size, _, offset = struct.unpack_from("<5i", data, at + 260)
        member = data[contents + offset : contents + offset + size]
        if is_group:
            yield from _group(member, name + "/")
        else:
            yield name, member
