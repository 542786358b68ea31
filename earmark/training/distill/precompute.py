"""Precomputes the predictions of a teacher for every clip of a manifest.

Conventions: windows cover the whole clip evenly, and outputs are averaged over them. Files are written
atomically; an interrupted run over shards continues with the first missing one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.data.manifest import Clip
from earmark.data.read_clip import read_clip
from earmark.errors import DataError, ModelError, contained
from earmark.inference.torch_session import torch_device
from earmark.model_file.atomic import remove_partial, write_atomically
from earmark.model_file.lock import locked_folder
from earmark.training.distill.losses import Kind, as_scores
from earmark.training.distill.stored_predictions import SHARDS, PredictionsHeader, read_file, serialize
from earmark.training.distill.teacher_model import TeacherModel


def precompute(
    teacher: TeacherModel,
    clips: Sequence[Clip],
    output: Path,
    *,
    kind: Kind | None = None,
    manifests: Sequence[str] = (),
    shard_clips: int = 10_000,
    device: str = "cpu",
    on_error: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, str], None] = lambda done, path: None,
) -> int:
    """Writes the predictions of a teacher.

    Args:
        teacher: The teacher.
        clips: Clips with unique ids.
        output: A file (.npz), or a folder of shards.
        kind: What to store (default: logits); required for LiteRT files.
        manifests: SHA-256 of the clips' manifests.
        shard_clips: Clips per shard of a folder.
        device: Where checkpoints compute, as for :func:`earmark.load`.
        on_error: Called with a message for each clip that is skipped.
        progress: Called with the number of processed clips and the path of the next.

    Returns:
        The number of clips that were skipped.

    Raises:
        DataError: If ids repeat, the folder holds other predictions or is in use, or no clip could be
            processed.
        ModelError: If the teacher cannot provide this kind of output.
    """
    repeated = [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} ids belong to several clips, first {repeated[0]!r}: add a column id"
        )
    in_shards = output.suffix != ".npz"
    if in_shards and output.is_file():
        raise DataError(f"{output}: is a file: give a folder, or a file that ends in .npz")
    header = PredictionsHeader(
        labels=teacher.labels,
        kind=_stored_kind(teacher, kind),
        task=teacher.task,
        teachers=({"name": teacher.name, "sha256": teacher.sha256},),
        manifests=tuple(manifests),
        shard_clips=shard_clips if in_shards else None,
    )
    size = shard_clips if in_shards else len(clips)
    files = {
        _shard(output, first // size) if in_shards else output: clips[first : first + size]
        for first in range(0, len(clips), size)
    }
    job = _Job(teacher, header.kind, torch_device(device), on_error, progress)
    with locked_folder(output) if in_shards else nullcontext():
        done = _complete_shards(output, header, files) if in_shards else {}
        stored = sum(done.values())
        for number, (file, part) in enumerate(files.items()):
            if file in done:
                continue
            ids, outputs = job.run(part, number * size)
            if ids or in_shards:
                write_atomically(file, serialize(header, ids, outputs))
            stored += len(ids)
    if not stored:
        raise DataError(f"{output}: none of {len(clips)} clips could be processed")
    return len(clips) - stored


def _stored_kind(teacher: TeacherModel, kind: Kind | None) -> Kind:
    if teacher.kind is None:
        if kind is None:
            raise ModelError(
                f"{teacher.name}: LiteRT files do not state the kind of outputs: give --scores or --logits"
            )
        return kind
    if kind == "scores" and teacher.kind == "logits" and teacher.task is None:
        raise ModelError(f"{teacher.name}: its task is unknown, so scores cannot be computed: store logits")
    if kind == "logits" and teacher.kind == "scores":
        raise ModelError(f"{teacher.name}: outputs scores: give --scores")
    return kind or teacher.kind


def _shard(folder: Path, number: int) -> Path:
    return folder / SHARDS.replace("*", f"{number:05}")


def _complete_shards(
    folder: Path, header: PredictionsHeader, files: Mapping[Path, Sequence[Clip]]
) -> dict[Path, int]:
    """The shards that an earlier run has written, and how many predictions each holds."""
    done = {}
    for file in sorted(folder.glob(SHARDS)):
        own, ids, _ = read_file(file)
        expected = {clip.id for clip in files.get(file, ())}
        if own != header or not expected.issuperset(ids):
            raise DataError(
                f"{file}: holds predictions of another teacher, kind or manifest: choose another folder or "
                "delete it"
            )
        done[file] = len(ids)
    if folder.is_dir():
        remove_partial(folder)
    return done


@dataclass(frozen=True)
class _Job:
    """A teacher, and what to do with its outputs."""

    teacher: TeacherModel
    kind: Kind
    device: torch.device
    on_error: Callable[[str], None]
    progress: Callable[[int, str], None]

    def run(self, clips: Sequence[Clip], done: int) -> tuple[list[str], NDArray[np.float32]]:
        """Ids and outputs (clip, output) of the clips that could be processed."""
        ids, outputs = [], [np.zeros((0, len(self.teacher.labels)), np.float32)]
        for position, clip in enumerate(clips, done):
            self.progress(position, str(clip.path))
            try:
                outputs.append(self._predict(clip))
                ids.append(clip.id)
            except Exception as error:
                self.on_error(str(contained(error, str(clip.path))))
        return ids, np.concatenate(outputs)

    def _predict(self, clip: Clip) -> NDArray[np.float32]:
        teacher = self.teacher
        waveform = read_clip(clip, teacher.sample_rate)
        outputs = teacher(torch.from_numpy(waveform)[None].to(self.device), teacher.sample_rate).cpu()
        if self.kind == "scores" and teacher.kind == "logits" and teacher.task is not None:
            outputs = as_scores(outputs, teacher.task)
        if not outputs.isfinite().all():
            raise DataError(f"{clip.path}: the outputs of {teacher.name} are not finite")
        return np.asarray(outputs.numpy(), np.float32)
