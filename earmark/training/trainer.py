"""The training loop: clips -> waveforms -> log-mel -> network -> loss, epoch by epoch.

Conventions: a run folder holds ``recipe.json`` (with every default), ``run.json`` (provenance), ``log.jsonl``
(one line per epoch), ``state.safetensors`` and the previous one (to resume), ``best.safetensors`` and
``last.safetensors`` (checkpoints). The same command resumes a killed run; every random draw is a function of
(seed, epoch, step), so the result is the same. Several processes (:mod:`earmark.training.runtime.devices`)
share each batch; a loss is that of the global batch.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from earmark.data.shards.pack import rate_warnings, read_pack_info
from earmark.errors import RecipeError
from earmark.model_file.info import ModelInfo
from earmark.models.checkpoint import save_checkpoint
from earmark.models.network import Network, Output
from earmark.training.config.recipe import Recipe
from earmark.training.contrastive import ContrastiveEvaluation, ContrastiveHead, contrastive_loss
from earmark.training.distill.teacher_targets import TeacherTargets, open_teacher_targets
from earmark.training.fold_evaluation import FoldEvaluation, epoch_score
from earmark.training.initialization import (
    apply_checkpointing,
    embedding_size,
    initial_network,
    moving_average,
    parameter_groups,
    set_temperature,
    set_training_mode,
)
from earmark.training.losses import label_loss
from earmark.training.runtime.devices import Devices, open_devices
from earmark.training.runtime.interruptions import interruptions
from earmark.training.runtime.provenance import model_info
from earmark.training.runtime.run_folder import bind_run_folder, check_run_folder, run_lock
from earmark.training.runtime.run_state import STATE, RunState, TrainProgress, append_log, trim_log
from earmark.training.schedules import lr_factor
from earmark.training.splits import Split, split_clips, split_network
from earmark.training.training_batches import Augmented, TrainingBatches

Progress = Callable[[Mapping[str, Any]], None]
"""Is called with the facts of each step and each epoch."""


def train_network(
    recipe: Recipe, folder: Path, fold: int | None = None, progress: Progress = lambda facts: None
) -> ModelInfo:
    """Trains one network, or resumes its training.

    Args:
        recipe: The recipe.
        folder: Run folder; created if missing.
        fold: Evaluated fold, see :func:`earmark.training.splits.split_clips`; None: train on all clips.
        progress: Called with the facts of each step and each epoch.

    Returns:
        The model info of the checkpoint ``folder/last.safetensors`` (and ``best.safetensors``).

    Raises:
        RecipeError: If the folder holds a run of another recipe, or the loss is not finite.
        DataError: If clips or the stored state cannot be used, or another process uses the folder.
        AudioError: If too many clips cannot be read.
        ModelError: If the network cannot be built.
        RunError: If a full disk, a full memory or a dead process ends it.
    """
    recipe = recipe.of_fold(fold)
    split = split_clips(recipe, fold)
    resolved = check_run_folder(folder, recipe, fold)
    with open_devices(recipe.run.device) as devices, interruptions(folder), run_lock(folder, devices):
        trainer = Trainer(recipe, split, folder, fold, progress, devices)
        for pack in filter(None, (source.shards for source in recipe.data.sources)):
            for warning in rate_warnings(pack, read_pack_info(pack), recipe.front_end.sample_rate):
                trainer.progress({"warning": warning})
        trainer.resume()
        if devices.is_main:
            bind_run_folder(folder, recipe, split, resolved, devices)
        devices.barrier()  # no process reads a newer state than the others
        for epoch in range(trainer.position.epoch, recipe.optimizer.epochs):
            trainer.run_epoch(epoch)
        devices.barrier()  # all files are written
        return trainer.info


class Trainer:
    """One training: its network, data, optimizer and progress.

    Args:
        recipe: Of this fold, see :meth:`earmark.training.config.recipe.Recipe.of_fold`.
        split: Its clips.
        folder: Run folder.
        fold: Evaluated fold; None: none.
        progress: Called with the facts of each step and each epoch.
        devices: Device and rank of this process.
    """

    def __init__(
        self,
        recipe: Recipe,
        split: Split,
        folder: Path,
        fold: int | None,
        progress: Progress,
        devices: Devices,
    ) -> None:
        self.recipe, self.split, self.folder, self.devices = recipe, split, folder, devices
        self.progress: Progress = progress if devices.is_main else lambda facts: None
        torch.manual_seed(recipe.seed)
        self.network = self._build_network()
        front_end, self.behind = split_network(recipe, self.network)
        self.embedding_size = embedding_size(recipe, self.behind)
        self.teacher_targets = self._open_teachers(fold)
        self.contrastive = self._build_contrastive_head()
        self.average = moving_average(self.network, recipe.optimizer.ema_decay)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(recipe, self.trained, self.network),
            lr=recipe.optimizer.learning_rate,
            fused=True,
        )
        self.scaler = devices.scaler(recipe.optimizer.precision)
        front_end = front_end.to(devices.device)
        self.batches = TrainingBatches(recipe, split, front_end, self.teacher_targets, devices, progress)
        self.class_weights = self.batches.class_weights()
        self.teacher_targets.fit_probes(folder, self.batches.labelled_passes, devices.is_main)
        self.forward = devices.distributed(self.trained, self.behind)
        self.evaluation: Callable[[Network, float], dict[str, float]] = (
            FoldEvaluation(recipe, split, devices, folder, progress)
            if self.contrastive is None
            else ContrastiveEvaluation(recipe, split, self.contrastive, devices, progress)
        )
        self.position, self.saved_at = TrainProgress(), time.monotonic()

    def _build_network(self) -> Network:
        recipe, devices = self.recipe, self.devices
        network = initial_network(recipe, self.split.labels, self.progress).to(devices.device)
        if recipe.optimizer.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        apply_checkpointing(recipe, network)
        if recipe.optimizer.sync_batch_norm:
            devices.synchronize_norms(network)
        return network

    def _build_contrastive_head(self) -> ContrastiveHead | None:
        if self.recipe.contrastive is None:
            return None
        return ContrastiveHead(self.recipe.contrastive, self.embedding_size).to(self.devices.device)

    def _open_teachers(self, fold: int | None) -> TeacherTargets:
        teacher_targets = open_teacher_targets(
            self.recipe.teacher,
            ids=[clip.id for group in self.split.groups for clip in group],
            labels=self.split.labels,
            task=self.recipe.task,
            sample_rate=self.recipe.front_end.sample_rate,
            embedding_size=self.embedding_size,
            fold=fold,
            progress=self.progress,
        )
        teacher_targets.to(self.devices.device)
        return teacher_targets

    @property
    def trained(self) -> nn.Module:
        """Everything that is trained; only the network is evaluated and kept."""
        parts = {"network": self.network, "imitation": self.teacher_targets.layers}
        return nn.ModuleDict(parts if self.contrastive is None else parts | {"contrastive": self.contrastive})

    @property
    def state(self) -> RunState:
        """The parts with a state."""
        return RunState(self.trained, self.average, self.optimizer)

    @property
    def kept(self) -> Network:
        """The network that is evaluated and kept: the moving average if there is one."""
        return self.network if self.average is None else cast(Network, self.average.module)

    @property
    def info(self) -> ModelInfo:
        """The model info of the checkpoints."""
        teachers = self.teacher_targets.teachers
        return model_info(self.recipe, self.network, self.split, self.embedding_size, teachers)

    def _set_temperature(self, epoch: int) -> None:
        averages = [] if self.average is None else [cast(Network, self.average.module)]
        set_temperature(self.recipe, [self.network, *averages], epoch)

    def resume(self) -> None:
        """Loads the last state in the run folder, if there is one."""
        facts, warning = self.state.load_last(self.folder / STATE)
        if warning:
            self.progress({"warning": warning})
        if facts is not None:
            self.position = TrainProgress.from_facts(facts)
            self.scaler.load_state_dict(facts["scaler"])
            self._set_temperature(max(0, self.position.epoch - 1))
        if self.devices.is_main:
            trim_log(self.folder, self.position.epoch)

    def _save(self) -> None:
        if self.devices.is_main:
            facts = self.position.facts() | {"scaler": self.scaler.state_dict()}
            self.state.save(self.folder / STATE, facts)
        self.saved_at = time.monotonic()

    def run_epoch(self, epoch: int) -> None:
        """Trains for the rest of an epoch, evaluates if it is due, and saves."""
        began = time.monotonic() - self.position.seconds
        self._train_epoch(epoch, began)
        facts: dict[str, Any] = {"epoch": epoch + 1, "loss": float(np.mean(self.position.losses))}
        last = epoch + 1 == self.recipe.optimizer.epochs
        due = last or (epoch + 1) % self.recipe.evaluation.every_epochs == 0
        if self.split.evaluated and due:
            self.devices.broadcast_buffers(self.kept)
            facts |= self.evaluation(self.kept, self.position.best)
        facts["seconds"] = round(time.monotonic() - began, 2)
        best = max(self.position.best, epoch_score(facts, self.recipe.task))
        if self.devices.is_main:
            self._write(facts, last)
        self.position = TrainProgress(epoch + 1, best=best)
        self._save()
        self.progress(facts)

    def _write(self, facts: Mapping[str, Any], last: bool) -> None:
        """Writes the checkpoints and the log line of an epoch."""
        if epoch_score(facts, self.recipe.task) > self.position.best:
            save_checkpoint(self.folder / "best.safetensors", self.kept, self.info)
        if last:
            save_checkpoint(self.folder / "last.safetensors", self.kept, self.info)
        append_log(self.folder, facts)

    def _train_epoch(self, epoch: int, began: float) -> None:
        position, pending = self.position, []
        self.devices.seed(_seed(self.recipe.seed, epoch))
        set_training_mode(self.network)
        self._set_temperature(epoch)
        batches = self.batches.epoch(epoch, position.step)
        self.devices.set_rng_state(position.rng_state)
        for step, batch in enumerate(batches, position.step):
            pending.append(self.train_step(epoch, step, batch))
            if len(pending) == self.devices.read_every or step + 1 == self.batches.steps:
                self._read_losses(pending)
                position.seconds = time.monotonic() - began
                self._save_if_due()
                self.progress(self._step_facts())
                pending = []

    def _read_losses(self, losses: Sequence[Tensor]) -> None:
        """Adds the losses of some steps to the progress, which waits for the device."""
        for loss in torch.stack(list(losses)).tolist():
            self.position.step += 1
            self.position.losses.append(loss)
            if not math.isfinite(loss):
                raise RecipeError(
                    f"{self.folder}: the loss is {loss} in epoch {self.position.epoch + 1}, step "
                    f"{self.position.step}: lower optimizer.learning_rate; the last good state is kept"
                )

    def _save_if_due(self) -> None:
        """Saves the state within an epoch, unless accumulated gradients are pending."""
        due = time.monotonic() - self.saved_at >= self.recipe.run.save_every_s
        if self._updates_after(self.position.step - 1) and self.devices.broadcast_flag(due):
            self.position.rng_state = self.devices.rng_state()
            self._save()

    def _step_facts(self) -> dict[str, Any]:
        """Progress and speed; the remaining time does not include evaluation."""
        done, elapsed_s = self.position.step, self.position.seconds
        remaining = (self.recipe.optimizer.epochs - self.position.epoch) * self.batches.steps - done
        return {
            "epoch": self.position.epoch + 1,
            "step": done,
            "steps": self.batches.steps,
            "loss": self.position.losses[-1],
            "clips_per_s": done * self.batches.batch_size / elapsed_s,
            "left_min": remaining * elapsed_s / done / 60,
        }

    def _updates_after(self, step: int) -> bool:
        """Whether the optimizer steps after this batch."""
        return (step + 1) % self.recipe.optimizer.grad_accum_steps == 0 or step + 1 == self.batches.steps

    def train_step(self, epoch: int, step: int, batch: Augmented) -> Tensor:
        """One batch: forward, backward and, if gradients are complete, an optimizer step."""
        recipe, devices, updates = self.recipe, self.devices, self._updates_after(step)
        factor = lr_factor(recipe.schedule, epoch + step / self.batches.steps, recipe.optimizer.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.optimizer.learning_rate * group["lr_scale"] * factor
        features, labels, tables = batch
        with devices.no_sync(self.forward, not updates):
            with devices.autocast(recipe.optimizer.precision):
                own: Output = self.forward(features)
            output = Output(devices.gather(own.logits.float()), devices.gather(own.embedding.float()))
            loss = self._loss(output, devices.gather(labels), devices.gather(tables))
            self.scaler.scale(loss / recipe.optimizer.grad_accum_steps).backward()  # type: ignore[no-untyped-call]
        if updates:
            self._update()
        return loss.detach()

    def _loss(self, output: Output, labels: Tensor, tables: Tensor) -> Tensor:
        """The loss of a global batch."""
        if self.contrastive is not None:
            # DistributedDataParallel requires gradients of all weights: those of the head are zero.
            return contrastive_loss(*self.contrastive(output.embedding)) + 0 * output.logits.sum()
        recipe, teachers = self.recipe, self.teacher_targets
        loss = label_loss(output.logits, labels, recipe.task, recipe.loss, self.class_weights)
        return teachers.label_weight * loss + teachers.loss(output, tables)

    def _update(self) -> None:
        """Steps the optimizer and the moving average."""
        if self.recipe.optimizer.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.optimizer.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)


def _seed(*numbers: int) -> int:
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:7], "big")
