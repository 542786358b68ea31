"""The loop that trains every network: clips -> waveforms -> log-mel -> network -> loss, epoch by epoch.

Conventions: a run lives in a folder of its own: ``recipe.json`` (resolved), ``run.json`` (where it comes
from), ``log.jsonl`` (one line an epoch), ``state.safetensors`` and the one before (to go on from after a
kill), ``best.safetensors`` and ``last.safetensors`` (checkpoints with their record). The same command goes on
where a killed run stopped; every draw comes from (seed, epoch, step), so the result is the same. Several
processes (:mod:`earmark.training.runtime.devices`) share each batch; a loss is that of the whole batch.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import starmap
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
from earmark.evaluation import metrics
from earmark.evaluation.network_predictions import predict
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo
from earmark.models.checkpoint import save_checkpoint
from earmark.models.dymn import DyMN
from earmark.models.network import Network, Output
from earmark.training.batch import Augmentation
from earmark.training.config.recipe import Recipe
from earmark.training.distill.teacher_targets import open_lessons
from earmark.training.initialization import anneal, first_network, moving_average, parameter_groups, apply_checkpointing
from earmark.training.losses import balanced_weights, label_loss
from earmark.training.runtime.devices import Batch, Devices, Keys, open_devices
from earmark.training.runtime.interruptions import stops
from earmark.training.runtime.run_folder import claim, resolve
from earmark.training.runtime.run_state import STATE, Place, RunState, add_line, trim_log
from earmark.training.runtime.skipped_clips import LeftOut
from earmark.training.schedules import rate_factor
from earmark.training.splits import (
    Split,
    clips_to_judge,
    clips_to_train,
    draws,
    hearing,
    split_clips,
    steps_per_epoch,
)
from earmark.version import __version__

Report = Callable[[Mapping[str, Any]], None]


def train(
    recipe: Recipe, folder: Path, fold: int | None = None, report: Report = lambda facts: None
) -> ModelInfo:
    """Trains one network, or goes on with a run that was cut short.

    Args:
        recipe: What to do.
        folder: Of the run; made where it is missing.
        fold: See :func:`earmark.training.splits.split_clips`.
        report: Called with the facts of each step and each epoch, to show progress.

    Returns:
        The record of the network, whose checkpoint is ``folder/last.safetensors`` (and ``best.safetensors``).

    Raises:
        RecipeError: If the folder holds a run of another recipe, or the loss is no longer a number.
        DataError: If clips or the run's state cannot be used.
        AudioError: If a clip cannot be read.
        ModelError: If the network cannot be built as asked.
        RunError: If it is stopped from outside: by a full disk, or a process of it that died.
    """
    recipe = recipe.of_fold(fold)
    split = split_clips(recipe, fold)
    resolved = resolve(folder, recipe, fold)
    with open_devices(recipe.run.device) as devices, stops(folder):
        run = _Run(recipe, split, folder, fold, report, devices)
        run.resume()
        if devices.writes:
            claim(folder, recipe, split, resolved, devices)
        devices.wait()  # nobody reads a state that is newer than that of the others
        for epoch in range(run.place.epoch, recipe.optimizer.epochs):
            run.epoch(epoch)
        devices.wait()  # all is written
        return run.info


class _Run:
    """One training: what stays the same over its epochs, and the parts with a state."""

    def __init__(
        self, recipe: Recipe, split: Split, folder: Path, fold: int | None, report: Report, devices: Devices
    ) -> None:
        self.recipe, self.split, self.folder, self.devices = recipe, split, folder, devices
        self.report: Report = report if devices.writes else lambda facts: None
        torch.manual_seed(recipe.seed)
        self.network = first_network(recipe, split.labels).to(devices.device)
        if recipe.optimizer.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        apply_checkpointing(recipe, self.network)
        if recipe.optimizer.sync_batch_norm:
            devices.synchronized(self.network)
        self.front_end, self.behind = self._hearing(self.network)
        self.augmentation = Augmentation(recipe, self.front_end, devices.device)
        self.embedding_size = self._embedding_size()
        self.lessons = open_lessons(
            recipe.teacher,
            ids=[clip.id for group in split.groups for clip in group],
            labels=split.labels,
            task=recipe.task,
            sample_rate=recipe.front_end.sample_rate,
            embedding_size=self.embedding_size,
            fold=fold,
            report=self.report,
        )
        self.lessons.to(devices.device)
        self.average = moving_average(self.network, recipe.optimizer.ema_decay)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(recipe, self.trained, self.network),
            lr=recipe.optimizer.learning_rate,
            fused=True,
        )
        self.scaler = devices.scaler(recipe.optimizer.precision)
        self.data = clips_to_train(recipe, split)
        self.left_out = LeftOut(self.data, recipe.data.max_bad_fraction, report)
        self.draws = draws(recipe, split)
        self.class_weights = self._class_weights()
        self.steps = steps_per_epoch(recipe, split)
        self.batch_size = len(self._batches(0)[0])
        devices.require_shares(self.batch_size)
        self.lessons.fit_probes(folder, self._labelled_passes, devices.writes)
        self.learner = devices.learning(self.trained, self.behind)
        self.place, self.saved = Place(), time.monotonic()
        self.judged_windows: list[tuple[int, NDArray[np.float32]]] | None = None

    def _hearing(self, network: Network) -> tuple[nn.Module, Network]:
        front_end, behind = hearing(self.recipe, network)
        return front_end.to(self.devices.device), behind

    @torch.no_grad()
    def _embedding_size(self) -> int:
        frames = self.recipe.front_end.num_frames(self.recipe.window_length)
        silence = torch.zeros(1, self.recipe.front_end.n_mels, frames, device=self.devices.device)
        answer: Output = self.behind.eval()(silence)
        return answer.embedding.shape[1]

    def _class_weights(self) -> Tensor | None:
        if self.recipe.loss.class_weights == "none":
            return None
        return self.devices.move(balanced_weights(self.data.targets.nan_to_num().sum(0)))

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
            self.devices.require_shares(len(batches[0]))
            for step, batch in enumerate(self._feed(batches)):
                _, wanted, tables = self._augmented(batch, [*seed, step], recipe.optimizer.epochs)
                yield self.devices.gather(wanted), self.devices.gather(tables)

    def _batches(self, epoch: int) -> list[Keys]:
        recipe = self.recipe
        return list(epoch_batches(self.draws, recipe.optimizer.batch_size, (recipe.seed, epoch)))

    def _feed(self, batches: Sequence[Keys]) -> Iterator[Batch]:
        """This process's rows of batches, on its device, without clips that cannot be read."""
        own = [self.devices.own_rows(batch) for batch in batches]
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            self.data,
            batch_sampler=own,
            num_workers=self.recipe.data.workers,
            pin_memory=self.devices.pins,
        )
        return self.devices.feed(starmap(self.left_out, zip(own, loader, strict=True)))

    def _augmented(self, batch: Batch, seed: Sequence[int], epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features, targets and lessons of a batch."""
        keys, (waveforms, wanted) = batch
        told = self.devices.move(self.lessons.told([clip for clip, _ in keys]))
        generator = self.devices.generator(seed, len(keys))
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

    def resume(self) -> None:
        """Goes to where a run of this folder stopped."""
        facts, damage = self.state.load_last(self.folder / STATE)
        if damage:
            self.report({"warning": damage})
        if facts is not None:
            self.place = Place.of(facts)
            self.scaler.load_state_dict(facts["scaler"])
            anneal(self.recipe, self._annealed, max(0, self.place.epoch - 1))
        if self.devices.writes:
            trim_log(self.folder, self.place.epoch)

    def _save(self) -> None:
        if self.devices.writes:
            facts = self.place.facts() | {"scaler": self.scaler.state_dict()}
            self.state.save(self.folder / STATE, facts)
        self.saved = time.monotonic()

    def epoch(self, epoch: int) -> None:
        began = time.monotonic() - self.place.seconds
        self._train_epoch(epoch, began)
        facts: dict[str, Any] = {"epoch": epoch + 1, "loss": float(np.mean(self.place.losses))}
        last = epoch + 1 == self.recipe.optimizer.epochs
        if self.split.judged and (last or (epoch + 1) % self.recipe.evaluation.every_epochs == 0):
            facts |= self._judge()
        facts["seconds"] = round(time.monotonic() - began, 2)
        best = max(self.place.best, facts.get("map_macro", -math.inf))
        if self.devices.writes:
            self._keep(facts, last)
        self.place = Place(epoch + 1, best=best)
        self._save()
        self.report(facts)

    def _train_epoch(self, epoch: int, began: float) -> None:
        place, pending = self.place, []
        self.devices.seed(_seed(self.recipe.seed, epoch))
        self.network.train()
        anneal(self.recipe, self._annealed, epoch)
        feed = self._feed(self._batches(epoch)[place.step :])
        self.devices.take_chance(place.chance)
        for step, batch in enumerate(feed, place.step):
            pending.append(self._step(epoch, step, batch))
            if len(pending) == self.devices.read_every or step + 1 == self.steps:
                self._read(pending)
                place.seconds = time.monotonic() - began
                self._save_if_due()
                self.report(self._progress())
                pending = []

    def _read(self, losses: Sequence[Tensor]) -> None:
        """Adds the losses of some steps to the place in the run, which waits for the device."""
        for loss in torch.stack(list(losses)).tolist():
            self.place.step += 1
            self.place.losses.append(loss)
            if not math.isfinite(loss):
                raise RecipeError(
                    f"{self.folder}: the loss is {loss} in epoch {self.place.epoch + 1}, step "
                    f"{self.place.step}: lower optimizer.learning_rate; the last good state is kept"
                )

    def _save_if_due(self) -> None:
        """Writes the state within an epoch, where no gradients wait for more of them."""
        due = time.monotonic() - self.saved >= self.recipe.run.save_every_s
        if self._completes(self.place.step - 1) and self.devices.agree(due):
            self.place.chance = self.devices.chance()
            self._save()

    def _progress(self) -> dict[str, Any]:
        """Where the run stands; the time left leaves out the judging."""
        done, elapsed_s = self.place.step, self.place.seconds
        to_do = (self.recipe.optimizer.epochs - self.place.epoch) * self.steps - done
        return {
            "epoch": self.place.epoch + 1,
            "step": done,
            "steps": self.steps,
            "loss": self.place.losses[-1],
            "clips_per_s": done * self.batch_size / elapsed_s,
            "left_min": to_do * elapsed_s / done / 60,
        }

    def _completes(self, step: int) -> bool:
        """Whether the gradients of this step and those before it are to be followed."""
        return (step + 1) % self.recipe.optimizer.grad_accum_steps == 0 or step + 1 == self.steps

    def _step(self, epoch: int, step: int, batch: Batch) -> Tensor:
        recipe, devices, completes = self.recipe, self.devices, self._completes(step)
        factor = rate_factor(recipe.schedule, epoch + step / self.steps, recipe.optimizer.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.optimizer.learning_rate * group["factor"] * factor
        features, wanted, tables = self._augmented(batch, [recipe.seed, epoch, step], epoch)
        with devices.alone(self.learner, not completes):
            with devices.autocast(recipe.optimizer.precision):
                own: Output = self.learner(features)
            answer = Output(devices.gather(own.logits.float()), devices.gather(own.embedding.float()))
            wanted, tables = devices.gather(wanted), devices.gather(tables)
            loss = label_loss(answer.logits, wanted, recipe.task, recipe.loss, self.class_weights)
            loss = self.lessons.label_weight * loss + self.lessons.loss(answer, tables)
            self.scaler.scale(loss / recipe.optimizer.grad_accum_steps).backward()  # type: ignore[no-untyped-call]
        if completes:
            self._move()
        return loss.detach()

    def _move(self) -> None:
        """One step of the optimizer, along the gradients gathered so far."""
        if self.recipe.optimizer.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.optimizer.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def _judge(self) -> dict[str, Any]:
        self.devices.align(self.kept)
        clips = self.devices.judged(self.split.judged)
        windows = self.judged_windows or clips_to_judge(self.recipe, clips)
        if self.recipe.data.cache:
            windows = self.judged_windows = list(windows)
        front_end, network = self._hearing(self.kept)
        own = np.zeros((0, len(self.split.labels)), np.float32)
        if clips:
            own = predict(network, front_end, windows, self.recipe.task)
        scores = self.devices.together(own, len(self.split.judged))
        truth = targets(self.split.judged, self.split.labels)
        precision = metrics.macro(metrics.average_precision(truth, scores))
        better = self.recipe.evaluation.keep == "last" or precision > self.place.best
        if better and self.devices.writes:
            stored = io.BytesIO()
            np.save(stored, scores)
            write_atomically(self.folder / "scores.npy", stored.getvalue())
        return {
            "accuracy": metrics.accuracy(truth, scores),
            "map_macro": precision,
            "log_loss": metrics.log_loss(truth, scores),
        }

    def _keep(self, facts: Mapping[str, Any], last: bool) -> None:
        """Writes what an epoch leaves: checkpoints, and its line in the log."""
        if facts.get("map_macro", -math.inf) > self.place.best:
            save_checkpoint(self.folder / "best.safetensors", self.kept, self.info)
        if last:
            save_checkpoint(self.folder / "last.safetensors", self.kept, self.info)
        add_line(self.folder, facts)

    @property
    def _arguments(self) -> dict[str, Any]:
        """What the network is built with, at the temperature that it has now."""
        own = dict(self.recipe.model.arguments)
        if self.recipe.model.annealing is None or not isinstance(self.network, DyMN):
            return own
        return own | {"temperature": self.network.config.temperature}

    @property
    def info(self) -> ModelInfo:
        recipe = self.recipe
        teachers = {"teachers": self.lessons.teachers} if recipe.teacher else {}
        return ModelInfo(
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
