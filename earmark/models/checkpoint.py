"""Checkpoints of networks in PyTorch, written and read.

Conventions: the file is that of :mod:`earmark.model_file.checkpoint_file`. Nothing is ever unpickled.
"""

from __future__ import annotations

from os import PathLike

import torch
from safetensors import safe_open
from torch import Tensor

from earmark.errors import ModelError, first_line
from earmark.features.learned import LearnedFrontEnd
from earmark.model_file.atomic import write_atomically
from earmark.model_file.checkpoint_file import (
    HASH_KEY,
    INFO_KEY,
    TensorBytes,
    checkpoint_content,
    checkpoint_hash,
)
from earmark.model_file.info import ModelInfo
from earmark.model_file.state_dict import summary
from earmark.models.network import Network
from earmark.models.registry import create_config, create_model
from earmark.models.waveform_network import attach_front_end, learned_front_end
from earmark.models.weights import unfit_tensors

TENSOR_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Precision of a model -> type of the stored tensors; networks always compute in float32."""
_KINDS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def save_checkpoint(path: str | PathLike[str], network: Network, info: ModelInfo) -> None:
    """Writes a network's weights and its model info atomically.

    Args:
        path: The file, usually "*.safetensors"; missing parent folders are created.
        network: As for :func:`network_checkpoint`.
        info: As for :func:`network_checkpoint`.

    Raises:
        ModelError: As :func:`network_checkpoint`.
        OSError: If the file cannot be written; an existing one is left unchanged.
    """
    write_atomically(path, network_checkpoint(network, info))


def network_checkpoint(network: Network, info: ModelInfo) -> bytes:
    """The content of a checkpoint.

    Args:
        network: On any device, in any memory format.
        info: Model info of the network; the weights are rounded to its precision.

    Raises:
        ModelError: If the model info is that of another network, or has a precision that only graphs have.
    """
    if create_config(info.architecture, **_arguments(info)) != network.config:
        raise ModelError(
            f"the model info describes {info.architecture} for {len(info.labels)} labels with "
            f"{dict(info.arguments)}, the network is {network.config}: use the model info of this network"
        )
    learned = info.front_end if isinstance(info.front_end, LearnedFrontEnd) else None
    if learned_front_end(network) != learned:
        raise ModelError(
            f"the network has the learned front-end {learned_front_end(network)}, the model info {learned}: "
            "use the model info of this network"
        )
    if info.precision not in TENSOR_TYPES:
        raise ModelError(
            f"the precision of a checkpoint must be one of {', '.join(TENSOR_TYPES)}, got {info.precision}: "
            "write a model file (.onnx)"
        )
    stored_as = TENSOR_TYPES[info.precision]
    tensors = {
        name: tensor.to(stored_as) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    stored = {
        name: TensorBytes(_KINDS[tensor.dtype], tuple(tensor.shape), tensor_bytes(tensor))
        for name, tensor in tensors.items()
    }
    return checkpoint_content(stored, info.to_json())


def load_checkpoint(path: str | PathLike[str]) -> tuple[Network, ModelInfo]:
    """Reads a checkpoint strictly; 16-bit weights become float32.

    Args:
        path: The file.

    Returns:
        The network on the CPU in evaluation mode, and its model info.

    Raises:
        ModelError: If the file is missing, damaged, not a checkpoint of earmark, or of a newer version.
    """
    metadata, tensors = _read(path)
    text = metadata.get(INFO_KEY)
    if text is None:
        raise ModelError(
            f"{path}: is not a checkpoint of earmark (no {INFO_KEY} in its metadata): see earmark pull --from"
        )
    contents = {name: tensor_bytes(tensor) for name, tensor in tensors.items()}
    if metadata.get(HASH_KEY) != checkpoint_hash(text, contents):
        raise ModelError(f"{path}: the checkpoint is damaged (SHA-256 mismatch): download or train it again")
    try:
        info = ModelInfo.from_json(text)
        # The random weights are overwritten; the caller's random state stays unchanged.
        with torch.random.fork_rng(devices=[]):
            network = attach_front_end(create_model(info.architecture, **_arguments(info)), info.front_end)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    if info.precision not in TENSOR_TYPES:
        raise ModelError(
            f"{path}: a checkpoint cannot have the precision {info.precision}: train or export it again"
        )
    problems = unfit_tensors(network, tensors, [TENSOR_TYPES[info.precision]])
    if problems:
        raise ModelError(f"{path}: the weights do not fit {info.architecture}: {summary(problems)}")
    network.load_state_dict(tensors)
    return network.eval(), info


def _arguments(info: ModelInfo) -> dict[str, object]:
    return {**info.arguments, "num_classes": len(info.labels)}


def _read(path: str | PathLike[str]) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ModelError(f"{path}: the checkpoint cannot be read: {error.strerror or error}") from None
    except Exception as error:  # of safetensors and PyTorch; a header may name any type and size
        raise ModelError(
            f"{path}: is not a valid safetensors file ({first_line(error)}): download or train it again"
        ) from None


def tensor_bytes(tensor: Tensor) -> bytes:
    """Returns the values of a tensor as they are stored."""
    return tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
