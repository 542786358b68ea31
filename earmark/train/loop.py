"""The loop that trains every network: clips -> waveforms -> log-mel -> network -> loss, epoch by epoch.

Conventions: a run lives in a folder of its own: ``recipe.json`` (resolved), ``log.jsonl`` (one line an
epoch), ``state.safetensors`` (to go on from after a kill), ``best.safetensors`` and ``last.safetensors``
(checkpoints with their record). The same command goes on where a killed run stopped; every draw comes from
(seed, epoch, step), so the result is the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from earmark.data.dataset import ClipDataset, epoch_batches
from earmark.data.manifest import Clip, label_set, read_manifest, select, targets
from earmark.errors import DataError, RecipeError
from earmark.evaluate import metrics
from earmark.evaluate.predict import clip_windows, predict
from earmark.files import remove_partial, write_atomically
from earmark.models.checkpoint import load_checkpoint, save_checkpoint
from earmark.models.hearing import apart, with_front_end
from earmark.models.network import Network, Output
from earmark.models.registry import create_model
from earmark.record import Record
from earmark.train.batch import augmented
from earmark.train.losses import label_loss
from earmark.train.recipe import Recipe
from earmark.train.run_state import RunState
from earmark.train.schedules import cosine_with_warm_up
from earmark.train.teacher import open_lessons
from earmark.version import __version__

WORDS = ("description", "source", "command", "cost", "expected", "license")
"""What a recipe says of itself; it changes no weight."""

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Split:
    """The clips of one run: groups to train on, and those to judge by."""

    labels: tuple[str, ...]
    groups: tuple[tuple[Clip, ...], ...]
    judged: tuple[Clip, ...] = ()
    clips_per_epoch: tuple[int | None, ...] = field(default=())


def split_clips(recipe: Recipe, fold: int | None) -> Split:
    """Reads the recipe's manifests and sets a fold apart.

    Args:
        recipe: Names the manifests and which clips may be trained on.
        fold: Judged on every clip of this fold, trained on the others; None: train on all, judge nothing.

    Raises:
        DataError: If a manifest is damaged, a label unknown, or nothing is left to train on or to judge.
    """
    sources = [
        (
            source,
            [
                clip
                for path in source.manifests
                for clip in read_manifest(path, source.audio, source.labelled)
            ],
        )
        for source in recipe.data.sources
    ]
    everything = [clip for _, clips in sources for clip in clips]
    labels = recipe.data.labels or label_set(everything)
    targets(everything, labels)
    groups = tuple(
        tuple(clip for clip in select(clips, source.train_on) if fold is None or clip.fold != fold)
        for source, clips in sources
    )
    judged = tuple(clip for clip in everything if fold is not None and clip.fold == fold and clip.labelled)
    if fold is not None and not judged:
        raise DataError(f"recipe {recipe.name!r}: no clip has fold {fold} to judge by")
    if not any(groups):
        raise DataError(f"recipe {recipe.name!r}: no clip is left to train on")
    return Split(labels, groups, judged, tuple(source.clips_per_epoch for source, _ in sources))


def train(
    recipe: Recipe, folder: Path, fold: int | None = None, report: Report = lambda facts: None
) -> Record:
    """Trains one network, or goes on with a run that was cut short.

    Args:
        recipe: What to do.
        folder: Of the run; made where it is missing.
        fold: See :func:`split_clips`.
        report: Called with the facts of each step and each epoch, to show progress.

    Returns:
        The record of the network, whose checkpoint is ``folder/last.safetensors`` (and ``best.safetensors``).

    Raises:
        RecipeError: If the folder holds a run of another recipe, or the loss is no longer a number.
        DataError: If clips or the run's state cannot be used.
        AudioError: If a clip cannot be read.
        ModelError: If the network cannot be built as asked.
    """
    split = split_clips(recipe, fold)
    _claim(folder, recipe, fold)
    run = _Run(recipe, split, folder, fold, report)
    for epoch in range(run.resume(), recipe.optimizer.epochs):
        run.epoch(epoch)
    return run.record


def _claim(folder: Path, recipe: Recipe, fold: int | None) -> None:
    """Makes the folder this run's own, or checks that it is already.

    What is said about a recipe, and how its result is judged, may change without a new training.
    """
    training = recipe.model_dump(mode="json", exclude_none=True, exclude=set(WORDS) | {"judge"})
    resolved = json.dumps(training | {"fold": fold}, indent=1, sort_keys=True)
    stored = folder / "recipe.json"
    if stored.exists() and stored.read_text(encoding="utf-8") != resolved:
        raise RecipeError(
            f"{folder}: holds a run of another recipe: choose another folder or remove this one"
        )
    write_atomically(stored, resolved)
    remove_partial(folder)


class _Run:
    """One training: what stays the same over its epochs, and the parts with a state."""

    def __init__(self, recipe: Recipe, split: Split, folder: Path, fold: int | None, report: Report) -> None:
        self.recipe, self.split, self.folder, self.report = recipe, split, folder, report
        torch.manual_seed(recipe.seed)
        self.network = _first_network(recipe, split.labels)
        if recipe.optimizer.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.front_end, self.behind = apart(self.network, recipe.front_end)
        self.embedding_size = self._embedding_size()
        clips = [clip for group in split.groups for clip in group]
        self.lessons = open_lessons(
            recipe.teacher,
            ids=[clip.id for clip in clips],
            labels=split.labels,
            task=recipe.task,
            sample_rate=recipe.front_end.sample_rate,
            embedding_size=self.embedding_size,
            fold=fold,
            report=report,
        )
        self.average = _average(self.network, recipe.optimizer.average_decay)
        self.optimizer = torch.optim.AdamW(
            _groups(self.trained, recipe.optimizer.weight_decay),
            lr=recipe.optimizer.learning_rate,
            fused=True,
        )
        self.data = ClipDataset(
            clips,
            split.labels,
            sample_rate=recipe.front_end.sample_rate,
            length=recipe.window_length,
            padding=recipe.padding,
            cache=recipe.data.cache,
        )
        self.groups = [
            (len(group), wanted) for group, wanted in zip(split.groups, split.clips_per_epoch, strict=True)
        ]
        self.steps = len(list(epoch_batches(self.groups, recipe.optimizer.batch_size, (0,))))
        self.lessons.fit_probes(folder, self._labelled_passes)
        self.best = -math.inf
        self.judged_windows: list[tuple[int, NDArray[np.float32]]] | None = None

    @torch.no_grad()
    def _embedding_size(self) -> int:
        frames = self.recipe.front_end.num_frames(self.recipe.window_length)
        answer: Output = self.behind.eval()(torch.zeros(1, self.recipe.front_end.n_mels, frames))
        return answer.embedding.shape[1]

    def _labelled_passes(self, passes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Targets and lessons of augmented batches of the labelled clips, whole windows of them."""
        recipe = self.recipe
        groups = [
            (size, wanted if group and group[0].labelled else 0)
            for group, (size, wanted) in zip(self.split.groups, self.groups, strict=True)
        ]
        for number in range(passes):
            seed = (recipe.seed, number, 1)
            batches = list(epoch_batches(groups, recipe.optimizer.batch_size, seed))
            for step, (waveforms, wanted) in enumerate(self._loader(batches)):
                generator = np.random.default_rng([*seed, step])
                _, wanted, tables = self._augmented(
                    waveforms, wanted, batches[step], generator, recipe.optimizer.epochs
                )
                yield wanted, tables

    def _loader(self, batches: list[list[tuple[int, int]]]) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self.data, batch_sampler=batches, num_workers=self.recipe.data.workers)

    def _augmented(
        self,
        waveforms: Tensor,
        wanted: Tensor,
        keys: Sequence[tuple[int, int]],
        generator: np.random.Generator,
        epoch: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features, targets and lessons of a batch; what is stored of clips is mixed as targets are."""
        classes = wanted.shape[-1]
        both = torch.cat([wanted, self.lessons.told([clip for clip, _ in keys])], -1)
        features, both, heard = augmented(
            self.recipe, self.front_end, waveforms, both, generator, epoch, self.lessons.heard
        )
        return features, both[:, :classes], torch.cat([both[:, classes:], heard], -1)

    @property
    def trained(self) -> nn.Module:
        """All that learns; only the network is judged and kept."""
        return nn.ModuleDict({"network": self.network, "imitation": self.lessons.layers})

    @property
    def state(self) -> RunState:
        return RunState(self.trained, self.average, self.optimizer)

    @property
    def kept(self) -> Network:
        """The network that is judged and kept: the moving average where there is one."""
        return self.network if self.average is None else cast(Network, self.average.module)

    def resume(self) -> int:
        path = self.folder / "state.safetensors"
        if not path.exists():
            (self.folder / "log.jsonl").unlink(missing_ok=True)
            return 0
        facts = self.state.load(path)
        self.best = facts["best"]
        self._trim_log(facts["epoch"])
        return int(facts["epoch"])

    def _trim_log(self, epochs: int) -> None:
        """Drops what a killed run wrote after its last state, so that no epoch stands in the log twice."""
        log = self.folder / "log.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines()[:epochs] if log.exists() else []
        write_atomically(log, "".join(line + "\n" for line in lines))

    def epoch(self, epoch: int) -> None:
        began = time.monotonic()
        losses = self._train_epoch(epoch)
        facts: dict[str, Any] = {"epoch": epoch + 1, "loss": float(np.mean(losses))}
        last = epoch + 1 == self.recipe.optimizer.epochs
        if self.split.judged and (last or (epoch + 1) % self.recipe.judge.every == 0):
            facts |= self._judge()
        facts["seconds"] = round(time.monotonic() - began, 2)
        self._keep(facts, last)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(facts) + "\n")
            log.flush()
            os.fsync(log.fileno())
        self.state.save(self.folder / "state.safetensors", {"epoch": epoch + 1, "best": self.best})
        self.report(facts)

    def _train_epoch(self, epoch: int) -> list[float]:
        recipe, losses = self.recipe, []
        torch.manual_seed(_seed(recipe.seed, epoch))
        batches = list(epoch_batches(self.groups, recipe.optimizer.batch_size, (recipe.seed, epoch)))
        self.network.train()
        began = time.monotonic()
        for step, (waveforms, wanted) in enumerate(self._loader(batches)):
            loss = self._step(epoch, step, waveforms, wanted, batches[step])
            if not math.isfinite(loss):
                raise RecipeError(
                    f"{self.folder}: the loss is {loss} in epoch {epoch + 1}, step {step + 1}: lower "
                    "optimizer.learning_rate; the last good state is kept"
                )
            losses.append(loss)
            self.report(self._progress(epoch, step, loss, len(waveforms), time.monotonic() - began))
        return losses

    def _progress(self, epoch: int, step: int, loss: float, batch: int, elapsed_s: float) -> dict[str, Any]:
        """Where the run stands; the time left leaves out the judging."""
        to_do = (self.recipe.optimizer.epochs - epoch) * self.steps - step - 1
        return {
            "epoch": epoch + 1,
            "step": step + 1,
            "steps": self.steps,
            "loss": loss,
            "clips_per_s": (step + 1) * batch / elapsed_s,
            "left_min": to_do * elapsed_s / (step + 1) / 60,
        }

    def _step(
        self, epoch: int, step: int, waveforms: Tensor, wanted: Tensor, keys: Sequence[tuple[int, int]]
    ) -> float:
        settings = self.recipe.optimizer
        factor = cosine_with_warm_up(
            epoch * self.steps + step,
            settings.epochs * self.steps,
            round(settings.warm_up_epochs * self.steps),
            settings.last_factor,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        generator = np.random.default_rng([self.recipe.seed, epoch, step])
        features, wanted, tables = self._augmented(waveforms, wanted, keys, generator, epoch)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
            answer: Output = self.behind(features)
        smoothing, ranking = settings.label_smoothing, settings.ranking_weight
        loss = label_loss(answer.logits.float(), wanted, self.recipe.task, smoothing, ranking)
        loss = self.lessons.label_weight * loss + self.lessons.loss(answer, tables)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return loss.item()

    def _judge(self) -> dict[str, Any]:
        if self.judged_windows is None:
            self.judged_windows = list(self._windows(self.split.judged))
        front_end, network = apart(self.kept, self.recipe.front_end)
        scores = predict(network, front_end, self.judged_windows, self.recipe.task)
        truth = targets(self.split.judged, self.split.labels)
        stored = io.BytesIO()
        np.save(stored, scores)
        write_atomically(self.folder / "scores.npy", stored.getvalue())
        return {
            "accuracy": metrics.accuracy(truth, scores),
            "map_macro": metrics.macro(metrics.average_precision(truth, scores)),
            "log_loss": metrics.log_loss(truth, scores),
        }

    def _windows(self, clips: Sequence[Clip]) -> Any:
        recipe = self.recipe
        paths = [clip.path for clip in clips]
        return clip_windows(paths, recipe.front_end.sample_rate, recipe.window_length, recipe.padding)

    def _keep(self, facts: Mapping[str, Any], last: bool) -> None:
        if facts.get("map_macro", -math.inf) > self.best:
            self.best = facts["map_macro"]
            save_checkpoint(self.folder / "best.safetensors", self.kept, self.record)
        if last:
            save_checkpoint(self.folder / "last.safetensors", self.kept, self.record)

    @property
    def record(self) -> Record:
        recipe = self.recipe
        teachers = {"teachers": self.lessons.teachers} if recipe.teacher else {}
        return Record(
            name=recipe.name,
            labels=self.split.labels,
            front_end=recipe.front_end,
            task=recipe.task,
            architecture=recipe.model.architecture,
            arguments=dict(recipe.model.arguments),
            window_s=recipe.window_s,
            padding=recipe.padding,
            embedding_size=self.embedding_size,
            description=recipe.description,
            license=recipe.license,
            source=recipe.source,
            provenance={
                "earmark": __version__,
                "torch": torch.__version__,
                "seed": recipe.seed,
                "epochs": recipe.optimizer.epochs,
                "clips": sum(len(group) for group in self.split.groups),
                "command": recipe.command,
            }
            | teachers,
        )


def _first_network(recipe: Recipe, labels: Sequence[str]) -> Network:
    """A fresh network, or the one that the recipe starts from."""
    network = create_model(recipe.model.architecture, num_classes=len(labels), **recipe.model.arguments)
    network = with_front_end(network, recipe.front_end)
    if recipe.model.base is None:
        return network
    base, record = load_checkpoint(recipe.model.base)
    for what, own, other in (
        ("network", network.config, base.config),
        ("front-end", recipe.front_end, record.front_end),
        ("labels", tuple(labels), record.labels),
    ):
        if own != other:
            raise RecipeError(f"{recipe.model.base}: model.base has another {what} ({other}) than the recipe")
    return base


def _seed(*numbers: int) -> int:
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    free = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _average(network: nn.Module, decay: float) -> AveragedModel | None:
    if not decay:
        return None

    @torch.no_grad()
    def update(averages: Any, current: Any, steps: Any) -> None:
        weight = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        for average, value in zip(averages, current, strict=True):
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)
