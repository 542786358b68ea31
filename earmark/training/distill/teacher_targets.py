"""Targets of a run from its teachers, and the losses on them.

Conventions: a target table is (batch, column), in the form of
:func:`~earmark.training.distill.losses.mixable_outputs`, so that it is mixed wherever labels are. Stored
predictions are looked up before waveforms are mixed, and mixed with them; a teacher network processes the
waveforms after all waveform augmentation. Tables of stored predictions come first, then those of networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from earmark.errors import DataError, RecipeError
from earmark.hub import registry
from earmark.hub.predictions import published_predictions
from earmark.model_file.info import Task
from earmark.models.network import Output
from earmark.training.config.learning import Teacher
from earmark.training.config.section import fold_name
from earmark.training.distill.losses import (
    as_logits,
    as_scores,
    distillation_loss,
    imitation_loss,
    mixable_outputs,
    split_outputs,
)
from earmark.training.distill.probe import Probe
from earmark.training.distill.stored_predictions import PredictionsHeader, StoredPredictions, column_order
from earmark.training.distill.teacher_model import HUGGING_FACE, TeacherModel, open_teacher_model

WaveformTargets = Callable[[Tensor], Tensor]
"""Target tables (batch, column) of waveforms (batch, time), see :meth:`TeacherTargets.computed`."""

_STORED = (".npz", ".npy")


class Objective:
    """One teacher's targets, and the loss on them.

    Args:
        settings: Weights of the losses.
        header: Metadata of the teacher's outputs.
        labels: Of the run.
        task: Of the run.
        embedding_size: Of the student.
    """

    def __init__(
        self,
        settings: Teacher,
        header: PredictionsHeader,
        labels: Sequence[str],
        task: Task,
        embedding_size: int,
    ) -> None:
        self.settings, self.header, self.task = settings, header, task
        self.outputs, self.classes = len(header.labels), len(labels)
        self.order = _column_order(header, labels, task) if settings.distill_weight else []
        self.imitated = self.outputs if settings.imitation_weight or settings.probe_weight else 0
        self.layer = nn.Linear(embedding_size, self.outputs) if settings.imitation_weight else None
        self.probe: Probe | None = None

    @property
    def width(self) -> int:
        """Columns of the target table."""
        return self.imitated + len(self.order) + 1

    def table(self, outputs: Tensor) -> Tensor:
        """The target table of outputs (batch, output); NaN for clips without a prediction."""
        blocks = []
        if self.imitated:
            blocks.append((outputs - self.settings.target_mean) / self.settings.target_std)
        if self.order:
            logits = as_logits(outputs[:, self.order], self.header.kind, self.task)
            blocks.append(as_scores(logits / self.settings.temperature, self.task))
        return mixable_outputs(torch.cat(blocks, -1))

    def loss(self, output: Output, table: Tensor) -> Tensor:
        """The weighted losses of the student's output (float32) on the table, mixed as the batch is."""
        targets, weight = split_outputs(table)
        imitated, soft_targets = targets[:, : self.imitated], targets[:, self.imitated :]
        total = output.logits.new_zeros(())
        if self.layer is not None:
            error = imitation_loss(self.layer(output.embedding), imitated, weight)
            total = total + self.settings.imitation_weight * error
        if self.order:
            error = distillation_loss(output.logits, soft_targets, weight, self.task)
            total = total + self.settings.distill_weight * error
        if self.probe is not None:
            error = distillation_loss(output.logits, self.probe(imitated), weight, self.task)
            total = total + self.settings.probe_weight * error
        return total

    def fit_probe(self, path: Path, passes: Iterable[tuple[Tensor, Tensor]], keep: bool) -> None:
        """Fits the probe to labels and tables of batches, or loads it if it was fitted before."""
        if path.exists():
            self.probe = Probe.load(path, self.task, (self.classes, self.outputs))
            return
        labels, tables = (torch.cat(parts).cpu() for parts in zip(*passes, strict=True))
        outputs, weight = split_outputs(tables)
        known = weight > 0
        self.probe = Probe.fit(outputs[known, : self.imitated], labels[known], self.task)
        if keep:
            self.probe.save(path)


class TeacherTargets:
    """The targets of all teachers of a run; empty for a run without teachers.

    Args:
        stored: Objectives with stored predictions, and their lookup by position of a clip in the run.
        computed: Objectives with teacher networks.
        sample_rate: Of the waveforms, in Hz.
        label_weight: Weight of the loss on labels.
    """

    def __init__(
        self,
        stored: Sequence[tuple[Objective, Callable[[Sequence[int]], Tensor]]],
        computed: Sequence[tuple[Objective, TeacherModel]],
        sample_rate: int,
        label_weight: float,
    ) -> None:
        self._stored, self._computed, self._sample_rate = stored, computed, sample_rate
        self._objectives = [objective for objective, _ in [*stored, *computed]]
        self.label_weight = label_weight
        self._device = torch.device("cpu")
        layers = [objective.layer for objective in self._objectives]
        self.layers = nn.ModuleList(layer for layer in layers if layer is not None)
        """Auxiliary layers, trained with the network and dropped after."""

    def stored(self, clips: Sequence[int]) -> Tensor:
        """Tables of stored predictions for clips by position: (batch, column)."""
        tables = [objective.table(look_up(clips)) for objective, look_up in self._stored]
        return torch.cat([torch.zeros(len(clips), 0), *tables], -1)

    def computed(self, waveforms: Tensor) -> Tensor:
        """Tables of the teacher networks for waveforms (batch, time): (batch, column)."""
        rate = self._sample_rate
        tables = [objective.table(teacher(waveforms, rate)) for objective, teacher in self._computed]
        return torch.cat([waveforms.new_zeros(len(waveforms), 0), *tables], -1)

    def loss(self, output: Output, tables: Tensor) -> Tensor:
        """The sum of all teachers' losses.

        Args:
            output: Of the student.
            tables: From :meth:`stored` and :meth:`computed`, concatenated, mixed as the batch is.
        """
        output = Output(output.logits.float(), output.embedding.float())
        if not self._objectives:
            return output.logits.new_zeros(())
        parts = torch.split(tables, [objective.width for objective in self._objectives], -1)
        pairs = zip(self._objectives, parts, strict=True)
        return torch.stack([objective.loss(output, part) for objective, part in pairs]).sum()

    def to(self, device: torch.device) -> None:
        """Moves layers and probes to a device; teacher networks follow their inputs."""
        self._device = device
        self.layers.to(device)

    def fit_probes(
        self, folder: Path, passes: Callable[[int], Iterable[tuple[Tensor, Tensor]]], keep: bool = True
    ) -> None:
        """Fits the probes, which are kept in the run folder for a resumed run.

        Args:
            folder: Of the run.
            passes: Returns labels and tables of the batches of so many passes over the labelled clips.
            keep: False: another process writes the file.
        """
        first = 0
        for number, objective in enumerate(self._objectives):
            columns = slice(first, first + objective.width)
            first += objective.width
            if objective.settings.probe_weight:
                path = folder / f"probe{number or ''}.safetensors"
                batches = passes(objective.settings.probe_passes)
                objective.fit_probe(path, ((labels, tables[:, columns]) for labels, tables in batches), keep)
                assert objective.probe is not None
                objective.probe = objective.probe.to(self._device)

    @property
    def teachers(self) -> list[Mapping[str, str]]:
        """Name and SHA-256 of each teacher."""
        return [teacher for objective in self._objectives for teacher in objective.header.teachers]


def open_teacher_targets(
    teachers: Sequence[Teacher],
    *,
    ids: Sequence[str],
    labels: Sequence[str],
    task: Task,
    sample_rate: int,
    embedding_size: int,
    fold: int | None = None,
    progress: Callable[[Mapping[str, Any]], None] = lambda facts: None,
) -> TeacherTargets:
    """Opens the teachers of a run.

    Args:
        teachers: Of the recipe.
        ids: Of the training clips.
        labels: Of the run.
        task: Of the run.
        sample_rate: Of the waveforms, in Hz.
        embedding_size: Of the student.
        fold: Fills in ``{fold}`` in the teachers' paths.
        progress: Called with the number of clips without a stored prediction.

    Raises:
        MissingExtraError: If the package that runs a teacher is not installed.
        DataError: If stored predictions cannot be used, are about other clips, or labels differ.
        ModelError: If a network cannot be used.
        RecipeError: If a key does not fit the kind of teacher.
    """
    stored, computed = [], []
    for settings in teachers:
        paths = teacher_paths(settings, fold)
        if _is_stored(paths):
            predictions = _open_stored(settings, paths)
            rows, missing = predictions.require_rows(ids)
            if missing:
                progress({"teacher": str(predictions.path), "clips": len(ids), "without_prediction": missing})
            objective = Objective(settings, predictions.header, labels, task, embedding_size)
            stored.append((objective, _look_up(predictions, torch.from_numpy(rows))))
        else:
            teacher = _open_network(settings, paths)
            named = {"name": teacher.name, "sha256": teacher.sha256}
            header = PredictionsHeader(teacher.labels, teacher.kind or "logits", teacher.task, (named,))
            computed.append((Objective(settings, header, labels, task, embedding_size), teacher))
    weights = [settings.label_weight for settings in teachers if settings.label_weight != 1]
    return TeacherTargets(stored, computed, sample_rate, weights[0] if weights else 1.0)


def teacher_paths(settings: Teacher, fold: int | None) -> list[str]:
    """The paths of a teacher for a fold; None: for the run on all clips."""
    return [path.replace("{fold}", fold_name(fold)) for path in settings.path]


def require_teachers(teachers: Sequence[Teacher], folds: Iterable[int | None]) -> None:
    """Checks that the teachers of all folds exist, before the first is trained.

    Raises:
        RecipeError: If one is missing.
    """
    for fold in folds:
        for settings in teachers:
            for path in teacher_paths(settings, fold):
                file = Path(path.removeprefix(HUGGING_FACE))
                if not file.exists() and path not in (*registry.list_models(), *published_predictions()):
                    raise RecipeError(f"{file}: teacher not found")


def _is_stored(paths: Sequence[str]) -> bool:
    named = published_predictions()
    return any(Path(path).suffix in _STORED or Path(path).is_dir() or path in named for path in paths)


def _open_stored(settings: Teacher, paths: Sequence[str]) -> StoredPredictions:
    if len(paths) > 1:
        raise RecipeError(f"{paths[0]}: stored predictions cannot be part of an ensemble: give networks only")
    for name in ("sample_rate", "tensor"):
        if getattr(settings, name) is not None:
            raise RecipeError(f"{paths[0]}: teacher.{name} does not apply to stored predictions: remove it")
    if paths[0] not in published_predictions():
        return StoredPredictions(
            Path(paths[0]), index=settings.index, labels=settings.labels, kind=settings.kind
        )
    for name in ("index", "labels", "kind"):
        if getattr(settings, name) is not None:
            raise RecipeError(f"{paths[0]}: teacher.{name} is that of the published predictions: remove it")
    return StoredPredictions.published(paths[0])


def _look_up(predictions: StoredPredictions, rows: Tensor) -> Callable[[Sequence[int]], Tensor]:
    return lambda clips: torch.from_numpy(predictions.read(rows[list(clips)].numpy()))


def _open_network(settings: Teacher, paths: Sequence[str]) -> TeacherModel:
    if settings.index is not None:
        raise RecipeError(f"{paths[0]}: teacher.index applies to .npy files only: remove it")
    with torch.random.fork_rng(devices=[]):  # opening a network must not change the run's random state
        teacher = open_teacher_model(
            paths,
            sample_rate=settings.sample_rate,
            tensor=settings.tensor,
            labels=settings.labels,
            kind=settings.kind,
        )
    if settings.distill_weight and teacher.kind is None:
        raise RecipeError(
            f"{paths[0]}: LiteRT files do not store the kind of their outputs: set teacher.kind"
        )
    return teacher


def _column_order(header: PredictionsHeader, labels: Sequence[str], task: Task) -> list[int]:
    """The teacher's column of each label of the run."""
    name = "+".join(teacher["name"] for teacher in header.teachers)
    order = column_order(header.labels, labels, name)
    if header.kind == "logits" and header.task not in (None, task):
        raise DataError(
            f"{name}: its logits are for task {header.task}, the run's task is {task}: store scores instead"
        )
    return order
