"""Writes packs, shard by shard, in several processes.

Conventions: a call that was interrupted is continued by the same call, with the same bytes as one that was
not. For HDF5, shards of mp3 are written into ``.parts`` and joined at the end. A clip that cannot be packed
does not end the call: it is listed in ``bad.csv``.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from earmark.audio.encode import Codec, check_rate
from earmark.data.manifest import Clip, label_set
from earmark.data.shards.hdf5_writer import write_hdf5
from earmark.data.shards.index import ShardIndex, find_index, index_path
from earmark.data.shards.pack import (
    HDF5,
    MANIFEST_FILE,
    PACK_FILE,
    SKIPPED_FILE,
    Format,
    PackInfo,
    check,
    manifest_csv,
    read_pack_info,
)
from earmark.data.shards.shard_files import keys_of
from earmark.data.shards.shard_job import ShardJob, Stored, metadata_of, write_shard
from earmark.data.shards.workers import MAX_WORKERS, write_shards
from earmark.errors import DataError
from earmark.model_file.atomic import remove_partial, write_atomically
from earmark.model_file.lock import locked_folder

_PARTS_FOLDER = ".parts"


@dataclass(frozen=True)
class PackOptions:
    """Format of a pack.

    Args:
        format: "shards" (tar), "hdf5" (one file), or "memmap" (arrays).
        codec: Of shards: "flac", "mp3" or "opus"; None: FLAC. HDF5 files have mp3, arrays have samples.
        sample_rate: Of all clips, in Hz; others are resampled.
        shard_clips: Clips per shard.
        labels: All classes, in the order of an HDF5 file's columns; None: those of the clips, sorted.
    """

    format: Format = "shards"
    codec: Codec | None = None
    sample_rate: int = 32000
    shard_clips: int = 2000
    labels: tuple[str, ...] | None = None

    @property
    def stored(self) -> Stored:
        """Codec of the clips.

        Raises:
            DataError: If the format does not have that codec.
        """
        fixed: dict[Format, Stored] = {"hdf5": "mp3", "memmap": "pcm"}
        only = fixed.get(self.format)
        if only and self.codec not in (None, only):
            raise DataError(f"codec of format {self.format} must be {only}, got {self.codec}")
        return only or self.codec or "flac"


def pack(
    clips: Sequence[Clip],
    out: Path,
    options: PackOptions,
    *,
    workers: int = 0,
    on_error: Callable[[str], object] = lambda reason: None,
    progress: Callable[[int], object] = lambda done: None,
) -> PackInfo:
    """Packs clips, or continues a call that was interrupted.

    Args:
        clips: Of a manifest or a corpus.
        out: Folder of the pack.
        options: Format of the pack.
        workers: Number of processes, up to 256; 0: this one, which a clip that crashes a decoder ends too.
        on_error: Called with the reason for each clip that is skipped.
        progress: Called with the number of clips that are done.

    Returns:
        Description of the pack.

    Raises:
        AudioError: If the codec does not support the sample rate.
        DataError: If the folder has another pack or is in use, a label is not in ``options.labels``, the disk
            is full, a process is killed, or no clip can be packed.
        MissingExtraError: If HDF5 is requested and h5py is not installed.
    """
    labels = _labels(clips, options)
    if options.stored != "pcm":
        check_rate(options.stored, options.sample_rate)
    if not 0 <= workers <= MAX_WORKERS:
        raise DataError(f"workers must be between 0 and {MAX_WORKERS}, got {workers}")
    if out.is_file():
        raise DataError(f"{out}: is a file, choose a folder")
    jobs = _jobs(clips, out, options, labels)
    fingerprint = _fingerprint([job.fingerprint for job in jobs])
    done = _finished(out, fingerprint, jobs)
    if done is not None:
        return done
    with _one_line_errors(out), locked_folder(out):
        _clear(out, jobs)
        indexes = list(_indexes(jobs, workers, on_error, progress))
        return _finish(clips, out, options, labels, fingerprint, jobs, indexes)


def _labels(clips: Sequence[Clip], options: PackOptions) -> tuple[str, ...]:
    found = label_set(clips)
    unknown = sorted(set(found) - set(options.labels or found))
    if unknown:
        raise DataError(
            f"{len(unknown)} labels of the clips are not among the pack's labels, the first is {unknown[0]!r}"
        )
    return options.labels or found


def _jobs(clips: Sequence[Clip], out: Path, options: PackOptions, labels: Sequence[str]) -> list[ShardJob]:
    folder = out / _PARTS_FOLDER if options.format == "hdf5" else out
    suffix = ".npy" if options.stored == "pcm" else ".tar"
    keys, size = keys_of(clips), options.shard_clips
    jobs = []
    for first in range(0, len(clips), size):
        own = tuple(clips[first : first + size])
        metadata = [[str(clip.path), clip.member, metadata_of(clip)] for clip in own]
        fingerprint = _fingerprint([asdict(options), labels, first, metadata])
        shard = folder / f"{first // size:06}{suffix}"
        names = tuple(keys[first : first + size])
        jobs.append(ShardJob(shard, fingerprint, first, own, names, options.stored, options.sample_rate))
    return jobs


def _fingerprint(metadata: Any) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def _finished(out: Path, fingerprint: str, jobs: Sequence[ShardJob]) -> PackInfo | None:
    """Description of the pack if it is complete already, else None."""
    if not (out / PACK_FILE).exists():
        return None
    info = read_pack_info(out)
    if info.fingerprint != fingerprint:
        raise DataError(_ANOTHER.format(out))
    try:
        check(out)
    except DataError:  # a file is missing, or was made by something else
        return None
    whole = info.format == "hdf5" or all(_index_of(job.shard) for job in jobs)
    return info if whole else None


_ANOTHER = "{}: has a pack of other clips or options: choose another folder or remove it"


def _clear(out: Path, jobs: Sequence[ShardJob]) -> None:
    """Prepares the folder: removes partial files, rejects those of another pack."""
    (out / PACK_FILE).unlink(missing_ok=True)
    own = {index_path(job.shard): job for job in jobs}
    for folder in {out, *(job.shard.parent for job in jobs)}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
        for path in folder.glob("*.index.json"):
            index = _index_of(own[path].shard) if path in own else None
            if path not in own or (index is not None and index.fingerprint != own[path].fingerprint):
                raise DataError(_ANOTHER.format(out))


def _index_of(shard: Path) -> ShardIndex | None:
    """The index of a complete shard, else None."""
    try:
        index = find_index(shard)
    except DataError:
        return None
    return index if shard.stat().st_size == index.size else None


def _indexes(
    jobs: Sequence[ShardJob],
    workers: int,
    on_error: Callable[[str], object],
    progress: Callable[[int], object],
) -> Iterator[ShardIndex]:
    """Writes the missing shards; then yields all indexes, in order."""
    there = {job.shard: _index_of(job.shard) for job in jobs}
    missing = [job for job in jobs if there[job.shard] is None]
    done = sum(len(job.clips) for job in jobs) - sum(len(job.clips) for job in missing)
    progress(done)
    sizes = {job.shard: len(job.clips) for job in missing}
    for shard in _written(missing, workers):
        there[shard] = find_index(shard)
        done += sizes[shard]
        progress(done)
    for job in jobs:
        index = there[job.shard]
        assert index is not None
        for _, reason in index.bad:
            on_error(reason)
        yield index


def _written(jobs: Sequence[ShardJob], workers: int) -> Iterator[Path]:
    """Writes shards, and yields their paths as they become ready."""
    if not workers:
        yield from map(write_shard, jobs)
        return
    try:
        yield from write_shards(jobs, workers)
    finally:
        for folder in {job.shard.parent for job in jobs}:  # of processes that have died
            remove_partial(folder)


def _finish(
    clips: Sequence[Clip],
    out: Path,
    options: PackOptions,
    labels: tuple[str, ...],
    fingerprint: str,
    jobs: Sequence[ShardJob],
    indexes: Sequence[ShardIndex],
) -> PackInfo:
    """Writes the tables, and finally the description."""
    bad = [(clips[row], reason) for index in indexes for row, reason in index.bad]
    places = [
        (job.shard, place, int(row))
        for job, index in zip(jobs, indexes, strict=True)
        for place, row in enumerate(index.rows)
    ]
    if not places:
        raise DataError(
            f"{out}: none of the {len(clips)} clips can be packed: {bad[0][1] if bad else 'there are none'}"
        )
    _write_bad(out / SKIPPED_FILE, bad)
    held = [clips[row] for _, _, row in places]
    files, names = tuple(job.shard.name for job in jobs), ""
    if options.format == "hdf5":
        files = (HDF5,)
        names = write_hdf5(out / HDF5, held, labels, [(shard, place) for shard, place, _ in places])
        places = [(out / HDF5, member, row) for member, (_, _, row) in enumerate(places)]
    packed = [
        replace(clip, path=shard, member=place, extra={**clip.extra, "id": clip.id})
        for clip, (shard, place, _) in zip(held, places, strict=True)
    ]
    write_atomically(out / MANIFEST_FILE, manifest_csv(packed))
    info = PackInfo(
        fingerprint=fingerprint,
        format=options.format,
        codec=options.stored,
        sample_rate=options.sample_rate,
        labels=labels,
        labelled=any(clip.labelled for clip in held),
        clips=len(packed),
        bad=len(bad),
        seconds=round(sum(int(index.samples.sum()) for index in indexes) / options.sample_rate, 3),
        files=files,
        names=names,
    )
    write_atomically(out / PACK_FILE, info.to_json())
    if options.format == "hdf5":
        shutil.rmtree(out / _PARTS_FOLDER)
    return info


def _write_bad(path: Path, bad: Sequence[tuple[Clip, str]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("path", "member", "reason"))
    writer.writerows((clip.path, "" if clip.member is None else clip.member, reason) for clip, reason in bad)
    write_atomically(path, stream.getvalue())


@contextmanager
def _one_line_errors(out: Path) -> Iterator[None]:
    """Turns errors of the disk into one-line errors."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space" if full else "fix this"
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}): {advice} and run the same command again "
            "to continue"
        ) from None
