"""Asks a teacher about every clip of a manifest and stores what it says, to be learned from later.

Conventions: a clip is heard whole, by windows that cover it evenly; its answer is the mean over them. Files
are written whole or not at all, so an interrupted run over shards goes on with the first that is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.data.manifest import Clip
from earmark.data.read_clip import read_clip
from earmark.errors import DataError, EarmarkError, ModelError
from earmark.model_file.atomic import remove_partial, write_atomically
from earmark.training.distill.losses import Kind, as_scores
from earmark.training.distill.stored_predictions import SHARDS, Heading, packed, read_file
from earmark.training.distill.teacher_model import Listener


def teach(
    listener: Listener,
    clips: Sequence[Clip],
    out: Path,
    *,
    kind: Kind | None = None,
    manifests: Sequence[str] = (),
    shard_clips: int = 10_000,
    complain: Callable[[str], None] = lambda message: None,
    show: Callable[[int, str], None] = lambda done, path: None,
) -> int:
    """Writes what a teacher says of clips.

    Args:
        listener: The teacher.
        clips: What it is asked about; no two of one id.
        out: A file (.npz), or a folder of shards.
        kind: What is stored; by default logits. What a LiteRT file answers with has to be said here.
        manifests: SHA-256 of the tables that the clips are from.
        shard_clips: Clips for each file of a folder.
        complain: Is told of each clip that is left out, and why.
        show: Is told how many clips are done and which comes next.

    Returns:
        The number of clips that are left out.

    Raises:
        DataError: If two clips have one id, the folder holds other answers, or no clip could be heard.
        ModelError: If the teacher cannot say scores.
    """
    twice = [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]
    if twice:
        raise DataError(f"{len(twice)} ids stand for more than one clip, first {twice[0]!r}: add a column id")
    stored_kind = _stored_kind(listener, kind)
    in_shards = out.suffix != ".npz"
    heading = Heading(
        labels=listener.labels,
        kind=stored_kind,
        task=listener.task,
        teachers=({"name": listener.name, "sha256": listener.sha256},),
        manifests=tuple(manifests),
        shard_clips=shard_clips if in_shards else None,
    )
    size = shard_clips if in_shards else len(clips)
    parts = [(_shard(out, first // size) if in_shards else out, clips[first : first + size])
             for first in range(0, len(clips), size)]  # fmt: skip
    begun = _begun(out, heading, parts) if in_shards else {}
    stored = sum(begun.values())
    for number, (file, part) in enumerate(parts):
        if file in begun:
            continue
        ids, answers = _ask(listener, part, stored_kind, number * size, complain, show)
        if ids or in_shards:
            write_atomically(file, packed(heading, ids, answers))
        stored += len(ids)
    if not stored:
        raise DataError(f"{out}: not one of {len(clips)} clips could be heard")
    return len(clips) - stored


def _stored_kind(listener: Listener, kind: Kind | None) -> Kind:
    if listener.kind is None:
        if kind is None:
            raise ModelError(
                f"{listener.name}: a LiteRT file does not say what it answers with: give --scores or --logits"
            )
        return kind
    if kind == "scores" and listener.kind == "logits" and listener.task is None:
        raise ModelError(
            f"{listener.name}: does not say whether its classes exclude each other: store its logits"
        )
    if kind == "logits" and listener.kind == "scores":
        raise ModelError(f"{listener.name}: answers with scores: give --scores")
    return kind or listener.kind


def _shard(folder: Path, number: int) -> Path:
    return folder / SHARDS.replace("*", f"{number:05}")


def _begun(folder: Path, heading: Heading, parts: Sequence[tuple[Path, Sequence[Clip]]]) -> dict[Path, int]:
    """The shards that an earlier run has written, and how many answers each holds."""
    if folder.is_file():
        raise DataError(f"{folder}: is a file: name a folder, or a file that ends in .npz")
    wanted = dict(parts)
    begun = {}
    for file in sorted(folder.glob(SHARDS)):
        own, ids, _ = read_file(file)
        known = {clip.id for clip in wanted.get(file, ())}
        if own != heading or not known.issuperset(ids):
            raise DataError(
                f"{file}: holds answers of another teacher, kind or manifest: choose another folder or "
                "remove it"
            )
        begun[file] = len(ids)
    if folder.is_dir():
        remove_partial(folder)
    return begun


def _ask(
    listener: Listener,
    clips: Sequence[Clip],
    kind: Kind,
    done: int,
    complain: Callable[[str], None],
    show: Callable[[int, str], None],
) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and answers of the clips that could be heard."""
    ids, answers = [], [np.zeros((0, len(listener.labels)), np.float32)]
    for clip in clips:
        show(done, str(clip.path))
        done += 1
        try:
            answers.append(_answer(listener, clip, kind))
            ids.append(clip.id)
        except (EarmarkError, OSError) as error:
            complain(str(error))
    return ids, np.concatenate(answers)


def _answer(listener: Listener, clip: Clip, kind: Kind) -> NDArray[np.float32]:
    waveform = read_clip(clip, listener.sample_rate)
    answer = listener(torch.from_numpy(waveform)[None], listener.sample_rate)
    if kind == "scores" and listener.kind == "logits" and listener.task is not None:
        answer = as_scores(answer, listener.task)
    if not answer.isfinite().all():
        raise DataError(f"{clip.path}: {listener.name} answers with what is no number")
    return np.asarray(answer.numpy(), np.float32)
