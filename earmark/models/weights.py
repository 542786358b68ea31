"""Reads published weights without running any code in them, and loads them into networks.

Conventions: a file is a PyTorch checkpoint (a state dict, alone or as ``state_dict``, ``net`` or ``model``)
or safetensors. Tensors have the names of the architecture's state dict, or those of another layout of
WEIGHT_LAYOUTS. Loading is strict; only the head may be replaced, by :func:`replace_head`.
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
from earmark.models.registry import create_model, rebuild
from earmark.models.waveform_network import WaveformNetwork

CONTAINERS = ("state_dict", "net", "model")
"""Keys of checkpoints for their state dict, in order of preference."""
_TORCH_STARTS = (b"PK", b"\x80")  # a zip archive; or a pickle, PyTorch's format before 1.6
_MAX_SHOWN = 3


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Reads the tensors of an untrusted file; code in it is never run.

    Args:
        path: A PyTorch checkpoint or a safetensors file.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        ModelError: If the file cannot be read, contains code, or has no state dict.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    if start[8:] == b"{" or not start.startswith(_TORCH_STARTS):
        return _read_safetensors(path)
    loaded = _read_checkpoint(path)
    holders = [loaded, *(loaded.get(key) for key in CONTAINERS)] if isinstance(loaded, Mapping) else []
    for holder in holders:
        if isinstance(holder, Mapping) and holder and all(isinstance(v, Tensor) for v in holder.values()):
            return {str(name): tensor.detach() for name, tensor in holder.items()}
    raise ModelError(f"{path}: has no state dict, neither alone nor as {', '.join(CONTAINERS)}")


def _read_safetensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: is not a valid checkpoint or safetensors file ({error}): download it again"
        ) from None


def _read_checkpoint(path: str | PathLike[str]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"would call {asked[1]} when loaded" if asked else "contains more than tensors"
        raise ModelError(f"{path}: {what}: refused, no code was run; save only its state dict") from None
    except Exception as error:  # damaged archives raise errors without a common base class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: is not a valid PyTorch checkpoint ({reason}): download it again") from None


def build_with_weights(
    architecture: str, arguments: Mapping[str, Any], num_classes: int, tensors: Mapping[str, Tensor]
) -> Network:
    """Builds a network and loads weights strictly: no tensor missing, none left over, all of their shapes.

    Args:
        architecture: Registered name.
        arguments: Fields of its config, without the number of classes.
        num_classes: Number of classes of the weights' head.
        tensors: State dict.

    Returns:
        The network on the CPU in evaluation mode.

    Raises:
        ModelError: If names or shapes differ, or a value is not finite.
    """
    with torch.random.fork_rng(devices=[]):  # the random weights are overwritten, the caller's RNG unchanged
        network = create_model(architecture, num_classes=num_classes, **arguments)
    problems = _differences(network.state_dict(), tensors)
    if problems:
        more = f" and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
        raise ModelError(
            f"the weights do not fit {architecture} for {num_classes} classes with {dict(arguments)}: "
            f"{'; '.join(problems[:_MAX_SHOWN])}{more}"
        )
    network.load_state_dict(tensors)
    return network.eval()


def _differences(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in wanted]
    both = [(name, wanted[name], tensors[name]) for name in wanted if name in tensors]
    problems += [
        f"{name} has shape {tuple(tensor.shape)} instead of {tuple(want.shape)}"
        for name, want, tensor in both
        if tensor.shape != want.shape
    ]
    return problems or [f"{name} is not finite" for name, _, tensor in both if not tensor.isfinite().all()]


def replace_head(network: Network, num_classes: int, *, fresh: bool = False) -> Network:
    """Copies a network with a new head for another number of classes; all other weights are kept.

    The head are the layers whose shape depends on the number of classes: the last layer of an mlp head, all
    of a fully convolutional one.

    Args:
        network: A network of a registered class, with or without a learned front-end.
        num_classes: Number of classes of the new head.
        fresh: Whether to draw a new head even for an equal number of classes.

    Returns:
        A new network on the CPU in evaluation mode.
    """
    other = _rebuild_for(network, num_classes)
    old, new = network.state_dict(), other.state_dict()
    if fresh or network.config.num_classes != num_classes:
        old = old | {name: new[name] for name in head_tensor_names(network)}
    other.load_state_dict(old)
    return other.eval()


def head_tensor_names(network: Network) -> tuple[str, ...]:
    """Returns the names of the tensors in the state dict whose shape depends on the number of classes."""
    with torch.device("meta"):
        other = _rebuild_for(network, network.config.num_classes + 1).state_dict()
    return tuple(name for name, tensor in network.state_dict().items() if tensor.shape != other[name].shape)


def _rebuild_for(network: Network, num_classes: int) -> Network:
    if isinstance(network, WaveformNetwork):
        inner = _rebuild_for(network.network, num_classes)
        return WaveformNetwork(inner, network.features.front_end)
    return rebuild(network, num_classes=num_classes)


def _from_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames torchvision's MobileNetV3-Large; the first convolution is summed over its input channels."""
    renamed = {}
    for name, tensor in tensors.items():
        squeeze = re.fullmatch(r"(features\.\d+\.block\.\d+)\.(fc[12]\..+)", name)
        if squeeze:
            name = f"{squeeze[1]}.conc_se_layers.0.{squeeze[2]}"
            tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor  # 1 x 1 convolutions
        name = re.sub(r"^classifier\.0\.", "classifier.2.", name)
        name = re.sub(r"^classifier\.3\.", "classifier.5.", name)
        renamed[name] = tensor.sum(1, keepdim=True) if name == "features.0.0.weight" else tensor
    return renamed


WEIGHT_LAYOUTS: Mapping[str, Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]] = {
    "": lambda tensors: tensors,
    "torchvision": _from_torchvision,
}
"""Name of a layout -> conversion of its tensors to the architecture's state dict."""
