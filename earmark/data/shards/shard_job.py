"""A part of a pack: so many clips in a row -> one shard and its index.

Conventions: a shard is written whole or not at all, and its index behind it, so a shard that has one is
finished. Each clip is read whole, encoded, and decoded again before it counts.
"""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from earmark.audio import load_audio
from earmark.audio.encode import SUFFIXES, Codec, encode, is_encoded, to_int16
from earmark.audio.soundfile_reader import NEVER_COMPLETED
from earmark.data.manifest import Clip
from earmark.data.read_clip import read_clip, recording
from earmark.data.shards.index import ShardIndex, index_path, probes
from earmark.data.shards.shard_files import ArrayShard, Shard, TarShard
from earmark.errors import DataError, EarmarkError
from earmark.model_file.atomic import atomic_writer

Stored = Codec | Literal["pcm"]


@dataclass(frozen=True)
class Part:
    """What one process does at a time.

    Args:
        shard: The file to write.
        of: Fingerprint of clips and choices.
        first: Position of its first clip among all.
        clips: What to pack.
        keys: Their names.
        stored: What they become.
        sample_rate: In Hz.
    """

    shard: Path
    of: str
    first: int
    clips: tuple[Clip, ...]
    keys: tuple[str, ...]
    stored: Stored
    sample_rate: int


def facts_of(clip: Clip) -> dict[str, Any]:
    """What is said of a clip, as it stands beside its recording in a shard."""
    return {
        "id": clip.id,
        "labels": clip.labels,
        "unknown": clip.unknown,
        "labelled": clip.labelled,
        "fold": clip.fold,
        "extra": dict(clip.extra),
    }


def make_part(part: Part) -> Path:
    """Writes the shard of a part, then its index; returns the shard.

    Raises:
        OSError: If it cannot be written.
    """
    index_path(part.shard).unlink(missing_ok=True)
    columns: dict[str, list[int]] = {name: [] for name in ("rows", "offsets", "sizes", "samples", "checks")}
    bad: list[tuple[int, str]] = []
    with atomic_writer(part.shard) as stream:
        shard: Shard = ArrayShard(stream) if part.stored == "pcm" else TarShard(stream, SUFFIXES[part.stored])
        for row, (clip, key) in enumerate(zip(part.clips, part.keys, strict=True), start=part.first):
            try:
                content, samples = _stored(clip, part.stored, part.sample_rate)
            except (EarmarkError, OSError) as error:
                bad.append((row, " ".join(f"{error}".split())))
                continue
            facts = facts_of(clip) | {"samples": samples, "sample_rate": part.sample_rate}
            values = (row, shard.add(key, content, facts), len(content), samples, zlib.crc32(content))
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        shard.finish()
        size, known_by = stream.seek(0, os.SEEK_END), probes(stream, shard.blocks)
    arrays = {name: np.array(column, np.int64) for name, column in columns.items()}
    index = ShardIndex(part.of, size, part.sample_rate, **arrays, probes=known_by, bad=tuple(bad))
    index.write(part.shard)
    return part.shard


def _stored(clip: Clip, stored: Stored, sample_rate: int) -> tuple[bytes, int]:
    """A clip as it is packed, and its length in samples.

    Raises:
        EarmarkError: If it cannot be read whole, or the codec does not give back what was encoded.
        OSError: If it cannot be read.
    """
    if clip.member is not None and clip.path.suffix == ".npy":
        waveform, source = read_clip(clip, sample_rate), None
    else:
        source = recording(clip)
        waveform, warnings = load_audio(source, sample_rate)
        damage = [warning for warning in warnings if not warning.startswith(NEVER_COMPLETED)]
        if damage:
            raise DataError(f"{clip.path}: {damage[0]}")
    samples = to_int16(waveform)
    if stored == "pcm":
        return samples.astype("<i2").tobytes(), len(samples)
    content = _as_it_is(source, stored, sample_rate) or encode(samples, sample_rate, stored)
    back = load_audio(content, sample_rate)[0]
    if len(back) != len(samples) or (stored == "flac" and not np.array_equal(to_int16(back), samples)):
        raise DataError(
            f"{clip.path}: {stored} gives back {len(back)} samples that are not the {len(samples)} encoded"
        )
    return content, len(samples)


def _as_it_is(source: Path | io.BytesIO | None, codec: Codec, sample_rate: int) -> bytes | None:
    """The bytes of a recording that needs no encoding, which would only lose something."""
    if isinstance(source, io.BytesIO):
        content = source.getvalue()
    elif source is not None and source.suffix.lower() in (SUFFIXES[codec], f".{codec}"):
        content = source.read_bytes()
    else:
        return None
    return content if is_encoded(content, sample_rate, codec) else None
