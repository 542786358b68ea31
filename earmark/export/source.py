"""Models to export, with their weights or as a graph only.

Conventions: checkpoints and published weights are networks; model files are graphs. Both have an inference
session whose outputs are those of the model.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from onnx import ModelProto, TensorProto
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.export.waveform import FoldedLogMel, prepend_log_mel
from earmark.export.weight_precision import fp32_prefix, graph_of, narrow_graph
from earmark.features.front_end import FrontEnd
from earmark.features.learned import GraphFrontEnd
from earmark.hub import registry
from earmark.hub.pretrained import load_network
from earmark.inference.engines import Session, open_engine
from earmark.inference.torch_session import NetworkSession
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file
from earmark.models.network import Network
from earmark.models.onnx_graph import example_inputs, network_to_onnx

if TYPE_CHECKING:
    from earmark.hub.download import Progress


@dataclass(frozen=True)
class ExportSource:
    """A model to export.

    Args:
        info: The model info.
        network: The network in evaluation mode; None if there is only a graph.
        content: Content of the model file, if there is only a graph.
        exact: The model before quantisation, if this is its graph in 8 bits.
    """

    info: ModelInfo
    network: Network | None = None
    content: bytes = b""
    exact: ExportSource | None = None

    def session(self) -> Session:
        """An inference session that runs the model."""
        return NetworkSession(self.network) if self.network is not None else onnx_session(self.content)

    def exact_session(self) -> Session | None:
        """An inference session that runs the model with less rounding: in float64, or before quantisation.

        None for other graphs, and for networks that take waveforms, whose front-ends compute in float32.
        """
        if self.exact is not None:
            return self.exact.session()
        if self.network is None or not isinstance(self.info.front_end, FrontEnd):
            return None
        return NetworkSession(deepcopy(self.network).double(), torch.float64)

    def graph(self, info: ModelInfo) -> ModelProto:
        """The model as an ONNX graph without metadata.

        Args:
            info: Model info of the export, from :meth:`ExportOptions.applied`.
        """
        network = self.network
        model = network_to_onnx(network, self.info) if network is not None else graph_of(self.content)
        if network is not None or info.precision != self.info.precision:
            narrow_graph(model, info.precision, fp32_prefix(self.info))
        if info.front_end.graph_input != self.info.front_end.graph_input:
            prepend_log_mel(model, self.info)
        if info.fixed_window:
            _fix_length(model, info)
        return model

    def module(self, info: ModelInfo, target: str) -> nn.Module:
        """The model as one module from the input to a pair of tensors.

        Args:
            info: Model info of the export, from :meth:`ExportOptions.applied`.
            target: The kind of file, for errors.

        Raises:
            ModelError: If there is only a graph.
        """
        return _FrontEndAndNetwork(self.require_network(target), info).eval()

    def require_network(self, target: str) -> Network:
        """The network.

        Args:
            target: What needs it, for errors.

        Raises:
            ModelError: If there is only a graph.
        """
        if self.network is None:
            raise ModelError(
                f"{self.info.name} is a model file, {target} needs weights: give a checkpoint (.safetensors) "
                "or the name of published weights"
            )
        return self.network

    def count_parameters(self) -> int:
        """Parameters of the network; for a graph, its floating-point constants other than scalars."""
        if self.network is not None:
            return sum(parameter.numel() for parameter in self.network.parameters())
        floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
        tensors = graph_of(self.content).graph.initializer
        return sum(prod(tensor.dims) for tensor in tensors if tensor.data_type in floats and tensor.dims)


class _FrontEndAndNetwork(nn.Module):
    """A network and the log-mel before it, where that is part of the graph."""

    def __init__(self, network: Network, info: ModelInfo) -> None:
        super().__init__()
        self.network, front_end = network, info.front_end
        self.front_end: nn.Module = nn.Identity()
        if isinstance(front_end, GraphFrontEnd):
            self.front_end = FoldedLogMel(front_end.log_mel)

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        output = self.network(self.front_end(given))
        return output.logits, output.embedding


def open_source(model: str, progress: Progress | None = None) -> ExportSource:
    """Opens a model to export.

    Args:
        model: A model's name, a checkpoint or a model file.
        progress: Called during a download; see :func:`earmark.load`.

    Raises:
        ModelError: If the model is unknown or damaged, or its weights cannot be downloaded.
    """
    known = registry.published().get(model)
    if Path(model).suffix == ".safetensors" or (known and known.labels and model not in registry.shipped()):
        network, info = load_network(model, progress)
        return ExportSource(info, network)
    content, info = read_model_file(registry.find(model))
    return ExportSource(info, content=content)


def onnx_session(content: bytes) -> Session:
    """Opens the content of a model file with ONNX Runtime; raises a ModelError if it cannot run it."""
    return open_engine(content, "the graph")


def _fix_length(model: ModelProto, info: ModelInfo) -> None:
    """Fixes the length of the input to that of a window, in place."""
    [example] = example_inputs(info)
    model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value = example.shape[-1]
    del model.graph.value_info[:]  # these have dynamic lengths
