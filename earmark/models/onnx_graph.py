"""Exports PyTorch modules to ONNX graphs without traces of the machine they were made on.

Conventions: batch and length are dynamic axes, named "batch" and "time" (waveforms) or "frame" (log-mels).
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
from earmark.models.network import Network

OPSET = 20
OUTPUT_NAMES = ("logits", "embedding")


def network_to_onnx(network: Network, info: ModelInfo) -> ModelProto:
    """Exports a network.

    Args:
        network: In evaluation mode.
        info: Model info of the network, for the shape of its input.

    Returns:
        A graph from ``info.front_end.graph_input`` to logits (batch, class) and embedding (batch, channel).
    """
    name = info.front_end.graph_input
    last = {"waveform": "time", "log_mel": "frame"}[name]
    inputs = example_inputs(info)
    axes = {0: torch.export.Dim("batch"), inputs[0].ndim - 1: torch.export.Dim(last)}
    return module_to_onnx(network, inputs, (axes,), ([name], OUTPUT_NAMES))


def example_inputs(info: ModelInfo, batch: int = 2) -> tuple[Tensor]:
    """Builds an example of a graph's input.

    Args:
        info: Model info, for the front-end and the window.
        batch: Number of windows.

    Returns:
        One tensor of zeros, one window long: (batch, mel, frame), or (batch, time) for waveforms.
    """
    samples = round(info.window_s * info.front_end.sample_rate)
    return (torch.zeros(batch, *input_shape(info.front_end, samples)),)


def input_shape(front_end: AnyFrontEnd, samples: int) -> tuple[int, ...]:
    """Returns the shape of a graph's input without the batch: (mel, frame), or (time,) for waveforms."""
    if front_end.graph_input == "waveform":
        return (samples,)
    return front_end.n_mels, front_end.num_frames(samples)


def module_to_onnx(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    dynamic_axes: tuple[object, ...],
    names: tuple[Sequence[str], Sequence[str]],
    opset: int = OPSET,
) -> ModelProto:
    """Exports a module.

    Args:
        module: In evaluation mode.
        inputs: Example inputs.
        dynamic_axes: Dynamic axes of each input, as ``torch.export`` takes them.
        names: Names of the inputs and of the outputs.
        opset: Version of ONNX's operators.

    Returns:
        The model, without source lines and stack traces.
    """
    with _quiet(), _not_inplace(module), torch.no_grad():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            input_names=list(names[0]),
            output_names=list(names[1]),
            dynamic_shapes=dynamic_axes,
            opset_version=opset,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    remove_unused_nodes(program.model)  # initializers left over by loops, of which ONNX Runtime warns
    model: ModelProto = program.model_proto
    model.producer_name, model.producer_version = "earmark", ""
    del model.metadata_props[:]
    for graph in subgraphs(model.graph):
        for node in graph.node:
            del node.metadata_props[:]  # source lines and stack traces
            node.doc_string = ""
        for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
            del value.metadata_props[:]
    return model


def subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yields a graph and the bodies of its loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from subgraphs(attribute.g)


@contextlib.contextmanager
def _not_inplace(network: nn.Module) -> Iterator[None]:
    """Turns off in-place activations, which the exporter rewrites at half as much time again."""
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
    """Suppresses the exporter's standard output, log and warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
