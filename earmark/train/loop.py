"""The loop that trains every network: clips -> waveforms -> log-mel -> network -> loss, epoch by epoch.

Conventions: a run lives in a folder of its own: ``recipe.json`` (resolved), ``run.json`` (where it comes
from), ``log.jsonl`` (one line an epoch), ``state.safetensors`` (to go on from after a kill),
``best.safetensors`` and ``last.safetensors`` (checkpoints with their record). The same command goes on where
a killed run stopped; every draw comes from (seed, epoch, step), so the result is the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from earmark.data.dataset import epoch_batches
from earmark.data.manifest import targets
from earmark.errors import RecipeError
from earmark.evaluate import metrics
from earmark.evaluate.predict import predict
from earmark.files import remove_partial, write_atomically
from earmark.models.checkpoint import save_checkpoint
from earmark.models.dymn import DyMN
from earmark.models.network import Network, Output
from earmark.record import Record
from earmark.train.batch import Augmentation
from earmark.train.left_out import LeftOut
from earmark.train.losses import balanced_weights, label_loss
from earmark.train.provenance import provenance
from earmark.train.recipe import Recipe
from earmark.train.run_state import RunState
from earmark.train.schedules import rate_factor
from earmark.train.sources import (
    Split,
    clips_to_judge,
    clips_to_train,
    draws,
    hearing,
    split_clips,
    steps_per_epoch,
)
from earmark.train.start import anneal, first_network, moving_average, parameter_groups
from earmark.train.teacher import open_lessons
from earmark.version import __version__

WORDS = ("description", "source", "command", "cost", "expected", "license")
"""What a recipe says of itself; it changes no weight."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Report = Callable[[Mapping[str, Any]], None]


def train(
    recipe: Recipe, folder: Path, fold: int | None = None, report: Report = lambda facts: None
) -> Record:
    """Trains one network, or goes on with a run that was cut short.

    Args:
        recipe: What to do.
        folder: Of the run; made where it is missing.
        fold: See :func:`earmark.train.sources.split_clips`.
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
    resolved = _resolved(folder, recipe, fold)
    run = _Run(recipe, split, folder, fold, report)
    _claim(folder, recipe, split, resolved)
    for epoch in range(run.resume(), recipe.optimizer.epochs):
        run.epoch(epoch)
    return run.record


def _resolved(folder: Path, recipe: Recipe, fold: int | None) -> str:
    """The recipe as the folder of its run keeps it; refused where the folder holds a run of another one.

    What is said about a recipe, how its result is judged and where its numbers are shown may change without a
    new training.
    """
    training = recipe.model_dump(mode="json", exclude_none=True, exclude=set(WORDS) | {"judge", "logging"})
    resolved = json.dumps(training | {"fold": fold, "keep": recipe.judge.keep}, indent=1, sort_keys=True)
    stored = folder / "recipe.json"
    if stored.exists() and stored.read_text(encoding="utf-8") != resolved:
        raise RecipeError(
            f"{folder}: holds a run of another recipe: choose another folder or remove this one"
        )
    return resolved


def _claim(folder: Path, recipe: Recipe, split: Split, resolved: str) -> None:
    """Makes the folder the run's own, once all that the run needs is there."""
    stored = folder / "recipe.json"
    if not stored.exists():
        noted = provenance(recipe, split.groups, split.judged)
        write_atomically(folder / "run.json", json.dumps(noted, indent=1))
    write_atomically(stored, resolved)
    remove_partial(folder)


class _Run:
    """One training: what stays the same over its epochs, and the parts with a state."""

    def __init__(self, recipe: Recipe, split: Split, folder: Path, fold: int | None, report: Report) -> None:
        self.recipe, self.split, self.folder, self.report = recipe, split, folder, report
        torch.manual_seed(recipe.seed)
        self.network = first_network(recipe, split.labels)
        if recipe.optimizer.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.front_end, self.behind = hearing(recipe, self.network)
        self.augmentation = Augmentation(recipe, self.front_end)
        self.embedding_size = self._embedding_size()
        self.lessons = open_lessons(
            recipe.teacher,
            ids=[clip.id for group in split.groups for clip in group],
            labels=split.labels,
            task=recipe.task,
            sample_rate=recipe.front_end.sample_rate,
            embedding_size=self.embedding_size,
            fold=fold,
            report=report,
        )
        self.average = moving_average(self.network, recipe.optimizer.average_decay)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(recipe, self.trained, self.network),
            lr=recipe.optimizer.learning_rate,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler("cpu", enabled=recipe.optimizer.precision == "fp16")
        self.data = clips_to_train(recipe, split)
        self.left_out = LeftOut(self.data, recipe.data.bad_share, report)
        self.draws = draws(recipe, split)
        self.class_weights = self._class_weights()
        self.steps = steps_per_epoch(recipe, split)
        self.lessons.fit_probes(folder, self._labelled_passes)
        self.best = -math.inf
        self.judged_windows: list[tuple[int, NDArray[np.float32]]] | None = None

    @torch.no_grad()
    def _embedding_size(self) -> int:
        frames = self.recipe.front_end.num_frames(self.recipe.window_length)
        answer: Output = self.behind.eval()(torch.zeros(1, self.recipe.front_end.n_mels, frames))
        return answer.embedding.shape[1]

    def _class_weights(self) -> Tensor | None:
        if self.recipe.loss.class_weights == "none":
            return None
        return balanced_weights(self.data.targets.nan_to_num().sum(0))

    def _labelled_passes(self, passes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Targets and lessons of augmented batches of the labelled clips, whole windows of them."""
        recipe = self.recipe
        labelled = [
            draw if group and group[0].labelled else replace(draw, count=0)
            for group, draw in zip(self.split.groups, self.draws, strict=True)
        ]
        for number in range(passes):
            seed = (recipe.seed, number, 1)
            batches = list(epoch_batches(labelled, recipe.optimizer.batch_size, seed))
            for step, (waveforms, wanted) in enumerate(self._loader(batches)):
                generator = np.random.default_rng([*seed, step])
                last = recipe.optimizer.epochs
                _, wanted, tables = self._augmented(waveforms, wanted, batches[step], generator, last)
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
        """Features, targets and lessons of a batch."""
        waveforms, wanted, keys = self.left_out(waveforms, wanted, keys)
        told = self.lessons.told([clip for clip, _ in keys])
        return self.augmentation(waveforms, wanted, generator, epoch, told, self.lessons.heard)

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

    @property
    def _annealed(self) -> list[Network]:
        return [self.network] if self.average is None else [self.network, cast(Network, self.average.module)]

    def resume(self) -> int:
        path = self.folder / "state.safetensors"
        if not path.exists():
            (self.folder / "log.jsonl").unlink(missing_ok=True)
            return 0
        facts = self.state.load(path)
        self.best = facts["best"]
        self.scaler.load_state_dict(facts["scaler"])
        anneal(self.recipe, self._annealed, max(0, int(facts["epoch"]) - 1))
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
        state = {"epoch": epoch + 1, "best": self.best, "scaler": self.scaler.state_dict()}
        self.state.save(self.folder / "state.safetensors", state)
        self.report(facts)

    def _train_epoch(self, epoch: int) -> list[float]:
        recipe, losses = self.recipe, []
        torch.manual_seed(_seed(recipe.seed, epoch))
        batches = list(epoch_batches(self.draws, recipe.optimizer.batch_size, (recipe.seed, epoch)))
        self.network.train()
        anneal(recipe, self._annealed, epoch)
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
        factor = rate_factor(self.recipe.schedule, epoch + step / self.steps, settings.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * group["factor"] * factor
        generator = np.random.default_rng([self.recipe.seed, epoch, step])
        features, wanted, tables = self._augmented(waveforms, wanted, keys, generator, epoch)
        with torch.autocast("cpu", PRECISIONS[settings.precision], enabled=settings.precision != "fp32"):
            answer: Output = self.behind(features)
        logits = answer.logits.float()
        loss = label_loss(logits, wanted, self.recipe.task, self.recipe.loss, self.class_weights)
        loss = self.lessons.label_weight * loss + self.lessons.loss(answer, tables)
        self.scaler.scale(loss / settings.accumulate).backward()  # type: ignore[no-untyped-call]
        if (step + 1) % settings.accumulate == 0 or step + 1 == self.steps:
            self._move()
        return loss.item()

    def _move(self) -> None:
        """One step of the optimizer, along the gradients gathered so far."""
        if self.recipe.optimizer.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def _judge(self) -> dict[str, Any]:
        windows = self.judged_windows or clips_to_judge(self.recipe, self.split.judged)
        if self.recipe.data.cache:
            windows = self.judged_windows = list(windows)
        front_end, network = hearing(self.recipe, self.kept)
        scores = predict(network, front_end, windows, self.recipe.task)
        truth = targets(self.split.judged, self.split.labels)
        precision = metrics.macro(metrics.average_precision(truth, scores))
        if self.recipe.judge.keep == "last" or precision > self.best:
            stored = io.BytesIO()
            np.save(stored, scores)
            write_atomically(self.folder / "scores.npy", stored.getvalue())
        return {
            "accuracy": metrics.accuracy(truth, scores),
            "map_macro": precision,
            "log_loss": metrics.log_loss(truth, scores),
        }

    def _keep(self, facts: Mapping[str, Any], last: bool) -> None:
        if facts.get("map_macro", -math.inf) > self.best:
            self.best = facts["map_macro"]
            save_checkpoint(self.folder / "best.safetensors", self.kept, self.record)
        if last:
            save_checkpoint(self.folder / "last.safetensors", self.kept, self.record)

    @property
    def _arguments(self) -> dict[str, Any]:
        """What the network is built with, at the temperature that it has now."""
        own = dict(self.recipe.model.arguments)
        if self.recipe.model.annealing is None or not isinstance(self.network, DyMN):
            return own
        return own | {"temperature": self.network.config.temperature}

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
            arguments=self._arguments,
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


def _seed(*numbers: int) -> int:
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:7], "big")
