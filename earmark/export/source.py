"""What is exported, and the form it is to have.

Conventions: a model is known by its weights, as a network, or by its graph only, as a model file.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from onnx import ModelProto
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.export.waveform import FoldedLogMel, hearing_waveforms, prepend_log_mels
from earmark.export.weight_precision import graph_of, kept_wide, narrow_graph, require_fp32
from earmark.features.front_end import FrontEnd
from earmark.features.learned import GraphFrontEnd
from earmark.hub import registry
from earmark.hub.pretrained import trained
from earmark.inference.engines import open_engine
from earmark.inference.tagger import LONGEST_WINDOW_S
from earmark.inference.torch_session import NetworkSession
from earmark.model_file.info import ModelInfo, Precision
from earmark.model_file.onnx_file import read_model_file
from earmark.models.network import Network
from earmark.models.onnx_graph import example_inputs, network_to_onnx

if TYPE_CHECKING:
    from earmark.hub.download import Progress


@dataclass(frozen=True)
class Form:
    """How an export is to be.

    Args:
        waveform: Whether log-mels are computed within the graph, which then takes waveforms.
        seconds: The one length that the graph takes; "dynamic": any; None: any where the target can, else
            the model's window.
        precision: What weights are stored in, "fp16" or "bf16"; None: what the model's are.
    """

    waveform: bool = False
    seconds: float | Literal["dynamic"] | None = None
    precision: Precision | None = None

    def applied(self, info: ModelInfo, any_length: bool) -> ModelInfo:
        """The record of the export of a model.

        Args:
            info: Of the model.
            any_length: Whether the target can take any length.

        Raises:
            ModelError: If the length is not possible, or the model takes another length only.
        """
        if self.precision not in (None, info.precision):
            require_fp32(info)
            info = info.changed(precision=self.precision)
        if self.waveform:
            info = hearing_waveforms(info)
        if self.seconds is None or (self.seconds == "dynamic" and any_length and not info.fixed_window):
            return info if any_length else _of_length(info, info.window_s)
        if self.seconds == "dynamic":
            what = f"{info.name} takes" if info.fixed_window else "this target's files take"
            raise ModelError(f"{what} one length only: give --seconds {info.window_s:g}, or leave it out")
        return _of_length(info, self.seconds)


def _of_length(info: ModelInfo, seconds: float) -> ModelInfo:
    if not (isfinite(seconds) and info.shortest_s <= seconds <= LONGEST_WINDOW_S):
        raise ModelError(
            f"{info.name}: a length of {seconds:g} s is not possible: "
            f"{info.shortest_s:.3f} to {LONGEST_WINDOW_S:g} s are"
        )
    if info.fixed_window and info.samples(seconds) != info.samples(info.window_s):
        raise ModelError(
            f"{info.name} takes windows of {info.window_s:g} s only: export the model that it came from"
        )
    return info.changed(window_s=float(seconds), fixed_window=True)


@dataclass(frozen=True)
class Source:
    """A model that is to be exported.

    Args:
        info: The model's.
        network: With its weights, in evaluation mode; None where only the graph is known.
        content: Of its model file, where only the graph is known.
    """

    info: ModelInfo
    network: Network | None = None
    content: bytes = b""

    def session(self) -> Any:
        """What answers as the model does."""
        return NetworkSession(self.network) if self.network is not None else onnx_session(self.content)

    def exact_session(self) -> Any | None:
        """What answers as the model does, in float64.

        None where only the graph is known, or waveforms go in, which front-ends that learn take in float32.
        """
        if self.network is None or not all(isinstance(one, FrontEnd) for one in self.info.front_ends):
            return None
        return NetworkSession(deepcopy(self.network).double(), torch.float64)

    def graph(self, info: ModelInfo) -> ModelProto:
        """The model as an ONNX graph, without metadata.

        Args:
            info: What it is to become, by :meth:`Form.applied`.
        """
        network = self.network
        model = network_to_onnx(network, self.info) if network is not None else graph_of(self.content)
        if network is not None or info.precision != self.info.precision:
            narrow_graph(model, info.precision, kept_wide(self.info))
        if info.graph_inputs != self.info.graph_inputs:
            prepend_log_mels(model, self.info)
        if info.fixed_window:
            _fix_lengths(model, info)
        return model

    def module(self, info: ModelInfo, target: str) -> nn.Module:
        """The model as one module from inputs to a pair of tensors.

        Args:
            info: What it is to become, by :meth:`Form.applied`.
            target: What for, in words.

        Raises:
            ModelError: If only its graph is known.
        """
        if self.network is None:
            raise ModelError(
                f"{self.info.name}: only its graph is known, and {target} is made of weights: give a "
                "checkpoint (.safetensors) or the name of published weights"
            )
        return _Whole(self.network, info).eval()


class _Whole(nn.Module):
    """A network behind the front-ends that are to be within the graph."""

    def __init__(self, network: Network, info: ModelInfo) -> None:
        super().__init__()
        self.network = network
        self.front_ends = nn.ModuleList(
            FoldedLogMel(one.log_mel) if isinstance(one, GraphFrontEnd) else nn.Identity()
            for one in info.front_ends
        )

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        heard = [front_end(one) for front_end, one in zip(self.front_ends, given, strict=True)]
        output = self.network(*heard)
        return output.logits, output.embedding


def open_source(model: str, progress: Progress | None = None) -> Source:
    """A model that is to be exported or made smaller; needs PyTorch.

    Args:
        model: A name, a checkpoint or a model file: with weights where it has them, else its graph.
        progress: Called during a download; see :func:`earmark.inference.load.load`.

    Raises:
        ModelError: If it is unknown, damaged or several, or its weights cannot be downloaded.
    """
    if len(registry.members(model)) > 1:
        raise ModelError(f"{model}: several models are no one file: make it with earmark join first")
    known = registry.published().get(model)
    if Path(model).suffix == ".safetensors" or (known and known.labels and model not in registry.shipped()):
        network, info = trained(model, progress)
        return Source(info, network)
    content, info = read_model_file(registry.find(model))
    return Source(info, content=content)


def onnx_session(content: bytes) -> Any:
    """A session of ONNX Runtime for the content of a model file; a ModelError if it cannot run it."""
    return open_engine(content, "the graph")


def _fix_lengths(model: ModelProto, info: ModelInfo) -> None:
    """Has each input take windows of the record's length only, in place."""
    shapes = dict(zip(info.graph_inputs, example_inputs(info), strict=True))
    for entry in model.graph.input:
        entry.type.tensor_type.shape.dim[-1].dim_value = shapes[entry.name].shape[-1]
    del model.graph.value_info[:]  # whose lengths were open
