"""Clips -> a pack, part by part, in several processes.

Conventions: a part becomes one shard and its index; the same call goes on with the parts that are missing,
and ends with the same bytes. For HDF5 the parts are shards of mp3 in ``.parts``, joined at the end. A clip
that cannot be packed ends nothing: it is listed in ``bad.csv``.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from earmark.audio.encode import Codec, check_rate
from earmark.data.manifest import Clip, label_set
from earmark.data.shards.hdf5_writer import write_hdf5
from earmark.data.shards.index import ShardIndex, find_index, index_path
from earmark.data.shards.pack import BAD, HDF5, HEADING, TABLE, Format, Heading, check, read_heading, table
from earmark.data.shards.shard_job import Part, Stored, facts_of, make_part
from earmark.data.shards.shard_files import keys_of
from earmark.errors import DataError
from earmark.model_file.atomic import remove_partial, write_atomically

PARTS = ".parts"


@dataclass(frozen=True)
class Packing:
    """How clips are packed.

    Args:
        format: "shards" (tar), "hdf5" (one file), or "memmap" (arrays).
        codec: Of shards: "flac", "mp3" or "opus"; None: FLAC. HDF5 holds mp3, arrays hold samples.
        sample_rate: Of all recordings, in Hz; others are resampled.
        shard_clips: Clips for each shard.
        labels: Every class, in the order of an HDF5 file's columns; None: those of the clips, from A to Z.
    """

    format: Format = "shards"
    codec: Codec | None = None
    sample_rate: int = 32000
    shard_clips: int = 2000
    labels: tuple[str, ...] | None = None

    @property
    def stored(self) -> Stored:
        """What recordings become.

        Raises:
            DataError: If the format holds no such codec.
        """
        fixed: dict[Format, Stored] = {"hdf5": "mp3", "memmap": "pcm"}
        only = fixed.get(self.format)
        if only and self.codec not in (None, only):
            holds = "mp3" if only == "mp3" else "samples as they are"
            raise DataError(
                f"format {self.format} holds {holds}: leave codec {self.codec} out, or choose shards"
            )
        return only or self.codec or "flac"


def pack(
    clips: Sequence[Clip],
    out: Path,
    packing: Packing,
    *,
    workers: int = 1,
    complain: Callable[[str], object] = lambda reason: None,
    show: Callable[[int], object] = lambda done: None,
) -> Heading:
    """Packs clips, or goes on where a call that was cut short stopped.

    Args:
        clips: Of a manifest or a corpus.
        out: Folder of the pack.
        packing: How.
        workers: Processes; 1: this one.
        complain: Is told of each clip that is left out, and why.
        show: Is told how many clips are done.

    Returns:
        What the pack says of itself.

    Raises:
        AudioError: If the codec does not know the rate.
        DataError: If the folder holds another pack, a label is not among the labels, the disk is full, or no
            clip could be packed.
        MissingExtraError: If HDF5 is asked for and h5py is not installed.
    """
    labels = _labels(clips, packing)
    if packing.stored != "pcm":
        check_rate(packing.stored, packing.sample_rate)
    if out.is_file():
        raise DataError(f"{out}: is a file: name a folder")
    parts = _parts(clips, out, packing, labels)
    of = _fingerprint([part.of for part in parts])
    done = _finished(out, of, parts)
    if done is not None:
        return done
    with _one_line(out):
        _clear(out, parts)
        indexes = list(_made(parts, workers, complain, show))
        return _finish(clips, out, packing, labels, of, parts, indexes)


def _labels(clips: Sequence[Clip], packing: Packing) -> tuple[str, ...]:
    found = label_set(clips)
    strange = sorted(set(found) - set(packing.labels or found))
    if strange:
        raise DataError(
            f"{len(strange)} labels of clips, first {strange[0]!r}, are not among those to pack with"
        )
    return packing.labels or found


def _parts(clips: Sequence[Clip], out: Path, packing: Packing, labels: Sequence[str]) -> list[Part]:
    folder = out / PARTS if packing.format == "hdf5" else out
    suffix = ".npy" if packing.stored == "pcm" else ".tar"
    keys, size = keys_of(clips), packing.shard_clips
    parts = []
    for first in range(0, len(clips), size):
        own = tuple(clips[first : first + size])
        facts = [[str(clip.path), clip.member, facts_of(clip)] for clip in own]
        of = _fingerprint([asdict(packing), labels, first, facts])
        shard = folder / f"{first // size:06}{suffix}"
        names = tuple(keys[first : first + size])
        parts.append(Part(shard, of, first, own, names, packing.stored, packing.sample_rate))
    return parts


def _fingerprint(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _finished(out: Path, of: str, parts: Sequence[Part]) -> Heading | None:
    """The heading of a pack that is there already, whole; None where there is something to do."""
    if not (out / HEADING).exists():
        return None
    heading = read_heading(out)
    if heading.of != of:
        raise DataError(_ANOTHER.format(out))
    try:
        check(out)
    except DataError:  # a file is missing, or was made by something else
        return None
    whole = heading.format == "hdf5" or all(_index_of(part.shard) for part in parts)
    return heading if whole else None


_ANOTHER = "{}: holds a pack of other clips or of other choices: choose another folder or remove it"


def _clear(out: Path, parts: Sequence[Part]) -> None:
    """Makes the folder ready: what killed calls had begun goes, what another pack left is refused."""
    (out / HEADING).unlink(missing_ok=True)
    own = {index_path(part.shard): part for part in parts}
    for folder in {out, *(part.shard.parent for part in parts)}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
        for path in folder.glob("*.index.json"):
            index = _index_of(own[path].shard) if path in own else None
            if path not in own or (index is not None and index.of != own[path].of):
                raise DataError(_ANOTHER.format(out))


def _index_of(shard: Path) -> ShardIndex | None:
    """The index of a shard that is there and whole."""
    try:
        index = find_index(shard)
    except DataError:
        return None
    return index if shard.stat().st_size == index.size else None


def _made(
    parts: Sequence[Part],
    workers: int,
    complain: Callable[[str], object],
    show: Callable[[int], object],
) -> Iterator[ShardIndex]:
    """Makes the parts that are missing; then yields the index of each, in order."""
    there = {part.shard: _index_of(part.shard) for part in parts}
    missing = [part for part in parts if there[part.shard] is None]
    done = sum(len(part.clips) for part in parts) - sum(len(part.clips) for part in missing)
    show(done)
    sizes = {part.shard: len(part.clips) for part in missing}
    for shard in _worked(missing, workers):
        there[shard] = find_index(shard)
        done += sizes[shard]
        show(done)
    for part in parts:
        index = there[part.shard]
        assert index is not None
        for _, reason in index.bad:
            complain(reason)
        yield index


def _worked(parts: Sequence[Part], workers: int) -> Iterator[Path]:
    """Makes parts, and yields their shards as they become ready."""
    if workers == 1 or len(parts) < 2:
        yield from map(make_part, parts)
        return
    # Not forked: the libraries of this process may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(parts)), context, _end_with_parent) as pool:
        try:
            yield from _in_turn(pool, parts, 2 * workers)
        except BrokenExecutor:
            raise DataError(
                "a process that packs was killed (is memory short?): the same command goes on, --workers 1 "
                "takes the least"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _in_turn(pool: Executor, parts: Sequence[Part], ahead: int) -> Iterator[Path]:
    """Hands parts out, a few ahead of those that are done."""
    waiting: set[Future[Path]] = set()
    for part in parts:
        if len(waiting) == ahead:
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ready)
        waiting.add(pool.submit(make_part, part))
    while waiting:
        ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in ready)


def _end_with_parent() -> None:
    """In a process of the pool: ends it when the one that started it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _finish(
    clips: Sequence[Clip],
    out: Path,
    packing: Packing,
    labels: tuple[str, ...],
    of: str,
    parts: Sequence[Part],
    indexes: Sequence[ShardIndex],
) -> Heading:
    """Writes the tables, and last of all the heading."""
    bad = [(clips[row], reason) for index in indexes for row, reason in index.bad]
    places = [
        (part.shard, place, int(row))
        for part, index in zip(parts, indexes, strict=True)
        for place, row in enumerate(index.rows)
    ]
    if not places:
        raise DataError(
            f"{out}: not one of {len(clips)} clips could be packed: {bad[0][1] if bad else 'none is listed'}"
        )
    _write_bad(out / BAD, bad)
    held = [clips[row] for _, _, row in places]
    files, names = tuple(part.shard.name for part in parts), ""
    if packing.format == "hdf5":
        files = (HDF5,)
        names = write_hdf5(out / HDF5, held, labels, [(shard, place) for shard, place, _ in places])
        places = [(out / HDF5, member, row) for member, (_, _, row) in enumerate(places)]
    packed = [
        replace(clip, path=shard, member=place, extra={**clip.extra, "id": clip.id})
        for clip, (shard, place, _) in zip(held, places, strict=True)
    ]
    write_atomically(out / TABLE, table(packed))
    heading = Heading(
        of=of,
        format=packing.format,
        codec=packing.stored,
        sample_rate=packing.sample_rate,
        labels=labels,
        labelled=any(clip.labelled for clip in held),
        clips=len(packed),
        bad=len(bad),
        seconds=round(sum(int(index.samples.sum()) for index in indexes) / packing.sample_rate, 3),
        files=files,
        names=names,
    )
    write_atomically(out / HEADING, heading.to_json())
    if packing.format == "hdf5":
        shutil.rmtree(out / PARTS)
    return heading


def _write_bad(path: Path, bad: Sequence[tuple[Clip, str]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("path", "member", "reason"))
    writer.writerows((clip.path, "" if clip.member is None else clip.member, reason) for clip, reason in bad)
    write_atomically(path, stream.getvalue())


@contextmanager
def _one_line(out: Path) -> Iterator[None]:
    """Says in one line what a full disk leaves behind."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room" if full else "mend that"
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}): {advice} and run the same command again, "
            "it goes on behind the shards that are finished"
        ) from None
