"""Layers that compute in 8 bits: a model file a quarter as large, and for plain convolutions a quicker one.

Source: Jacob et al., arXiv:1712.05877: activations by one scale and zero point for a whole map, from the
range that they have on clips (static quantisation); weights by a scale for each output channel.

Conventions: the graph that comes out is QDQ: pairs of QuantizeLinear and DequantizeLinear, which runtimes
turn into arithmetic of 8 bits. What stands before the first layer with weights stays in float, as decibels
span more than 8 bits; so do the nodes that give logits and embedding. Activations are uint8, weights int8.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, ValueInfoProto
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry

from earmark.errors import ModelError
from earmark.export.calibration_set import Evidence, Feed, Floats
from earmark.export.equalize import equalize
from earmark.export.nncf import nncf_graph
from earmark.export.weight_precision import graph_of, require_fp32
from earmark.features.front_end import FrontEnd
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info

WEIGHTED = ("Conv", "Gemm", "MatMul")
_FEW = 16
"""Windows by which layers are compared with each other, and channels."""
Engine = Literal["onnx", "openvino"]
Say = Callable[[str], object]


@dataclass(frozen=True)
class Quantized:
    """A model file of 8 bits.

    Args:
        content: Of the file.
        info: Its own.
        layers: Nodes with weights that could be of 8 bits.
        in_float: Nodes, with weights or without, that stayed in float because of the bound.
        loss: See :class:`~earmark.export.calibration_set.Evidence`.
    """

    content: bytes
    info: ModelInfo
    layers: tuple[str, ...]
    in_float: tuple[str, ...]
    loss: float


def quantize(
    content: bytes,
    info: ModelInfo,
    evidence: Evidence,
    bound: float,
    *,
    engine: Engine = "onnx",
    say: Say = lambda text: None,
) -> Quantized:
    """Quantises a model file.

    All nodes are, if the loss is then within the bound. Otherwise those that do most harm when each is
    quantised alone (by the mean squared change of the logits over 16 windows) stay in float: as few of
    them, in that order, as bring the loss within the bound. One layer with weights at least is of 8 bits.

    Args:
        content: Of a model file of float32 that takes log-mels.
        info: Its record.
        evidence: Of clips; ranges and loss are measured on the same.
        bound: The largest loss allowed.
        engine: For which the graph is laid out: "onnx" for ONNX Runtime; "openvino", by NNCF. Both run both.
        say: Is told what is being done.

    Raises:
        ModelError: If the model cannot be quantised, or not within the bound.
        MissingExtraError: If NNCF is needed and not installed.
    """
    require_fp32(info)
    if not isinstance(info.front_end, FrontEnd):
        raise ModelError(f"{info.name}: waveforms span more than 8 bits: give a model that takes log-mels")
    search = _Search(graph_of(content), evidence, engine, say)
    in_float, loss = search.fewest_in_float(bound)
    made = search.all_but(in_float)
    how = {
        "engine": engine,
        "equalised": search.equalised,
        "clips": int(evidence.clips[-1] + 1),
        "windows": len(evidence.feeds),
        "judged_by": evidence.judged_by,
        "bound": bound,
        "loss": round(loss, 6),
        "in_float": list(in_float),
    }
    info = info.changed(precision="int8", provenance={**info.provenance, "int8": how})
    return Quantized(attach_info(made, info), info, tuple(search.layers), in_float, loss)


class _Search:
    """Tries which nodes of a graph can be of 8 bits."""

    def __init__(self, model: ModelProto, evidence: Evidence, engine: Engine, say: Say) -> None:
        self._model, self._evidence, self._engine, self._say = _named(model), evidence, engine, say
        self.nodes = _inner_nodes(self._model)
        by_name = {node.name: node for node in model.graph.node}
        self.layers = [name for name in self.nodes if by_name[name].op_type in WEIGHTED]
        if not self.layers:
            raise ModelError(f"{evidence.info.name}: no layer can be quantised: keep it in float")
        self._before = evidence.scores(_session(model.SerializeToString()))
        self.equalised = equalize(self._model, self._magnitudes)
        say(f"measuring ranges on {len(evidence.feeds)} windows")
        self._ranges = _ranges(self._model, [by_name[name] for name in self.nodes], evidence.feeds)

    def all_but(self, in_float: Sequence[str]) -> bytes:
        """The graph in 8 bits, for its engine, but for these nodes and those that never are."""
        chosen = [node for node in self.nodes if node not in in_float]
        if self._engine == "onnx":
            return self._only(chosen)
        others = [node.name for node in self._model.graph.node if node.name not in chosen]
        return nncf_graph(self._model, others, self._evidence.feeds)

    def _only(self, nodes: Sequence[str]) -> bytes:
        """The graph with these nodes in 8 bits, for ONNX Runtime."""
        model = ModelProto()
        model.CopyFrom(self._model)
        with _quiet():
            quantizer = QDQQuantizer(
                model=model,
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=list(nodes),
                nodes_to_exclude=[],
                op_types_to_quantize=list(QDQRegistry),
                extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
            )
            quantizer.quantize_model()
        made = quantizer.model.model
        made.producer_name, made.producer_version = "earmark", ""
        return bytes(made.SerializeToString())

    def fewest_in_float(self, bound: float) -> tuple[tuple[str, ...], float]:
        """The nodes that have to stay in float, and the loss that is left."""
        losses = {0: self._loss(())}
        if losses[0] <= bound:
            return (), losses[0]
        order = self._by_harm()
        most = max(order.index(layer) for layer in self.layers)
        low, high = 0, min(1, most)  # so many are too few; so many may be enough: twice as many each time
        while losses.setdefault(high, self._loss(order[:high])) > bound:
            if high == most:
                raise ModelError(
                    f"{self._evidence.info.name}: 8 bits cost {min(losses.values()):.4f} of "
                    f"{self._evidence.judged_by}, {bound:g} is allowed: "
                    f"allow more, or {_instead(self._model)}"
                )
            low, high = high, min(2 * high, most)
        while high - low > 1:
            middle = (low + high) // 2
            losses[middle] = self._loss(order[:middle])
            low, high = (low, middle) if losses[middle] <= bound else (middle, high)
        return order[:high], losses[high]

    def _loss(self, in_float: Sequence[str]) -> float:
        after = self._evidence.scores(_session(self.all_but(in_float)))
        loss = self._evidence.loss(self._before, after)
        self._say(f"{len(in_float)} nodes in float: {self._evidence.judged_by} loses {loss:.4f}")
        return loss

    def _by_harm(self) -> tuple[str, ...]:
        """The nodes, that which changes the logits most when it alone is quantised first."""
        few = self._few()
        wanted = _logits(_session(self._model.SerializeToString()), few)
        harm = {}
        for number, node in enumerate(self.nodes, 1):
            self._say(f"node {number} of {len(self.nodes)} alone")
            harm[node] = np.square(_logits(_session(self._only([node])), few) - wanted).mean()
        return tuple(sorted(harm, key=lambda node: -harm[node]))

    def _few(self) -> list[Feed]:
        feeds = self._evidence.feeds
        return [feeds[index * len(feeds) // _FEW] for index in range(_FEW)]

    def _magnitudes(self, maps: Sequence[str]) -> dict[str, Floats]:
        """The largest magnitude of each channel of some maps: name -> (channel,)."""
        session, largest = _watching(self._model, maps), dict.fromkeys(maps, np.zeros((), np.float32))
        for feed in self._few() if maps else []:
            for name, values in zip(maps, session.run(list(maps), feed), strict=True):
                largest[name] = np.maximum(largest[name], np.abs(values).max((0, 2, 3)))
        return largest


def _named(model: ModelProto) -> ModelProto:
    """Gives each node a name of its own, by which it can be chosen."""
    for number, node in enumerate(model.graph.node):
        node.name = f"{number}_{node.op_type}"
    return model


def _inner_nodes(model: ModelProto) -> list[str]:
    """Names of the nodes from the first layer with weights on, without those that give the outputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    layers = [
        n for n, node in enumerate(model.graph.node) if node.op_type in WEIGHTED and node.input[1] in weights
    ]
    first = layers[0] if layers else len(model.graph.node)
    return [
        node.name
        for node in list(model.graph.node)[first:]
        if node.op_type in QDQRegistry and not outputs & set(node.output)
    ]


def _instead(model: ModelProto) -> str:
    """What to do with a graph that does not bear 8 bits."""
    norms = any(node.op_type == "BatchNormalization" for node in model.graph.node)
    return "give its checkpoint, whose norms can be folded" if norms else "keep it in float"


def _ranges(model: ModelProto, nodes: Sequence[NodeProto], feeds: Sequence[Feed]) -> TensorsData:
    """The least and largest value of all that the nodes take and give, over all windows."""
    constant = {tensor.name for tensor in model.graph.initializer}
    names = {name for node in nodes for name in (*node.input, *node.output) if name} - constant
    session = _watching(model, sorted(names - {value.name for value in model.graph.input}))
    shown = [value.name for value in session.get_outputs() if value.type == "tensor(float)"]
    found: dict[str, tuple[np.float32, np.float32]] = {}
    for feed in feeds:
        for name, values in zip(shown, session.run(shown, feed), strict=True):
            low, high = found.get(name, (np.float32(np.inf), np.float32(-np.inf)))
            found[name] = min(low, values.min()), max(high, values.max())
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in found.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)


def _watching(model: ModelProto, maps: Sequence[str]) -> Any:
    """A session that gives these maps too."""
    watched = ModelProto()
    watched.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    watched.graph.output.extend(ValueInfoProto(name=name) for name in maps if name not in given)
    return _session(watched.SerializeToString())


def _logits(session: Any, feeds: Sequence[Feed]) -> Floats:
    return np.concatenate([session.run(["logits"], feed)[0] for feed in feeds])


def _session(graph: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantiser's advice on how to prepare a graph from the caller."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
