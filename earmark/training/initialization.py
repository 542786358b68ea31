"""Initial network of a run, its parameter groups and its moving average.

Conventions: pretrained weights must fit the recipe's network, except for the head with ``model.new_head``.
Whatever else differs from what they were trained with (front-end, dropout, momentum of norms) is the recipe's
choice, and reported in a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from earmark.errors import RecipeError
from earmark.features.learned import AnyFrontEnd
from earmark.hub.pretrained import load_network
from earmark.model_file.state_dict import summary
from earmark.models.activation_checkpointing import checkpoint_stages
from earmark.models.checkpoint import load_checkpoint
from earmark.models.dymn import DyMN, annealed_temperature
from earmark.models.layers import DropPath
from earmark.models.network import Network, NetworkConfig
from earmark.models.registry import create_model
from earmark.models.waveform_network import attach_front_end
from earmark.models.weights import head_tensor_names, unfit_tensors
from earmark.training.config.recipe import Recipe

Progress = Callable[[Mapping[str, Any]], object]


def initial_network(
    recipe: Recipe, labels: Sequence[str], progress: Progress = lambda facts: None
) -> Network:
    """Builds the network of a recipe with random weights, or those of ``model.init_from``.

    Args:
        recipe: Its ``model`` and ``front_end`` decide.
        labels: Of the run.
        progress: Called with a warning if the pretrained weights were trained with other settings.

    Raises:
        RecipeError: If the pretrained weights do not fit the recipe's network.
        ModelError: If the network cannot be built, or the weights are not found.
    """
    fresh = create_model(recipe.model.architecture, num_classes=len(labels), **recipe.model.arguments)
    fresh = attach_front_end(fresh, recipe.front_end)
    if recipe.model.annealing is not None and not isinstance(fresh, DyMN):
        raise RecipeError(
            f"model.annealing: {recipe.model.architecture} has no temperature: remove the table"
        )
    if recipe.model.init_from is None:
        return fresh
    pretrained, info = _load(recipe.model.init_from)
    if not recipe.model.new_head and tuple(labels) != info.labels:
        raise RecipeError(
            f"{recipe.model.init_from}: its model has {len(info.labels)} labels ({info.labels[0]}, ...), "
            f"not the recipe's {len(labels)} ({labels[0]}, ...): set model.new_head = true"
        )
    _take_weights(recipe, fresh, pretrained, info.architecture)
    changes = [*_changes(recipe.front_end, info.front_end), *_changes(fresh.config, pretrained.config)]
    if changes:
        progress({"warning": f"{recipe.model.init_from}: trained with other settings: {', '.join(changes)}"})
    if recipe.optimizer.backbone_lr_scale == 0:
        _freeze_backbone(fresh)
    return fresh


def _take_weights(recipe: Recipe, network: Network, pretrained: Network, architecture: str) -> None:
    """Copies all weights, except for those of a new head.

    Raises:
        RecipeError: If they do not fit.
    """
    weights = pretrained.state_dict()
    if recipe.model.new_head:
        own = network.state_dict()
        weights = {name: weights[name] for name in weights.keys() - {*head_tensor_names(pretrained)}}
        weights |= {name: own[name] for name in head_tensor_names(network)}
    problems = unfit_tensors(network, weights)
    if problems:
        raise RecipeError(
            f"{recipe.model.init_from}: the weights of {architecture} do not fit the recipe's network, "
            f"{recipe.model.architecture} with {dict(recipe.model.arguments)}: {summary(problems)}"
        )
    network.load_state_dict(weights)


def _changes(now: AnyFrontEnd | NetworkConfig, before: AnyFrontEnd | NetworkConfig) -> list[str]:
    """What differs between two front-ends, or the configs of two networks."""
    if type(now) is not type(before):
        return [f"{type(before).__name__} -> {type(now).__name__}"]
    # The classes are those of the labels, and the temperature, which is no weight, is annealed.
    names = [field.name for field in fields(now) if field.name not in ("num_classes", "temperature")]
    pairs = ((name, getattr(before, name), getattr(now, name)) for name in names)
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]


def _freeze_backbone(network: Network) -> None:
    """Freezes all weights except for the head's."""
    head = head_tensor_names(network)
    for name, weight in network.named_parameters():
        weight.requires_grad_(name in head)


def set_training_mode(network: nn.Module) -> None:
    """Training mode; norms of a frozen backbone keep their statistics, and it drops no blocks."""
    network.train()
    if all(weight.requires_grad for weight in network.parameters()):
        return
    for module in network.modules():
        is_frozen = not any(weight.requires_grad for weight in module.parameters())
        if is_frozen and isinstance(module, _BatchNorm | DropPath):
            module.eval()


def apply_checkpointing(recipe: Recipe, network: nn.Module) -> None:
    """Checkpoints the stages of a network if ``optimizer.checkpoint_stages`` is set.

    Raises:
        RecipeError: If it has no stages.
    """
    if recipe.optimizer.checkpoint_stages and not checkpoint_stages(network):
        raise RecipeError(
            f"optimizer.checkpoint_stages: {recipe.model.architecture} has no stages: remove the key"
        )


def _load(name: str) -> tuple[Network, Any]:
    return load_checkpoint(name) if Path(name).suffix == ".safetensors" else load_network(name)


def require_initial_weights(recipe: Recipe) -> None:
    """Checks that the initial weights of all folds exist, before the first is trained.

    Raises:
        RecipeError: If a file is missing.
    """
    for fold in recipe.runs:
        path = recipe.of_fold(fold).model.init_from
        if path is not None and Path(path).suffix == ".safetensors" and not Path(path).is_file():
            raise RecipeError(f"{path}: model.init_from not found: train the recipe that writes it first")


def set_temperature(recipe: Recipe, networks: Sequence[nn.Module], epoch: int) -> float | None:
    """Sets the temperature of an epoch; returns it, or None without annealing."""
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


@torch.no_grad()
def embedding_size(recipe: Recipe, network: Network) -> int:
    """Channels of the embedding, from one forward pass; leaves the network's mode as it is."""
    was_training, device = network.training, next(network.parameters()).device
    frames = recipe.front_end.num_frames(recipe.window_length)
    output = network.eval()(torch.zeros(1, recipe.front_end.n_mels, frames, device=device))
    network.train(was_training)
    return int(output.embedding.shape[1])


def parameter_groups(recipe: Recipe, trained: nn.Module, network: Network) -> list[dict[str, Any]]:
    """Parameter groups of the optimizer: with or without decay, pretrained or new.

    Args:
        recipe: Its ``optimizer`` sets rates and decay.
        trained: Holds all trained parameters.
        network: The part of it that is pretrained, except for the head, if ``model.init_from`` is set.

    Returns:
        Groups for a torch optimizer, without frozen weights; ``lr_scale`` multiplies the learning rate.
    """
    settings = recipe.optimizer
    new = set(head_tensor_names(network)) if recipe.model.init_from is not None else set()
    known = {id(weight) for name, weight in network.named_parameters() if name not in new}
    scale = settings.backbone_lr_scale if recipe.model.init_from is not None else 1.0
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for weight in trained.parameters():
        if not weight.requires_grad:
            continue
        groups.setdefault((weight.ndim > 1 or settings.decay_all, id(weight) in known), []).append(weight)
    return [
        {
            "params": weights,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "lr_scale": scale if pretrained_weight else 1.0,
        }
        for (decays, pretrained_weight), weights in groups.items()
    ]


class MovingAverage(AveragedModel):
    """Exponential moving average of weights and norm statistics, with a warm-up of the decay.

    ``torch.optim.swa_utils`` provides the copy; its own update has a constant decay and would wait for the
    device to read the number of steps, which is kept on the CPU here.

    Args:
        network: On its device.
        decay: After the warm-up; at step n it is at most (1 + n) / (10 + n).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Updates the average after a step."""
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
    """The moving average of a network; None without decay."""
    return MovingAverage(network, decay) if decay else None
