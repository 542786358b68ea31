"""Builds a checkpoint and a model file from weights of any registered architecture, in PyTorch.

Conventions: nothing is written unless all tensors fit the network and the model file agrees with the network.
Needs the extra "train".
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earmark.errors import ModelError
from earmark.hub.layouts import without_spectrogram
from earmark.model_file.atomic import write_all_atomically
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info
from earmark.model_file.onnx_runtime import onnxruntime
from earmark.models.checkpoint import network_checkpoint
from earmark.models.flax_checkpoint import is_flax_checkpoint, read_flax_checkpoint
from earmark.models.flax_weights import state_dict_from_flax
from earmark.models.network import Network
from earmark.models.onnx_graph import OUTPUT_NAMES, example_inputs, network_to_onnx
from earmark.models.registry import create_model
from earmark.models.waveform_network import attach_front_end
from earmark.models.weights import build_with_weights, read_state_dict

TOLERANCE = 1e-4
"""Largest accepted difference of logits and embedding, relative to the largest value above 1."""


def build(
    weights: str | PathLike[str],
    info: ModelInfo,
    *,
    checkpoint: str | PathLike[str],
    model_file: str | PathLike[str],
) -> None:
    """Converts a file of weights into a checkpoint and a model file.

    Args:
        weights: A PyTorch checkpoint, a safetensors file, or a checkpoint of audax.
        info: Model info; ``embedding_size`` is filled in.
        checkpoint: Path of the safetensors checkpoint to write.
        model_file: Path of the model file to write.

    Raises:
        ModelError: If the file is damaged, has more than tensors, does not fit the architecture, or the model
            file differs from the network by more than ``TOLERANCE``.
    """
    is_flax = is_flax_checkpoint(weights)
    tensors: Any = read_flax_checkpoint(weights) if is_flax else read_state_dict(weights)
    try:
        tensors = _renamed(tensors, info) if is_flax else without_spectrogram(tensors, info.front_end)
        network = build_with_weights(
            info.architecture, info.arguments, len(info.labels), tensors, info.front_end
        )
    except ModelError as error:
        raise ModelError(f"{Path(weights)}: {error}") from None
    network.eval()
    info = info.changed(embedding_size=_embedding_size(network, info))
    content = attach_info(network_to_onnx(network, info).SerializeToString(), info)
    difference = _difference(network, content, info)
    if not difference <= TOLERANCE:  # NaN is none
        raise ModelError(
            f"{Path(weights)}: the model file may differ from the network by {TOLERANCE:g}, "
            f"got {difference:.2g}: nothing was written"
        )
    contents = {Path(checkpoint): network_checkpoint(network, info), Path(model_file): content}
    write_all_atomically(contents)


def _renamed(variables: Mapping[str, NDArray[Any]], info: ModelInfo) -> dict[str, Tensor]:
    """The state dict of a network from the variables of flax."""
    with torch.device("meta"):
        network = create_model(info.architecture, num_classes=len(info.labels), **info.arguments)
        network = attach_front_end(network, info.front_end)
    return state_dict_from_flax(network, variables)


@torch.no_grad()
def _embedding_size(network: Network, info: ModelInfo) -> int:
    return int(network(*example_inputs(info, batch=1)).embedding.shape[1])


@torch.no_grad()
def _difference(network: Network, content: bytes, info: ModelInfo) -> float:
    """Largest relative difference for random inputs of one window, batches of 1 and 3; NaN is the largest."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    differences = []
    for batch in (1, 3):
        shape = example_inputs(info, batch)[0].shape
        features = np.random.default_rng(batch).standard_normal(shape, np.float32)
        expected = network(torch.from_numpy(features))
        outputs = session.run(list(OUTPUT_NAMES), {info.graph_input: features})
        for values, output in zip(outputs, OUTPUT_NAMES, strict=True):
            wanted = getattr(expected, output).numpy()
            scale = max(1.0, float(np.abs(wanted).max()))
            differences.append(np.abs(values - wanted).max() / scale)
    return float(np.max(differences))
