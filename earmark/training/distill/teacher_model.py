"""Teacher models: networks of any origin that predict from waveforms during training.

Conventions: a teacher takes waveforms (batch, time) at any rate and returns (batch, output), the mean over
windows of its own length that cover a waveform evenly. Each has its own front-end and rate; outputs are on
the waveforms' device. Files are read locally and never unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from earmark.errors import ModelError
from earmark.inference.ensemble import require_same_labels
from earmark.model_file.info import Task
from earmark.training.distill.losses import Kind

HUGGING_FACE = "hf:"
"""Prefix of the folder of a Hugging Face model."""
LITERT = ".tflite"


class TeacherModel(Protocol):
    """The interface of all teachers."""

    name: str
    sha256: str
    labels: tuple[str, ...]
    """One for each output."""
    kind: Kind | None
    """Kind of the outputs; None if the file does not store it."""
    task: Task | None
    """Decides between sigmoid and softmax; None if the file does not store it."""
    sample_rate: int
    """Of its front-end, in Hz."""

    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Predicts from waveforms, float32 (batch, time), at a rate in Hz: float32 (batch, output)."""


class EnsembleTeacher:
    """The mean of several teachers' logits.

    Args:
        members: At least two.

    Raises:
        ModelError: If labels or tasks differ, or one does not output logits.
    """

    kind: Kind | None = "logits"

    def __init__(self, members: Sequence[TeacherModel]) -> None:
        first = members[0]
        for other in members[1:]:
            require_same_labels(first.name, first.labels, other.name, other.labels)
            if other.task != first.task:
                raise ModelError(
                    f"{first.name} and {other.name} cannot be combined: their tasks differ ({first.task} "
                    f"and {other.task})"
                )
        without_logits = [member.name for member in members if member.kind != "logits"]
        if without_logits:
            raise ModelError(f"{without_logits[0]}: ensembles need models that output logits")
        self.members = members
        self.name = "+".join(member.name for member in members)
        self.sha256 = "+".join(member.sha256 for member in members)
        self.labels, self.task = first.labels, first.task
        self.sample_rate = max(member.sample_rate for member in members)

    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Predicts as a :class:`TeacherModel` does."""
        return torch.stack([member(waveforms, sample_rate) for member in self.members]).mean(0)


def open_teacher_model(
    models: Sequence[str],
    *,
    sample_rate: int | None = None,
    tensor: str | None = None,
    labels: str | None = None,
    kind: Kind | None = None,
) -> TeacherModel:
    """Opens a teacher, or an ensemble of several.

    Args:
        models: For each, the name of a downloaded model, a model file, a checkpoint (.safetensors), a LiteRT
            file (.tflite), or ``hf:`` and the folder of a Hugging Face classifier.
        sample_rate: Of a LiteRT file, in Hz; required there.
        tensor: Of a LiteRT file: the tensor to read instead of the output.
        labels: Of a LiteRT file, see :func:`~earmark.model_file.labels.read_labels`.
        kind: Of a LiteRT file: kind of its outputs.

    Raises:
        ModelError: If a model cannot be used, or they do not fit each other.
        MissingExtraError: If the package that runs one is not installed.
    """
    for_litert = {"sample_rate": sample_rate, "tensor": tensor, "labels": labels, "kind": kind}
    given = [name for name, value in for_litert.items() if value is not None]
    if given and not any(Path(model).suffix == LITERT for model in models):
        raise ModelError(f"{models[0]}: {given[0]} applies to LiteRT files ({LITERT}) only: remove it")
    opened = [_open(model, sample_rate, tensor, labels, kind) for model in models]
    return opened[0] if len(opened) == 1 else EnsembleTeacher(opened)


def _open(
    model: str, sample_rate: int | None, tensor: str | None, labels: str | None, kind: Kind | None
) -> TeacherModel:
    # Each has its own optional packages.
    from earmark.training.distill.hugging_face_teacher import HuggingFaceTeacher
    from earmark.training.distill.litert_teacher import LiteRTTeacher
    from earmark.training.distill.network_teacher import NetworkTeacher

    if model.startswith(HUGGING_FACE):
        return HuggingFaceTeacher(model.removeprefix(HUGGING_FACE))
    if Path(model).suffix != LITERT:
        return NetworkTeacher(model)
    if sample_rate is None:
        raise ModelError(f"{model}: LiteRT files do not store their sample rate: set sample_rate")
    return LiteRTTeacher(model, sample_rate, tensor, labels, kind)
