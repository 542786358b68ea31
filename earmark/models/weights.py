"""Reads weights without running any code in them, and loads them into networks.

Conventions: a file is a PyTorch checkpoint (a state dict, alone or as ``state_dict``, ``net`` or ``model``)
or safetensors. Tensors have the names of the architecture's state dict. Loading is strict; only the head may
be replaced, by :func:`replace_head`. Files of published models are read without PyTorch, by
:mod:`earmark.hub.checkpoint`.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from earmark.errors import ModelError, first_line
from earmark.features.learned import AnyFrontEnd
from earmark.model_file.state_dict import find_state_dict, misfits, summary
from earmark.models.network import Network
from earmark.models.registry import create_model, rebuild
from earmark.models.waveform_network import WaveformNetwork, attach_front_end

_TORCH_STARTS = (b"PK", b"\x80")  # a zip archive; or a pickle, PyTorch's format before 1.6


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
    try:
        tensors = find_state_dict(_read_checkpoint(path), Tensor)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _read_safetensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # of safetensors, PyTorch and the system; a header may name any type and size
        raise ModelError(
            f"{path}: is not a valid checkpoint or safetensors file ({first_line(error)}): download it again"
        ) from None


def _read_checkpoint(path: str | PathLike[str]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"would call {asked[1]} when loaded" if asked else "contains more than tensors"
        raise ModelError(f"{what}: refused, no code was run; save only its state dict") from None
    except Exception as error:  # damaged archives raise errors without a common base class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"is not a valid PyTorch checkpoint ({reason}): download it again") from None


def build_with_weights(
    architecture: str,
    arguments: Mapping[str, Any],
    num_classes: int,
    tensors: Mapping[str, Tensor],
    front_end: AnyFrontEnd | None = None,
) -> Network:
    """Builds a network and loads weights strictly: no tensor missing, none left over, all of their shapes.

    Args:
        architecture: Registered name.
        arguments: Fields of its config, without the number of classes.
        num_classes: Number of classes of the weights' head.
        tensors: State dict.
        front_end: A learned one is part of the network.

    Returns:
        The network on the CPU in evaluation mode.

    Raises:
        ModelError: If names, shapes or kinds of values differ, or a value is not finite.
    """
    with torch.random.fork_rng(devices=[]):  # the random weights are overwritten, the caller's RNG unchanged
        network = create_model(architecture, num_classes=num_classes, **arguments)
        network = network if front_end is None else attach_front_end(network, front_end)
    problems = unfit_tensors(network, tensors)
    if problems:
        raise ModelError(
            f"the weights do not fit {architecture} for {num_classes} classes with {dict(arguments)}: "
            f"{summary(problems)}"
        )
    network.load_state_dict(tensors)
    return network.eval()


_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def unfit_tensors(
    network: Network, tensors: Mapping[str, Tensor], floats: Collection[torch.dtype] = _FLOATS
) -> list[str]:
    """Lists what keeps tensors from being loaded into a network as they are.

    Args:
        network: The network.
        tensors: State dict.
        floats: Types of weights that may be converted.

    Returns:
        A phrase for each tensor that is missing, left over, of another shape or kind, or not finite.
    """
    wanted = network.state_dict()
    problems = misfits(
        {name: tuple(own.shape) for name, own in wanted.items()},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
    )
    return problems or [
        f"{name} {problem}" for name, own in wanted.items() if (problem := _unfit(own, tensors[name], floats))
    ]


def _unfit(own: Tensor, tensor: Tensor, floats: Collection[torch.dtype]) -> str:
    """What keeps a tensor from taking the place of a network's own; "" if nothing does."""
    if tensor.is_meta:
        return "has a shape, but no values"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "is sparse or quantised: store it dense, in float32"
    allowed = floats if own.is_floating_point() else (own.dtype,)
    if tensor.dtype not in allowed:
        names = " or ".join(str(kind).removeprefix("torch.") for kind in allowed)
        return f"has type {str(tensor.dtype).removeprefix('torch.')} instead of {names}"
    return "" if tensor.to(own.dtype).isfinite().all() else "is not finite"


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
