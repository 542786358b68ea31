"""Checkpoints: the weights of a network and its record in one safetensors file.

Conventions: the tensors bear the names of the state dict, and are of the record's precision; the file's
metadata holds the record as JSON under "earmark.record" and, under "earmark.sha256", a hash over record and
tensors. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from earmark.errors import ModelError
from earmark.features.learned import LearnedFrontEnd
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo
from earmark.models.network import Network
from earmark.models.registry import configure, create_model
from earmark.models.waveform_network import front_end_of, with_front_end

RECORD_KEY = "earmark.record"
HASH_KEY = "earmark.sha256"
STORED_AS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Precision of a record -> type of its checkpoint's weights; a network computes in float32 always."""


def save_checkpoint(path: str | PathLike[str], network: Network, info: ModelInfo) -> None:
    """Writes a network's weights and its record, whole or not at all.

    Args:
        path: The file, customarily named "*.safetensors"; its folder is made where it is missing.
        network: Built as the record says, on any device, in any memory format.
        info: What the weights are; they are rounded to its precision.

    Raises:
        ModelError: If the record describes another network, or a precision that only graphs have.
        OSError: If the file cannot be written; a previous one is then untouched.
    """
    if configure(info.architecture, **_arguments(info)) != network.config:
        raise ModelError(
            f"the record describes {info.architecture} for {len(info.labels)} labels "
            f"with {dict(info.arguments)}, the network is {network.config}: give the record of this network"
        )
    learned = info.front_end if isinstance(info.front_end, LearnedFrontEnd) else None
    if front_end_of(network) != learned:
        raise ModelError(
            f"the network has the learned front-end {front_end_of(network)}, its record has {learned}: "
            "give the record of this network"
        )
    if info.precision not in STORED_AS:
        raise ModelError(
            f"{path}: a checkpoint cannot be of {info.precision}: write a model file (.onnx), or one of "
            f"{', '.join(STORED_AS)}"
        )
    stored_as = STORED_AS[info.precision]
    tensors = {
        name: tensor.detach().to("cpu", stored_as if tensor.is_floating_point() else None).contiguous()
        for name, tensor in network.state_dict().items()
    }
    text = info.to_json()
    write_atomically(path, _ordered(save(tensors, {RECORD_KEY: text, HASH_KEY: _hash(text, tensors)})))


def load_checkpoint(path: str | PathLike[str]) -> tuple[Network, ModelInfo]:
    """Reads what save_checkpoint wrote; every tensor must be there and none besides.

    Weights of 16 bits become float32.

    Args:
        path: The file.

    Returns:
        The network on the CPU in evaluation mode, and its record.

    Raises:
        ModelError: If the file is missing, damaged, no checkpoint of earmark, or of a newer version.
    """
    metadata, tensors = _read(path)
    text = metadata.get(RECORD_KEY)
    if text is None:
        raise ModelError(
            f"{path}: is no checkpoint of earmark (it has no {RECORD_KEY}): give a file that earmark wrote"
        )
    if metadata.get(HASH_KEY) != _hash(text, tensors):
        raise ModelError(
            f"{path}: the checkpoint is damaged (its SHA-256 does not match): fetch or train it again"
        )
    try:
        info = ModelInfo.from_json(text)
        # The fresh weights are overwritten: drawing them must change no one's chance.
        with torch.random.fork_rng(devices=[]):
            network = with_front_end(create_model(info.architecture, **_arguments(info)), info.front_end)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        problem = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise ModelError(f"{path}: the weights are not those of {info.architecture}: {problem}") from None
    return network.eval(), info


def _arguments(info: ModelInfo) -> dict[str, object]:
    return {**info.arguments, "num_classes": len(info.labels)}


def _read(path: str | PathLike[str]) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ModelError(f"{path}: the checkpoint cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ModelError(
            f"{path}: is not a whole safetensors file ({error}): fetch or train it again"
        ) from None


def _ordered(content: bytes) -> bytes:
    """Sorts the header of a safetensors file, which comes in chance order: equal weights make equal files."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors stay aligned
    return len(header).to_bytes(8, "little") + header + content[start:]


def _hash(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
