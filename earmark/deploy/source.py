"""What is exported, and the form it is to have.

Conventions: a model is known by its weights, as a network, or by its graph only, as a model file.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import torch
from onnx import ModelProto
from torch import Tensor, nn

from earmark.deploy.graph import examples, network_graph
from earmark.deploy.storage import graph_of, kept_wide, narrow_graph, require_fp32
from earmark.deploy.waveform import FoldedLogMel, hearing_waveforms, prepend_log_mels
from earmark.engines import open_engine
from earmark.errors import ModelError
from earmark.frontend import FrontEnd
from earmark.learned_frontend import GraphFrontEnd
from earmark.models.network import Network
from earmark.models.session import NetworkSession
from earmark.record import Precision, Record
from earmark.tagger import LONGEST_WINDOW_S


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

    def applied(self, record: Record, any_length: bool) -> Record:
        """The record of the export of a model.

        Args:
            record: Of the model.
            any_length: Whether the target can take any length.

        Raises:
            ModelError: If the length is not possible, or the model takes another length only.
        """
        if self.precision not in (None, record.precision):
            require_fp32(record)
            record = record.changed(precision=self.precision)
        if self.waveform:
            record = hearing_waveforms(record)
        if self.seconds is None or (self.seconds == "dynamic" and any_length and not record.fixed_window):
            return record if any_length else _of_length(record, record.window_s)
        if self.seconds == "dynamic":
            what = f"{record.name} takes" if record.fixed_window else "this target's files take"
            raise ModelError(f"{what} one length only: give --seconds {record.window_s:g}, or leave it out")
        return _of_length(record, self.seconds)


def _of_length(record: Record, seconds: float) -> Record:
    if not (isfinite(seconds) and record.shortest_s <= seconds <= LONGEST_WINDOW_S):
        raise ModelError(
            f"{record.name}: a length of {seconds:g} s is not possible: "
            f"{record.shortest_s:.3f} to {LONGEST_WINDOW_S:g} s are"
        )
    if record.fixed_window and record.samples(seconds) != record.samples(record.window_s):
        raise ModelError(
            f"{record.name} takes windows of {record.window_s:g} s only: export the model that it came from"
        )
    return record.changed(window_s=float(seconds), fixed_window=True)


@dataclass(frozen=True)
class Source:
    """A model that is to be exported.

    Args:
        record: The model's.
        network: With its weights, in evaluation mode; None where only the graph is known.
        content: Of its model file, where only the graph is known.
    """

    record: Record
    network: Network | None = None
    content: bytes = b""

    def session(self) -> Any:
        """What answers as the model does."""
        return NetworkSession(self.network) if self.network is not None else onnx_session(self.content)

    def exact_session(self) -> Any | None:
        """What answers as the model does, in float64.

        None where only the graph is known, or waveforms go in, which front-ends that learn take in float32.
        """
        if self.network is None or not all(isinstance(one, FrontEnd) for one in self.record.front_ends):
            return None
        return NetworkSession(deepcopy(self.network).double(), torch.float64)

    def graph(self, record: Record) -> ModelProto:
        """The model as an ONNX graph, without metadata.

        Args:
            record: What it is to become, by :meth:`Form.applied`.
        """
        if self.network is not None:
            model = network_graph(self.network, self.record)
        else:
            model = graph_of(self.content)
        if self.network is not None or record.precision != self.record.precision:
            narrow_graph(model, record.precision, kept_wide(self.record))
        if record.graph_inputs != self.record.graph_inputs:
            prepend_log_mels(model, self.record)
        if record.fixed_window:
            _fix_lengths(model, record)
        return model

    def module(self, record: Record, target: str) -> nn.Module:
        """The model as one module from inputs to a pair of tensors.

        Args:
            record: What it is to become, by :meth:`Form.applied`.
            target: What for, in words.

        Raises:
            ModelError: If only its graph is known.
        """
        if self.network is None:
            raise ModelError(
                f"{self.record.name}: only its graph is known, and {target} is made of weights: give a "
                "checkpoint (.safetensors) or the name of published weights"
            )
        return _Whole(self.network, record).eval()


class _Whole(nn.Module):
    """A network behind the front-ends that are to be within the graph."""

    def __init__(self, network: Network, record: Record) -> None:
        super().__init__()
        self.network = network
        self.front_ends = nn.ModuleList(
            FoldedLogMel(one.log_mel) if isinstance(one, GraphFrontEnd) else nn.Identity()
            for one in record.front_ends
        )

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        heard = [front_end(one) for front_end, one in zip(self.front_ends, given, strict=True)]
        output = self.network(*heard)
        return output.logits, output.embedding


def onnx_session(content: bytes) -> Any:
    """A session of ONNX Runtime for the content of a model file; a ModelError if it cannot run it."""
    return open_engine(content, "the graph")


def _fix_lengths(model: ModelProto, record: Record) -> None:
    """Has each input take windows of the record's length only, in place."""
    shapes = dict(zip(record.graph_inputs, examples(record), strict=True))
    for entry in model.graph.input:
        entry.type.tensor_type.shape.dim[-1].dim_value = shapes[entry.name].shape[-1]
    del model.graph.value_info[:]  # whose lengths were open
