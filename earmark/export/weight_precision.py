"""Weights in 16 bits: half the size, computed with as before.

Source: SP4ASC's submissions to DCASE 2021, task 1a, whose weights are fp16 and whose arithmetic is fp32
(golden sp4asc/sp4asc.npz, ``fp16``).

Conventions: a precision is one of PRECISIONS. The record names it; a checkpoint or model file holds its
weights so and gives them back as float32, each the nearest to what it was. Arithmetic is in float32 always.
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
from earmark.model_file.onnx_file import attach_info
from earmark.models.checkpoint import TENSOR_TYPES
from earmark.models.network import Network
from earmark.models.onnx_graph import subgraphs

PRECISIONS = tuple(TENSOR_TYPES)
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-1}
"""What answers may differ by from those of the weights in 32 bits, relative to the largest where above 1."""
FRONT_END = "front_end/"
"""How the names within a graph begin that belong to a log-mel."""
_ONNX_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def rounded(network: Network, precision: str) -> Network:
    """Rounds the weights of a network to a precision.

    Args:
        network: Of float32.
        precision: One of PRECISIONS.

    Returns:
        A copy, still of float32, in evaluation mode: what a checkpoint of that precision loads as.

    Raises:
        ModelError: If a weight is too large for the precision.
    """
    other = copy.deepcopy(network).eval()
    for name, tensor in other.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(_narrow(tensor, precision, name))
    return other


def narrow_graph(model: ModelProto, precision: str, keep: str | None = None) -> None:
    """Has a graph hold its weights in a precision, in place; the runtime widens them when it loads the graph.

    Args:
        model: With weights of float32; single numbers, which are constants of the arithmetic, stay so.
        precision: One of PRECISIONS.
        keep: How the names of weights begin that are to stay in float32.

    Raises:
        ModelError: If a weight is too large for the precision.
    """
    if precision == "fp32":
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


def narrowed(content: bytes, info: ModelInfo, precision: str) -> bytes:
    """A model file with its weights in a precision.

    Args:
        content: Of a model file of float32, as :func:`earmark.model_file.onnx_file.read_model_file` gives it.
        info: Its record.
        precision: One of PRECISIONS.

    Returns:
        The content of a model file. A front-end within the graph stays as it is: its spectra span more than
        16 bits.

    Raises:
        ModelError: If a weight is too large for the precision, or the model is not one of float32.
    """
    require_fp32(info)
    model = graph_of(content)
    narrow_graph(model, precision, kept_wide(info))
    return attach_info(model.SerializeToString(), info.changed(precision=precision))


def kept_wide(info: ModelInfo) -> str | None:
    """How the names of weights begin that stay in float32: those of a front-end within the graph."""
    if any(isinstance(one, LearnedFrontEnd) for one in info.front_ends):
        return "features."
    within = any(isinstance(one, GraphFrontEnd) for one in info.front_ends)
    return FRONT_END if within else None


def graph_of(content: bytes) -> ModelProto:
    """The graph of a model file, without its record and hash."""
    model = onnx.load_model_from_string(content)
    del model.metadata_props[:]
    return model


def require_fp32(info: ModelInfo) -> None:
    """Refuses to compress weights that were compressed before, with a ModelError."""
    if info.precision != "fp32":
        raise ModelError(f"{info.name}: its weights are {info.precision} already: give the model in fp32")


def _narrow(tensor: Tensor, precision: str, name: str) -> Tensor:
    values = tensor.to(TENSOR_TYPES[precision])
    if tensor.isfinite().all() and not values.isfinite().all():
        raise ModelError(f"{name}: a weight of {tensor.abs().max():g} is too large for {precision}: use bf16")
    return values
