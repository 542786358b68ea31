"""The network of a model file in PyTorch, with the weights of the file.

Conventions: batch norms are folded into the layers before them, as they are in the file, so the network has
none. The initializers of a graph have the names of the network's weights; those of folded norms end in
``weight_bias``. Needs the extra "train".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_weights
from earmark.model_file.onnx_runtime import onnxruntime
from earmark.models import create_model
from earmark.models.fuse_batch_norm import fuse_batch_norm
from earmark.models.onnx_graph import example_inputs

if TYPE_CHECKING:
    from earmark.models import Network

TOLERANCE = 1e-3
"""Largest accepted difference of logits, relative to the largest of them above 1."""


def network_of(content: bytes, info: ModelInfo) -> Network:
    """Builds the network of a model file.

    Args:
        content: The model file.
        info: Its model info.

    Returns:
        The network, on the CPU in evaluation mode; it agrees with the file on random inputs.

    Raises:
        ModelError: If the file is not that of a single network with a log-mel front-end, is quantised to
            int8, or its weights cannot be found by their names.
    """
    reason = f"{info.name}: depth full needs a network whose weights can be read"
    if not isinstance(info.front_end, FrontEnd) or info.graph_input != "log_mel" or info.precision == "int8":
        raise ModelError(f"{reason}, not an int8 model or one with its front-end in the graph")
    with torch.random.fork_rng([]):  # the random weights are overwritten
        network = create_model(info.architecture, num_classes=len(info.labels), **dict(info.arguments)).eval()
    fuse_batch_norm(network)
    stored = read_weights(content, "", info.precision)
    values: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        found = stored.get(name, stored.get(_folded(name)))
        if found is None or found.size != tensor.numel():
            raise ModelError(
                f"{reason}: {name} is missing: use the base model itself, or depth probe or head"
            )
        values[name] = torch.from_numpy(found.copy()).reshape(tensor.shape)
    network.load_state_dict(values)
    if not _difference(network, content, info) <= TOLERANCE:
        raise ModelError(f"{reason}: the graph computes something else than {info.architecture}")
    return network


def _folded(name: str) -> str:
    """The name in the graph of a bias that only a folded norm has brought."""
    return name.removesuffix("bias") + "weight_bias" if name.endswith(".bias") else name


@torch.no_grad()
def _difference(network: Network, content: bytes, info: ModelInfo) -> float:
    shape = example_inputs(info, batch=1)[0].shape
    log_mel = np.random.default_rng(0).standard_normal(shape, np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    [expected] = session.run(["logits"], {info.graph_input: log_mel})
    found = network(torch.from_numpy(log_mel)).logits.numpy()
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
