"""Stores weights in 16 bits: half the size, with arithmetic in float32.

Source: SP4ASC's submissions to DCASE 2021, task 1a (golden sp4asc/sp4asc.npz, ``fp16``).

Conventions: a precision is one of PRECISIONS and named in the model info. Checkpoints and model files store
weights rounded to it; loading converts them to float32.
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor

from earmark.errors import ModelError
from earmark.features.learned import GraphFrontEnd, LearnedFrontEnd
from earmark.model_file.info import ModelInfo
from earmark.models.checkpoint import TENSOR_TYPES
from earmark.models.network import Network
from earmark.models.onnx_graph import subgraphs

PRECISIONS = tuple(TENSOR_TYPES)
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-1}
"""Largest difference of outputs from those in fp32, relative to the largest output if that is above 1."""
FRONT_END = "front_end/"
"""Prefix of the names in a graph that belong to a log-mel."""
_ONNX_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def rounded(network: Network, precision: str) -> Network:
    """Rounds the weights of a network to a precision.

    Args:
        network: In float32.
        precision: One of PRECISIONS.

    Returns:
        A copy in evaluation mode, in float32: equal to loading a checkpoint of that precision.

    Raises:
        ModelError: If a weight is too large for the precision.
    """
    other = copy.deepcopy(network).eval()
    for name, tensor in other.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(_narrow(tensor, precision, name))
    return other


def narrow_graph(model: ModelProto, precision: str, keep: str | None = None) -> None:
    """Stores the weights of a graph in a precision, in place; the runtime converts them when it loads it.

    Args:
        model: With float32 weights; scalars, which are constants of the arithmetic, stay float32.
        precision: One of PRECISIONS; "int8" leaves the graph as it is.
        keep: Prefix of the names of weights that stay float32.

    Raises:
        ModelError: If a weight is too large for the precision.
    """
    if precision in ("fp32", "int8"):
        return
    widened = {}
    for tensor in model.graph.initializer:
        kept = keep is not None and tensor.name.startswith(keep)
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 2 or kept:
            continue
        values = _narrow(torch.from_numpy(numpy_helper.to_array(tensor).copy()), precision, tensor.name)
        raw = values.flatten().view(torch.uint8).numpy().tobytes()
        narrow = helper.make_tensor(tensor.name, _ONNX_TYPES[precision], tensor.dims, raw, raw=True)
        tensor.CopyFrom(narrow)
        widened[tensor.name] = f"{tensor.name}.fp32"
    for graph in subgraphs(model.graph):
        for node in graph.node:
            node.input[:] = [widened.get(name, name) for name in node.input]
    casts = [helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT) for name, wide in widened.items()]
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def fp32_prefix(info: ModelInfo) -> str | None:
    """Prefix of the names of weights that stay float32: those of a front-end in the graph."""
    if isinstance(info.front_end, LearnedFrontEnd):
        return "features."
    return FRONT_END if isinstance(info.front_end, GraphFrontEnd) else None


def graph_of(content: bytes) -> ModelProto:
    """The graph of a model file, without the model info and hash."""
    model = onnx.load_model_from_string(content)
    del model.metadata_props[:]
    return model


def require_fp32(info: ModelInfo) -> None:
    """Raises a ModelError unless the weights of a model are in fp32."""
    if info.precision != "fp32":
        raise ModelError(f"{info.name}: the weights are {info.precision} already: give the model in fp32")


def _narrow(tensor: Tensor, precision: str, name: str) -> Tensor:
    values = tensor.to(TENSOR_TYPES[precision])
    if tensor.isfinite().all() and not values.isfinite().all():
        raise ModelError(f"{name}: a weight of {tensor.abs().max():g} is too large for {precision}: use bf16")
    return values
