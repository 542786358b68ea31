"""Writes one shard of a pack and its index.

Conventions: a shard is written whole or not at all, and then its index, so a shard with an index is complete.
Each clip is read, encoded, and decoded again as a check.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from earmark.audio import load_audio
from earmark.audio.encode import SUFFIXES, Codec, encode, is_encoded, to_int16
from earmark.data.manifest import Clip
from earmark.data.read_clip import encoded_audio, read_clip
from earmark.data.shards.index import ShardIndex, index_path, probes
from earmark.data.shards.shard_files import ArrayShard, Shard, TarShard
from earmark.errors import DataError, contained
from earmark.model_file.atomic import atomic_writer

Stored = Codec | Literal["pcm"]


@dataclass(frozen=True)
class ShardJob:
    """A shard to write.

    Args:
        shard: The file.
        fingerprint: Of clips and options.
        first: Row of its first clip in the manifest.
        clips: Clips to pack.
        keys: Their names.
        stored: Their codec.
        sample_rate: In Hz.
        left_out: Row -> reason of clips that are not to be read.
    """

    shard: Path
    fingerprint: str
    first: int
    clips: tuple[Clip, ...]
    keys: tuple[str, ...]
    stored: Stored
    sample_rate: int
    left_out: Mapping[int, str] = field(default_factory=dict)


def metadata_of(clip: Clip) -> dict[str, Any]:
    """Metadata of a clip, as stored beside it in a shard."""
    return {
        "id": clip.id,
        "labels": clip.labels,
        "unknown": clip.unknown,
        "labelled": clip.labelled,
        "fold": clip.fold,
        "extra": dict(clip.extra),
    }


def write_shard(job: ShardJob, before: Callable[[int], object] = lambda row: None) -> Path:
    """Writes a shard, then its index; returns the path of the shard.

    Args:
        job: The shard.
        before: Called with the row of each clip before it is read.

    Raises:
        OSError: If it cannot be written.
    """
    index_path(job.shard).unlink(missing_ok=True)
    columns: dict[str, list[int]] = {name: [] for name in ("rows", "offsets", "sizes", "samples", "checks")}
    bad: list[tuple[int, str]] = []
    with atomic_writer(job.shard) as stream:
        shard: Shard = ArrayShard(stream) if job.stored == "pcm" else TarShard(stream, SUFFIXES[job.stored])
        for row, (clip, key) in enumerate(zip(job.clips, job.keys, strict=True), start=job.first):
            if row in job.left_out:
                bad.append((row, job.left_out[row]))
                continue
            before(row)
            try:
                content, samples = _stored(clip, job.stored, job.sample_rate)
            except Exception as error:
                bad.append((row, str(contained(error, str(clip.path)))))
                continue
            metadata = metadata_of(clip) | {"samples": samples, "sample_rate": job.sample_rate}
            values = (row, shard.add(key, content, metadata), len(content), samples, zlib.crc32(content))
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        shard.finish()
        size, blocks = stream.seek(0, os.SEEK_END), probes(stream, shard.blocks)
    arrays = {name: np.array(column, np.int64) for name, column in columns.items()}
    index = ShardIndex(job.fingerprint, size, job.sample_rate, **arrays, probes=blocks, bad=tuple(bad))
    index.write(job.shard)
    return job.shard


def _stored(clip: Clip, stored: Stored, sample_rate: int) -> tuple[bytes, int]:
    """The packed bytes of a clip, and its length in samples.

    Raises:
        EarmarkError: If it cannot be read whole, or the codec does not reproduce it.
        OSError: If it cannot be read.
    """
    if clip.member is not None and clip.path.suffix == ".npy":
        waveform, source = read_clip(clip, sample_rate), None
    else:
        source = encoded_audio(clip)
        waveform, _ = load_audio(source, sample_rate, whole=True)
    samples = to_int16(waveform)
    if stored == "pcm":
        return samples.astype("<i2").tobytes(), len(samples)
    content = _already_encoded(source, stored, sample_rate) or encode(samples, sample_rate, stored)
    back = load_audio(content, sample_rate)[0]
    if len(back) != len(samples) or (stored == "flac" and not np.array_equal(to_int16(back), samples)):
        raise DataError(
            f"{clip.path}: {stored} does not reproduce its {len(samples)} samples ({len(back)} decoded)"
        )
    return content, len(samples)


def _already_encoded(source: Path | io.BytesIO | None, codec: Codec, sample_rate: int) -> bytes | None:
    """The bytes of a file that has the codec and sample rate already."""
    if isinstance(source, io.BytesIO):
        content = source.getvalue()
    elif source is not None and source.suffix.lower() in (SUFFIXES[codec], f".{codec}"):
        content = source.read_bytes()
    else:
        return None
    return content if is_encoded(content, sample_rate, codec) else None
