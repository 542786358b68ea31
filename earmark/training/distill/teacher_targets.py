"""What a run learns from its teachers, besides the labels.

Conventions: a lesson is a table (batch, column) of what one teacher says of a batch, in the form of
:func:`~earmark.training.distill.losses.weighted`, so that it is mixed wherever targets are mixed. What is
stored is looked up before the waveforms are mixed, and mixed with them; a network hears the waveforms as they are
when all that is done to waveforms is done. Lessons stand side by side: the stored ones, then the heard ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from earmark.errors import DataError, RecipeError
from earmark.hub import registry
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import Task
from earmark.models.network import Output
from earmark.training.config.learning import Teacher
from earmark.training.config.section import fold_name
from earmark.training.distill.losses import (
    answers_of,
    as_logits,
    as_scores,
    distillation_loss,
    imitation_loss,
    weighted,
)
from earmark.training.distill.stored_predictions import Heading, StoredAnswers, order_of
from earmark.training.distill.teacher_model import HUGGING_FACE, Listener, open_listener
from earmark.training.losses import label_loss

WaveformTargets = Callable[[Tensor], Tensor]
"""Gives what is to be learned of waveforms (batch, time): (batch, column), as :meth:`Lessons.heard` does."""

_STORED = (".npz", ".npy")


class Probe:
    """A linear classifier of the student's classes on a teacher's answers.

    Args:
        weight: (class, output).
        bias: (class,).
        task: How its logits become scores.
    """

    def __init__(self, weight: Tensor, bias: Tensor, task: Task = "multi_label") -> None:
        self.weight, self.bias, self.task = weight, bias, task

    def __call__(self, answers: Tensor) -> Tensor:
        """Scores (batch, class) in [0, 1] of answers (batch, output)."""
        return as_scores(answers @ self.weight.T + self.bias, self.task)

    def to(self, device: torch.device) -> Probe:
        """The same on a device."""
        return Probe(self.weight.to(device), self.bias.to(device), self.task)

    @classmethod
    def fit(cls, answers: Tensor, targets: Tensor, task: Task = "multi_label", decay: float = 0.03) -> Probe:
        """Fits by (binary) cross-entropy, summed over the classes, with a penalty on standardised weights.

        Args:
            answers: (clip, output).
            targets: (clip, class) in [0, 1]; rows with NaN are left out.
            task: Whether classes exclude each other.
            decay: Of half the squared weights.
        """
        known = ~targets.isnan().any(-1)
        answers, targets = answers[known].double(), targets[known].double()
        mean, spread = answers.mean(0), answers.std(0).clamp(min=1e-3)
        standard = (answers - mean) / spread
        weight = torch.zeros(targets.shape[1], answers.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")
        terms = targets.shape[1] if task == "multi_label" else 1  # which the loss is a mean over

        def loss() -> Tensor:
            optimizer.zero_grad()
            error = label_loss(standard @ weight.T + bias, targets, task)
            total = error * terms + decay / 2 * weight.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            scaled = weight / spread
            return cls(scaled.float(), (bias - scaled @ mean).float(), task)

    def save(self, path: Path) -> None:
        """Writes a safetensors file."""
        write_atomically(path, save({"weight": self.weight.cpu(), "bias": self.bias.cpu()}))

    @classmethod
    def load(cls, path: Path, task: Task, shape: tuple[int, int]) -> Probe:
        """Reads what :meth:`save` wrote, for so many (classes, outputs).

        Raises:
            DataError: If the file is damaged, or another teacher's.
        """
        try:
            stored = load_file(path)
            weight, bias = stored["weight"], stored["bias"]
        except (SafetensorError, OSError, KeyError) as error:
            raise DataError(f"{path}: the probe cannot be read ({error}): remove it to fit it anew") from None
        if weight.shape != shape or bias.shape != shape[:1]:
            raise DataError(
                f"{path}: is a probe of other classes or another teacher: remove it to fit it anew"
            )
        return cls(weight, bias, task)


class _Lesson:
    """One teacher of a run: its answers as a table, and the loss that they are learned by.

    Args:
        settings: What is learned.
        heading: Of its answers.
        labels: Of the run.
        task: Of the run.
        embedding_size: Of the student.
    """

    def __init__(
        self, settings: Teacher, heading: Heading, labels: Sequence[str], task: Task, embedding_size: int
    ) -> None:
        self.settings, self.heading, self.task = settings, heading, task
        self.outputs, self.classes = len(heading.labels), len(labels)
        self.order = _order(heading, labels, task) if settings.distill_weight else []
        self.imitated = self.outputs if settings.imitation_weight or settings.probe_weight else 0
        self.layer = nn.Linear(embedding_size, self.outputs) if settings.imitation_weight else None
        self.probe: Probe | None = None

    @property
    def width(self) -> int:
        """Columns of the table."""
        return self.imitated + len(self.order) + 1

    def table(self, answers: Tensor) -> Tensor:
        """What is learned of answers (batch, output); NaN where the teacher was not asked."""
        blocks = []
        if self.imitated:
            blocks.append((answers - self.settings.target_mean) / self.settings.target_std)
        if self.order:
            logits = as_logits(answers[:, self.order], self.heading.kind, self.task)
            blocks.append(as_scores(logits / self.settings.temperature, self.task))
        return weighted(torch.cat(blocks, -1))

    def loss(self, output: Output, table: Tensor) -> Tensor:
        """What the student is told, from its answer (in float32) and the table, mixed as the batch is."""
        answers, weight = answers_of(table)
        taught, soft = answers[:, : self.imitated], answers[:, self.imitated :]
        total = output.logits.new_zeros(())
        if self.layer is not None:
            total = total + self.settings.imitation_weight * imitation_loss(
                self.layer(output.embedding), taught, weight
            )
        if self.order:
            told = distillation_loss(output.logits, soft, weight, self.task)
            total = total + self.settings.distill_weight * told
        if self.probe is not None:
            told = distillation_loss(output.logits, self.probe(taught), weight, self.task)
            total = total + self.settings.probe_weight * told
        return total

    def fit_probe(self, path: Path, passes: Iterable[tuple[Tensor, Tensor]], keep: bool) -> None:
        """Fits the probe to targets and tables of batches, or takes the one that was fitted before."""
        if path.exists():
            self.probe = Probe.load(path, self.task, (self.classes, self.outputs))
            return
        targets, tables = (torch.cat(parts).cpu() for parts in zip(*passes, strict=True))
        answers, weight = answers_of(tables)
        told = weight > 0
        self.probe = Probe.fit(answers[told, : self.imitated], targets[told], self.task)
        if keep:
            self.probe.save(path)


class Lessons:
    """All that the teachers of a run say, and what is learned from it; of a run without teachers, nothing.

    Args:
        stored: Lessons with their answers, and the row of each of the run's clips in them.
        heard: Lessons with the networks that give the answers.
        sample_rate: Of the waveforms that are heard, in Hz.
        label_weight: Of the labels' own loss.
    """

    def __init__(
        self,
        stored: Sequence[tuple[_Lesson, Callable[[Sequence[int]], Tensor]]],
        heard: Sequence[tuple[_Lesson, Listener]],
        sample_rate: int,
        label_weight: float,
    ) -> None:
        self._stored, self._heard, self._sample_rate = stored, heard, sample_rate
        self._lessons = [lesson for lesson, _ in stored] + [lesson for lesson, _ in heard]
        self.label_weight = label_weight
        self._device = torch.device("cpu")
        self.layers = nn.ModuleList(lesson.layer for lesson in self._lessons if lesson.layer is not None)
        """Learn with the network, and are left behind."""

    def told(self, clips: Sequence[int]) -> Tensor:
        """What is stored of clips, by their positions in the run: (batch, column of the stored lessons)."""
        tables = [lesson.table(look_up(clips)) for lesson, look_up in self._stored]
        return torch.cat([torch.zeros(len(clips), 0), *tables], -1)

    def heard(self, waveforms: Tensor) -> Tensor:
        """What the networks say of waveforms (batch, time): (batch, column of the heard lessons)."""
        tables = [lesson.table(listener(waveforms, self._sample_rate)) for lesson, listener in self._heard]
        return torch.cat([waveforms.new_zeros(len(waveforms), 0), *tables], -1)

    def loss(self, output: Output, tables: Tensor) -> Tensor:
        """The sum of all lessons' losses, each by its weight.

        Args:
            output: The student's.
            tables: What :meth:`told` and then :meth:`heard` gave, side by side, mixed as the batch is.
        """
        answer = Output(output.logits.float(), output.embedding.float())
        if not self._lessons:
            return answer.logits.new_zeros(())
        parts = torch.split(tables, [lesson.width for lesson in self._lessons], -1)
        losses = [lesson.loss(answer, part) for lesson, part in zip(self._lessons, parts, strict=True)]
        return torch.stack(losses).sum()

    def to(self, device: torch.device) -> None:
        """Moves what learns, and what is fitted later, to a device; networks follow what they hear."""
        self._device = device
        self.layers.to(device)

    def fit_probes(
        self, folder: Path, passes: Callable[[int], Iterable[tuple[Tensor, Tensor]]], keep: bool = True
    ) -> None:
        """Fits what the recipe asks for; it is kept in the folder for a resumed run.

        Args:
            folder: Of the run.
            passes: Gives targets and tables of the batches of so many passes over the labelled clips.
            keep: Off: another process writes what this one fits too.
        """
        first = 0
        for number, lesson in enumerate(self._lessons):
            columns = slice(first, first + lesson.width)
            first += lesson.width
            if lesson.settings.probe_weight:
                path = folder / f"probe{number or ''}.safetensors"
                heard = passes(lesson.settings.probe_passes)
                lesson.fit_probe(path, ((targets, tables[:, columns]) for targets, tables in heard), keep)
                assert lesson.probe is not None
                lesson.probe = lesson.probe.to(self._device)

    @property
    def teachers(self) -> list[Mapping[str, str]]:
        """Name and SHA-256 of each."""
        return [teacher for lesson in self._lessons for teacher in lesson.heading.teachers]


def open_lessons(
    teachers: Sequence[Teacher],
    *,
    ids: Sequence[str],
    labels: Sequence[str],
    task: Task,
    sample_rate: int,
    embedding_size: int,
    fold: int | None = None,
    report: Callable[[Mapping[str, Any]], None] = lambda facts: None,
) -> Lessons:
    """Opens the teachers of a run.

    Args:
        teachers: The recipe's.
        ids: Of the clips that are trained on.
        labels: Of the run.
        task: Of the run.
        sample_rate: Of its waveforms, in Hz.
        embedding_size: Of the student.
        fold: That is judged, in place of ``{fold}`` in the teachers' paths.
        report: Is told of clips that a file of answers says nothing of.

    Raises:
        MissingExtraError: If the package that runs one is not installed.
        DataError: If stored answers cannot be used, are about other clips, or labels differ.
        ModelError: If a network cannot be used.
        RecipeError: If a key does not fit the kind of teacher.
    """
    stored, heard = [], []
    for settings in teachers:
        paths = paths_of(settings, fold)
        if _is_stored(paths):
            answers = _stored_answers(settings, paths)
            rows, missing = answers.require_some(ids)
            if missing:
                report({"teacher": str(answers.path), "clips": len(ids), "without_answer": missing})
            lesson = _Lesson(settings, answers.heading, labels, task, embedding_size)
            stored.append((lesson, _look_up(answers, torch.from_numpy(rows))))
        else:
            listener = _listener(settings, paths)
            named = {"name": listener.name, "sha256": listener.sha256}
            heading = Heading(listener.labels, listener.kind or "logits", listener.task, (named,))
            heard.append((_Lesson(settings, heading, labels, task, embedding_size), listener))
    said = [settings.label_weight for settings in teachers if settings.label_weight != 1]
    return Lessons(stored, heard, sample_rate, said[0] if said else 1.0)


def paths_of(settings: Teacher, fold: int | None) -> list[str]:
    """Where a teacher of a fold is found; None: of the network that is trained on all clips."""
    return [path.replace("{fold}", fold_name(fold)) for path in settings.path]


def require_teachers(teachers: Sequence[Teacher], folds: Iterable[int | None]) -> None:
    """Refuses a recipe of which a teacher is missing, before the first of several folds is trained.

    Raises:
        RecipeError: If a file is missing.
    """
    for fold in folds:
        for settings in teachers:
            for path in paths_of(settings, fold):
                file = Path(path.removeprefix(HUGGING_FACE))
                if not file.exists() and path not in registry.names():
                    raise RecipeError(f"{file}: there is no such teacher")


def _is_stored(paths: Sequence[str]) -> bool:
    return any(Path(path).suffix in _STORED or Path(path).is_dir() for path in paths)


def _stored_answers(settings: Teacher, paths: Sequence[str]) -> StoredAnswers:
    if len(paths) > 1:
        raise RecipeError(f"{paths[0]}: stored answers stand alone; several networks make an ensemble")
    for name in ("sample_rate", "output"):
        if getattr(settings, name) is not None:
            raise RecipeError(f"{paths[0]}: holds stored answers: leave teacher.{name} out")
    return StoredAnswers(Path(paths[0]), index=settings.index, labels=settings.labels, kind=settings.kind)


def _look_up(answers: StoredAnswers, rows: Tensor) -> Callable[[Sequence[int]], Tensor]:
    return lambda clips: torch.from_numpy(answers.read(rows[list(clips)].numpy()))


def _listener(settings: Teacher, paths: Sequence[str]) -> Listener:
    if settings.index is not None:
        raise RecipeError(f"{paths[0]}: is a network: leave teacher.index out")
    with torch.random.fork_rng(devices=[]):  # opening a network must change no one's chance
        listener = open_listener(
            paths,
            sample_rate=settings.sample_rate,
            tensor=settings.tensor,
            labels=settings.labels,
            kind=settings.kind,
        )
    if settings.distill_weight and listener.kind is None:
        raise RecipeError(f"{paths[0]}: a LiteRT file does not say what it answers with: give teacher.kind")
    return listener


def _order(heading: Heading, labels: Sequence[str], task: Task) -> list[int]:
    """Which of the teacher's columns is each of the run's labels."""
    name = "+".join(teacher["name"] for teacher in heading.teachers)
    order = order_of(heading.labels, labels, name)
    if heading.kind == "logits" and heading.task not in (None, task):
        raise DataError(f"{name}: its logits are of task {heading.task}, the run's is {task}: store scores")
    return order
