"""Builds graphs in 8 bits for ONNX Runtime, from the ranges of their activations.

Source: Jacob et al., arXiv:1712.05877: activations have one scale and zero point per tensor, from their range
on calibration data (static quantisation); weights have one scale per output channel.

Conventions: graphs are QDQ: pairs of QuantizeLinear and DequantizeLinear, which runtimes replace by integer
arithmetic. Activations are uint8. Weights are int8 in [-64, 64]: processors without VNNI add pairs of
products in 16 bits, which saturate with larger weights, so that outputs would depend on the processor.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry

from earmark.export.calibration_set import Floats, Inputs
from earmark.inference.engines import Session
from earmark.model_file.onnx_runtime import onnxruntime

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Operators with weights."""


def name_nodes(model: ModelProto) -> None:
    """Renames the nodes of a graph so that each name is unique, in place."""
    for number, node in enumerate(model.graph.node):
        node.name = f"{number}_{node.op_type}"


def quantizable_nodes(model: ModelProto) -> list[str]:
    """Names of the nodes that can be in 8 bits.

    Nodes before the first layer with weights are not among them, because decibels span more than 8 bits; nor
    are those that compute the outputs.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    nodes = list(model.graph.node)
    layers = [n for n, node in enumerate(nodes) if node.op_type in WEIGHTED and node.input[1] in weights]
    return [
        node.name
        for node in nodes[layers[0] if layers else len(nodes) :]
        if node.op_type in QDQRegistry and not outputs & set(node.output)
    ]


def qdq_graph(model: ModelProto, nodes: Sequence[str], ranges: TensorsData) -> bytes:
    """Quantises nodes of a graph.

    Args:
        model: In float32, with named nodes; it is not changed.
        nodes: Names of the nodes to quantise.
        ranges: Of all tensors that they read and write, from :func:`measure_ranges`.

    Returns:
        The serialised QDQ graph.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    with _silence():
        quantizer = QDQQuantizer(
            model=copy,
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=list(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=list(QDQRegistry),
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )
        quantizer.quantize_model()
    quantized = quantizer.model.model
    quantized.producer_name, quantized.producer_version = "earmark", ""
    return bytes(quantized.SerializeToString())


def measure_ranges(model: ModelProto, nodes: Sequence[NodeProto], inputs: Sequence[Inputs]) -> TensorsData:
    """Smallest and largest value of all tensors that nodes read and write, over all inputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = {name for node in nodes for name in (*node.input, *node.output) if name} - constants
    session = open_with_outputs(model, sorted(names - {value.name for value in model.graph.input}))
    outputs = [value.name for value in session.get_outputs() if value.type == "tensor(float)"]
    found: dict[str, tuple[np.float32, np.float32]] = {}
    for window in inputs:
        for name, values in zip(outputs, session.run(outputs, window), strict=True):
            low, high = found.get(name, (np.float32(np.inf), np.float32(-np.inf)))
            found[name] = min(low, values.min()), max(high, values.max())
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in found.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)


def measure_magnitudes(model: ModelProto, maps: Sequence[str], inputs: Sequence[Inputs]) -> dict[str, Floats]:
    """Largest magnitude of each channel of feature maps: name -> (channel,)."""
    if not maps:
        return {}
    session, largest = open_with_outputs(model, maps), dict.fromkeys(maps, np.zeros((), np.float32))
    for window in inputs:
        for name, values in zip(maps, session.run(list(maps), window), strict=True):
            largest[name] = np.maximum(largest[name], np.abs(values).max((0, 2, 3)))
    return largest


def open_with_outputs(model: ModelProto, names: Sequence[str]) -> onnxruntime.InferenceSession:
    """Opens a session that also outputs the named tensors."""
    extended = ModelProto()
    extended.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    extended.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in outputs)
    return open_graph(extended.SerializeToString())


def open_graph(graph: bytes) -> onnxruntime.InferenceSession:
    """Opens a session that runs a serialised graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def logits_of(session: Session, inputs: Sequence[Inputs]) -> Floats:
    """The logits of all windows, shape (window, class)."""
    return np.concatenate([session.run(["logits"], window)[0] for window in inputs])


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppresses the quantiser's advice on how to prepare a graph."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
