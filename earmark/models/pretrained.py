"""Weights that others published: read without running anything, fitted with nothing left over.

Conventions: a file is a PyTorch checkpoint (a state dict, alone or as ``state_dict``, ``net`` or ``model``)
or safetensors. Tensors bear the names of the architecture's state dict, or those of a layout of LAYOUTS. Only
the head may differ from what was published, and only where another number of classes is asked for.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from earmark.errors import ModelError
from earmark.models.network import Network
from earmark.models.registry import create_model, rebuilt
from earmark.models.waveform_network import WaveformNetwork

CONTAINERS = ("state_dict", "net", "model")
"""Where checkpoints keep their state dict, looked for in this order."""
_TORCH_STARTS = (b"PK", b"\x80")  # a zip archive, or a pickle as PyTorch wrote them before 1.6
_SHOWN = 3


def read_weights(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Reads the tensors of a file that may come from anywhere; no code in it is ever run.

    Args:
        path: A PyTorch checkpoint or a safetensors file.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        ModelError: If the file cannot be read, holds more than data, or no state dict.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read: {error.strerror or error}") from None
    if start[8:] == b"{" or not start.startswith(_TORCH_STARTS):
        return _read_safetensors(path)
    loaded = _read_checkpoint(path)
    holders = [loaded, *(loaded.get(key) for key in CONTAINERS)] if isinstance(loaded, Mapping) else []
    for holder in holders:
        if isinstance(holder, Mapping) and holder and all(isinstance(v, Tensor) for v in holder.values()):
            return {str(name): tensor.detach() for name, tensor in holder.items()}
    raise ModelError(
        f"{path}: holds no state dict, neither alone nor as {', '.join(CONTAINERS)}: give a file of weights"
    )


def _read_safetensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: is neither a PyTorch checkpoint nor a whole safetensors file ({error}): fetch it again"
        ) from None


def _read_checkpoint(path: str | PathLike[str]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {asked[1]} when it is read" if asked else "does not hold weights alone"
        raise ModelError(
            f"{path}: {what}: refused, nothing in it was run; save its state dict alone"
        ) from None
    except Exception as error:  # what a damaged archive raises has no common base but this
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: is not a whole PyTorch checkpoint ({reason}): fetch it again") from None


def fit(
    architecture: str, arguments: Mapping[str, Any], num_classes: int, tensors: Mapping[str, Tensor]
) -> Network:
    """Builds a network and gives it weights; every tensor must be there, none besides, each of its shape.

    Args:
        architecture: Name in the registry.
        arguments: What it is built with, apart from the number of classes.
        num_classes: Of the head that the weights have.
        tensors: By the names of the state dict.

    Returns:
        The network on the CPU in evaluation mode.

    Raises:
        ModelError: If the weights are not those of this network.
    """
    with torch.random.fork_rng(devices=[]):  # the fresh weights are overwritten: no one's chance changes
        network = create_model(architecture, num_classes=num_classes, **arguments)
    problems = _differences(network.state_dict(), tensors)
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ModelError(
            f"the weights are not those of {architecture} for {num_classes} classes with {dict(arguments)}: "
            f"{'; '.join(problems[:_SHOWN])}{more}"
        )
    network.load_state_dict(tensors)
    return network.eval()


def _differences(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} does not belong there" for name in tensors if name not in wanted]
    both = [(name, wanted[name], tensors[name]) for name in wanted if name in tensors]
    problems += [
        f"{name} has shape {tuple(tensor.shape)} instead of {tuple(want.shape)}"
        for name, want, tensor in both
        if tensor.shape != want.shape
    ]
    return problems or [f"{name} is not finite" for name, _, tensor in both if not tensor.isfinite().all()]


def with_classes(network: Network, num_classes: int, *, fresh: bool = False) -> Network:
    """The same network for another number of classes: a fresh head, all other weights kept.

    The head is what changes its shape with the number of classes: the last layer of an mlp, the whole of a
    fully convolutional head.

    Args:
        network: From the registry, with a front-end that learns or without.
        num_classes: Of the new head.
        fresh: The head is a fresh one even if the old one has as many classes.

    Returns:
        A new network on the CPU in evaluation mode.
    """
    other = _with_count(network, num_classes)
    given, new = network.state_dict(), other.state_dict()
    if fresh or network.config.num_classes != num_classes:
        given = given | {name: new[name] for name in head_tensors(network)}
    other.load_state_dict(given)
    return other.eval()


def head_tensors(network: Network) -> tuple[str, ...]:
    """Names of the tensors, in the state dict, whose shape changes with the number of classes."""
    with torch.device("meta"):
        other = _with_count(network, network.config.num_classes + 1).state_dict()
    return tuple(name for name, tensor in network.state_dict().items() if tensor.shape != other[name].shape)


def _with_count(network: Network, num_classes: int) -> Network:
    if isinstance(network, WaveformNetwork):
        inner = _with_count(network.network, num_classes)
        return WaveformNetwork(inner, network.features.front_end)
    return rebuilt(network, num_classes=num_classes)


def _from_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MobileNetV3-Large as torchvision names it; the stem's input channels are summed into one."""
    renamed = {}
    for name, tensor in tensors.items():
        squeeze = re.fullmatch(r"(features\.\d+\.block\.\d+)\.(fc[12]\..+)", name)
        if squeeze:
            name = f"{squeeze[1]}.conc_se_layers.0.{squeeze[2]}"
            tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor  # 1x1 convolutions of a single pixel
        name = re.sub(r"^classifier\.0\.", "classifier.2.", name)
        name = re.sub(r"^classifier\.3\.", "classifier.5.", name)
        renamed[name] = tensor.sum(1, keepdim=True) if name == "features.0.0.weight" else tensor
    return renamed


LAYOUTS: Mapping[str, Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]] = {
    "": lambda tensors: tensors,
    "torchvision": _from_torchvision,
}
"""Whose names tensors may bear -> how they become those of the architecture."""
