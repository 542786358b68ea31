"""What a run starts with: its network, fresh or from elsewhere, and the parts that make it learn.

Conventions: a network from elsewhere is of the recipe's architecture and front-end; only its head may differ,
and only where the recipe says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from earmark.errors import RecipeError
from earmark.hub.pretrained import pretrained
from earmark.models.activation_checkpointing import checkpoint_stages
from earmark.models.checkpoint import load_checkpoint
from earmark.models.dymn import DyMN, annealed_temperature
from earmark.models.network import Network
from earmark.models.weights import head_tensor_names, replace_head
from earmark.models.registry import create_model
from earmark.models.waveform_network import attach_front_end
from earmark.training.config.recipe import Recipe


def first_network(recipe: Recipe, labels: Sequence[str]) -> Network:
    """A fresh network, or the one that the recipe starts from.

    Args:
        recipe: Its ``model`` and ``front_end`` say which.
        labels: Of the run.

    Raises:
        RecipeError: If the base does not fit the recipe; the message says in what.
        ModelError: If the network cannot be built, or the base cannot be had.
    """
    fresh = create_model(recipe.model.architecture, num_classes=len(labels), **recipe.model.arguments)
    fresh = attach_front_end(fresh, recipe.front_end)
    if recipe.model.annealing is not None and not isinstance(fresh, DyMN):
        raise RecipeError(
            f"model.annealing: {recipe.model.architecture} has no temperature to lower: leave it out"
        )
    if recipe.model.init_from is None:
        return fresh
    base, info = _base(recipe.model.init_from)
    if not recipe.model.new_head and tuple(labels) != info.labels:
        raise RecipeError(
            f"{recipe.model.init_from}: model.init_from knows {len(info.labels)} labels ({info.labels[0]}, ...), "
            f"the recipe's {len(labels)} ({labels[0]}, ...) are others: set model.new_head = true"
        )
    if recipe.model.new_head:
        base = replace_head(base, len(labels), fresh=True)
    # The temperature is no weight, and starts where the recipe says.
    if isinstance(base, DyMN) and isinstance(fresh, DyMN):
        base.set_temperature(fresh.config.temperature)
    for what, own, other in (
        ("network", fresh.config, base.config),
        ("front-end", recipe.front_end, info.front_end),
    ):
        if own != other:
            raise RecipeError(
                f"{recipe.model.init_from}: model.init_from has another {what} ({other}) than the recipe ({own})"
            )
    return base


def apply_checkpointing(recipe: Recipe, network: nn.Module) -> None:
    """Checkpoints the stages of a network if ``optimizer.checkpoint_stages`` is set.

    Raises:
        RecipeError: If it has no stages.
    """
    if recipe.optimizer.checkpoint_stages and not checkpoint_stages(network):
        raise RecipeError(
            f"optimizer.checkpoint_stages: {recipe.model.architecture} has no stages: remove the key"
        )


def _base(name: str) -> tuple[Network, Any]:
    return load_checkpoint(name) if Path(name).suffix == ".safetensors" else pretrained(name)


def require_bases(recipe: Recipe) -> None:
    """Refuses a recipe of which a base is missing, before the first of several folds is trained.

    Raises:
        RecipeError: If a file is missing.
    """
    for fold in recipe.runs:
        base = recipe.of_fold(fold).model.init_from
        if base is not None and Path(base).suffix == ".safetensors" and not Path(base).is_file():
            raise RecipeError(f"{base}: there is no such model.init_from: train what it comes from first")


def anneal(recipe: Recipe, networks: Sequence[nn.Module], epoch: int) -> float | None:
    """Brings the temperature of networks to that of an epoch; None where the recipe has no annealing."""
    annealing = recipe.model.annealing
    if annealing is None:
        return None
    final = float(recipe.model.arguments.get("temperature", 1.0))
    temperature = annealed_temperature(
        epoch, start=annealing.start, slope=annealing.slope, late_slope=annealing.late_slope, final=final
    )
    for network in networks:
        assert isinstance(network, DyMN)
        network.set_temperature(temperature)
    return temperature


def parameter_groups(recipe: Recipe, trained: nn.Module, network: Network) -> list[dict[str, Any]]:
    """What the optimizer treats alike: decaying or not, from the base or new.

    Args:
        recipe: Its optimizer section gives rates and decay.
        trained: All that learns.
        network: The part of it whose weights, but for the head, come from the base if there is one.

    Returns:
        Groups for an optimizer of torch; ``factor`` multiplies the rate of the schedule.
    """
    settings = recipe.optimizer
    new = set(head_tensor_names(network)) if recipe.model.init_from is not None else set()
    known = {id(weight) for name, weight in network.named_parameters() if name not in new}
    slow = settings.backbone_lr_scale if recipe.model.init_from is not None else 1.0
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for weight in trained.parameters():
        groups.setdefault((weight.ndim > 1 or settings.decay_all, id(weight) in known), []).append(weight)
    return [
        {
            "params": weights,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "factor": slow if from_base else 1.0,
        }
        for (decays, from_base), weights in groups.items()
    ]


class MovingAverage(AveragedModel):
    """A copy that follows a network's weights and norm statistics, at first faster.

    Args:
        network: On its device; the count of the steps stays on the CPU, where reading it waits for nothing.
        decay: By which the average keeps to what it was, once it has seen many steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Takes one more step of the network into account."""
        steps = int(self.n_averaged)
        share = 1 - min(self.decay, (1 + steps) / (10 + steps))
        averages = chain(self.module.parameters(), self.module.buffers())
        for average, value in zip(averages, chain(model.parameters(), model.buffers()), strict=True):
            if steps and average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)
        self.n_averaged += 1


def moving_average(network: nn.Module, decay: float) -> MovingAverage | None:
    """What follows a network; None without decay."""
    return MovingAverage(network, decay) if decay else None
