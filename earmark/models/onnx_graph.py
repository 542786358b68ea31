"""From a module of PyTorch to an ONNX graph that says nothing of the machine it was made on.

Conventions: a graph that takes waveforms or log-mels leaves batch and length open, under the names "batch"
and "time" or "frame", numbered as the inputs are.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import torch
from onnx import GraphProto, ModelProto
from onnxscript.optimizer import remove_unused_nodes
from torch import Tensor, nn

from earmark.features.learned import AnyFrontEnd
from earmark.model_file.info import ModelInfo
from earmark.models.ensemble import Ensemble
from earmark.models.network import Network

OPSET = 20
OUTPUTS = ("logits", "embedding")


def network_graph(network: Network, info: ModelInfo) -> ModelProto:
    """The graph of a network.

    Args:
        network: In evaluation mode.
        info: Of the network; it says what the inputs are.

    Returns:
        From ``record.graph_inputs`` to logits (batch, class) and embedding (batch, channel).
    """
    axes = _open_axes(info)
    several = isinstance(network, Ensemble)  # its inputs are one argument with a star
    return to_onnx(network, examples(info), (axes,) if several else axes, (info.graph_inputs, OUTPUTS))


def examples(info: ModelInfo, batch: int = 2) -> tuple[Tensor, ...]:
    """Zeros for each input of a model's graph, as long as a window: (batch, mel, frame) or (batch, time)."""
    lengths = zip(info.front_ends, info.samples(info.window_s), strict=True)
    return tuple(torch.zeros(batch, *input_shape(front_end, samples)) for front_end, samples in lengths)


def input_shape(front_end: AnyFrontEnd, samples: int) -> tuple[int, ...]:
    """Of what a graph takes of so many samples: (mel, frame), or (time,) with the front-end in the graph."""
    if front_end.graph_input == "waveform":
        return (samples,)
    return front_end.n_mels, front_end.num_frames(samples)


def _open_axes(info: ModelInfo) -> tuple[dict[int, torch.export.Dim], ...]:
    """Those axes of each input that are left open."""
    batch = torch.export.Dim("batch")
    axes = []
    for name, example in zip(info.graph_inputs, examples(info), strict=True):
        last = name.replace("waveform", "time").replace("log_mel", "frame")
        axes.append({0: batch, example.ndim - 1: torch.export.Dim(last)})
    return tuple(axes)


def to_onnx(
    module: nn.Module,
    given: tuple[Tensor, ...],
    axes: tuple[object, ...],
    names: tuple[Sequence[str], Sequence[str]],
    opset: int = OPSET,
) -> ModelProto:
    """Exports a module.

    Args:
        module: In evaluation mode.
        given: An example of what it takes.
        axes: Those that are open, for each argument.
        names: Of inputs and outputs.
        opset: Version of ONNX's operators.

    Returns:
        The model, without a trace of the sources.
    """
    with _quiet(), _out_of_place(module), torch.no_grad():
        program = torch.onnx.export(
            module,
            given,
            dynamo=True,
            input_names=list(names[0]),
            output_names=list(names[1]),
            dynamic_shapes=axes,
            opset_version=opset,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    remove_unused_nodes(program.model)  # initializers that loops leave behind; the runtime warns of them
    model: ModelProto = program.model_proto
    model.producer_name, model.producer_version = "earmark", ""
    del model.metadata_props[:]
    for graph in with_bodies(model.graph):
        for node in graph.node:
            del node.metadata_props[:]  # source lines and stack traces of this machine
            node.doc_string = ""
        for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
            del value.metadata_props[:]
    return model


def with_bodies(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those of its loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from with_bodies(attribute.g)


@contextlib.contextmanager
def _out_of_place(network: nn.Module) -> Iterator[None]:
    """Has no activation overwrite its input; the exporter takes those apart, for half as long again."""
    inside = [module for module in network.modules() if getattr(module, "inplace", False)]
    for module in inside:
        module.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in inside:
            module.inplace = True  # type: ignore[assignment]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps from the caller what the exporter says on standard output and in warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
