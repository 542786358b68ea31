"""Writes a model file: the network as an ONNX graph from log-mel to logits and embedding, with its record.

Conventions: the graph's input is ``log_mel`` (batch, mel, frame), or ``waveform`` (batch, time) where the
network holds a front-end that learns, or several of these, numbered, where the members of an ensemble hear
differently; its outputs are ``logits`` (batch, class) and ``embedding`` (batch, channel); batch and frame or
time are free. What is written was compared with the network first.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from os import PathLike

import numpy as np
import onnxruntime
import torch
from onnx import GraphProto
from onnxscript.optimizer import remove_unused_nodes
from torch import nn

from earmark.errors import ModelError
from earmark.files import write_atomically
from earmark.learned_frontend import AnyFrontEnd, LearnedFrontEnd
from earmark.model_file import seal
from earmark.models.ensemble import Ensemble
from earmark.models.network import Network
from earmark.record import Record

OPSET = 20
TOLERANCE = 1e-4
"""Of logits and embedding against the network, relative to the largest where that is above 1."""


def export_model(network: Network, record: Record, path: str | PathLike[str]) -> float:
    """Exports a network and writes it, with its record, as a model file.

    Args:
        network: From the registry; it is put into evaluation mode.
        record: What the file is to carry.
        path: Of the file, replaced whole.

    Returns:
        The largest difference found between network and file.

    Raises:
        ModelError: If the file's answers differ from the network's by more than ``TOLERANCE``; nothing is
            written then.
    """
    network.eval()
    content = seal(_graph(network, record), record)
    difference = compare(network, content, record)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the exported graph differs from the network by {difference:.2g}, more than {TOLERANCE:g}: "
            "do not use it"
        )
    write_atomically(path, content)
    return difference


def compare(network: Network, content: bytes, record: Record) -> float:
    """The largest difference between a network and a model file, over several batches and lengths.

    Returns:
        Of logits and embedding, relative to the largest value where that is above 1.
    """
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    largest = 0.0
    for batch, windows, more in ((1, 1, 0), (3, 1, 0), (2, 1 / 3, 0), (1, 2, 7)):
        given = []
        for *bands, full in _window_shapes(record):
            shape = batch, *bands, max(1, int(windows * full)) + more
            given.append(generator.standard_normal(shape).astype(np.float32))
        with torch.no_grad():
            expected = network(*map(torch.from_numpy, given))
        inputs = dict(zip(record.graph_inputs, given, strict=True))
        answered = session.run(["logits", "embedding"], inputs)
        for want, got in zip(expected, answered, strict=True):
            scale = max(1.0, float(want.abs().max()))
            largest = max(largest, float(np.abs(want.numpy() - got).max()) / scale)
    return largest


def _window_shapes(record: Record) -> list[tuple[int, ...]]:
    """What each input of the graph takes for a window."""
    return [_window_shape(front_end, record.window_s) for front_end in record.front_ends]


def _window_shape(front_end: AnyFrontEnd, window_s: float) -> tuple[int, ...]:
    """(mel, frame), or (time,) where the front-end is part of the graph."""
    samples = round(window_s * front_end.sample_rate)
    if isinstance(front_end, LearnedFrontEnd):
        return (samples,)
    return front_end.n_mels, front_end.num_frames(samples)


def _graph(network: Network, record: Record) -> bytes:
    examples = tuple(torch.zeros(2, *shape) for shape in _window_shapes(record))
    batch = torch.export.Dim("batch")
    axes = []
    for name, example in zip(record.graph_inputs, examples, strict=True):
        last = name.replace("waveform", "time").replace("log_mel", "frame")
        axes.append({0: batch, example.ndim - 1: torch.export.Dim(last)})
    several = isinstance(network, Ensemble)  # its inputs are one argument with a star
    with _quiet(), _out_of_place(network), torch.no_grad():
        program = torch.onnx.export(
            network,
            examples,
            dynamo=True,
            input_names=list(record.graph_inputs),
            output_names=["logits", "embedding"],
            dynamic_shapes=(tuple(axes),) if several else tuple(axes),
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    remove_unused_nodes(program.model)  # initializers that loops leave behind; the runtime warns of them
    model = program.model_proto
    model.producer_name, model.producer_version = "earmark", ""
    del model.metadata_props[:]
    for graph in _with_bodies(model.graph):
        for node in graph.node:
            del node.metadata_props[:]  # source lines and stack traces of this machine
            node.doc_string = ""
        for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
            del value.metadata_props[:]
    return bytes(model.SerializeToString())


def _with_bodies(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those of its loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _with_bodies(attribute.g)


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
