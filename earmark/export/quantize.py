"""Quantises model files to 8 bits: a quarter of the size, and faster for plain convolutions.

Source: static quantisation by :mod:`earmark.export.qdq` or :mod:`earmark.export.nncf`, after equalising
channels (:mod:`earmark.export.equalize`).

Conventions: the drop of the metric on the calibration set is limited; where it would be larger, some nodes
stay in float. Nodes before the first layer with weights, and those that compute the outputs, always do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import ModelProto
from onnxruntime.quantization.calibrate import TensorsData

from earmark.errors import ModelError
from earmark.export.calibration_set import CalibrationSet, Inputs
from earmark.export.equalize import equalize
from earmark.export.nncf import nncf_graph
from earmark.export.options import Int8Layout
from earmark.export.qdq import (
    WEIGHTED,
    logits_of,
    measure_magnitudes,
    measure_ranges,
    name_nodes,
    open_graph,
    qdq_graph,
    quantizable_nodes,
)
from earmark.export.weight_precision import graph_of, require_fp32
from earmark.features.front_end import FrontEnd
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info

_PROBE_WINDOWS = 16
"""Windows on which nodes and channels are compared."""
Progress = Callable[[str], object]


@dataclass(frozen=True)
class Quantized:
    """A quantised model file.

    Args:
        content: Content of the file.
        info: Its model info.
        layers: Names of the nodes with weights that could be in 8 bits.
        float_nodes: Names of the nodes that stay in float because of the limit.
        drop: See :class:`~earmark.export.calibration_set.CalibrationSet`.
    """

    content: bytes
    info: ModelInfo
    layers: tuple[str, ...]
    float_nodes: tuple[str, ...]
    drop: float

    def summary(self) -> str:
        """Layers and drop, for people."""
        how = self.info.provenance["int8"]
        names = f"; nodes in float: {', '.join(self.float_nodes)}" if self.float_nodes else ""
        narrow, limit = len(set(self.layers) - set(self.float_nodes)), f"(limit {how['bound']:g})"
        return (
            f"{narrow} of {len(self.layers)} layers in 8 bits{names}\n"
            f"int8 lowers {how['judged_by']} by {self.drop:.4f} on {how['clips']} clips {limit}"
        )


def quantize(
    content: bytes,
    info: ModelInfo,
    calibration_set: CalibrationSet,
    max_drop: float,
    *,
    layout: Int8Layout = "onnx",
    progress: Progress = lambda text: None,
) -> Quantized:
    """Quantises a model file.

    All nodes are quantised if the drop is then within the limit. Otherwise nodes are ranked by the mean
    squared change of the logits when each is quantised alone, and as few as needed, in that order, stay in
    float. At least one layer with weights is in 8 bits.

    Args:
        content: Content of a model file in float32 that takes log-mels.
        info: Its model info.
        calibration_set: For ranges and the drop.
        max_drop: The largest allowed drop, at least 0.
        layout: The runtime that the graph is laid out for: "onnx" for ONNX Runtime, or "openvino", by NNCF.
            Both runtimes run both.
        progress: Called with a description of each step.

    Raises:
        ModelError: If the model cannot be quantised, or not within the limit.
        MissingExtraError: If NNCF is needed and not installed.
    """
    require_fp32(info)
    if not isinstance(info.front_end, FrontEnd):
        raise ModelError(
            f"{info.name} takes waveforms, which need more than 8 bits: give a model of log-mels"
        )
    model = graph_of(content)
    name_nodes(model)
    before = calibration_set.scores(open_graph(model.SerializeToString()))
    graph = _QuantizableGraph(model, calibration_set.inputs, layout, progress)
    if not graph.layers:
        raise ModelError(f"{info.name}: no layer can be quantised: keep fp16")

    def drop(float_nodes: Sequence[str]) -> float:
        found = calibration_set.drop(before, calibration_set.scores(open_graph(graph.without(float_nodes))))
        progress(f"{len(float_nodes)} nodes in float: {calibration_set.metric} drops by {found:.4f}")
        return found

    float_nodes, found = choose_float_nodes(graph.rank_nodes, graph.layers, drop, max_drop)
    if found > max_drop:
        raise _too_large(info, model, f"{calibration_set.metric} by {found:.4f} (limit {max_drop:g})")
    how = {
        "engine": layout,
        "equalised": graph.equalized,
        "clips": calibration_set.num_clips,
        "windows": len(calibration_set.inputs),
        "judged_by": calibration_set.metric,
        "bound": max_drop,
        "loss": round(found, 6),
        "in_float": list(float_nodes),
    }
    info = info.changed(precision="int8", provenance={**info.provenance, "int8": how})
    quantized = attach_info(graph.without(float_nodes), info)
    return Quantized(quantized, info, tuple(graph.layers), float_nodes, found)


def _too_large(info: ModelInfo, model: ModelProto, drop: str) -> ModelError:
    norms = any(node.op_type == "BatchNormalization" for node in model.graph.node)
    remedy = "give its checkpoint, whose batch norms can be folded" if norms else "keep fp16"
    return ModelError(f"{info.name}: int8 lowers {drop}: raise --max-drop or {remedy}")


def choose_float_nodes(
    rank: Callable[[], Sequence[str]],
    layers: Sequence[str],
    drop: Callable[[Sequence[str]], float],
    max_drop: float,
) -> tuple[tuple[str, ...], float]:
    """Finds the fewest nodes that have to stay in float.

    Args:
        rank: Returns all nodes, the most harmful first; called only if some have to stay in float.
        layers: Nodes with weights, of which at least one is quantised.
        drop: Measures the drop if some nodes stay in float.
        max_drop: The largest allowed drop.

    Returns:
        The nodes, and the drop that remains: above ``max_drop`` if no choice keeps to it.
    """
    drops = {0: drop(())}
    if drops[0] <= max_drop:
        return (), drops[0]
    order = rank()
    most = max(order.index(layer) for layer in layers)
    low, high = 0, min(1, most)  # too few, and perhaps enough: doubled until it is
    while drops.setdefault(high, drop(order[:high])) > max_drop:
        if high == most:
            return tuple(order[:high]), min(drops.values())
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        drops[middle] = drop(order[:middle])
        low, high = (low, middle) if drops[middle] <= max_drop else (middle, high)
    return tuple(order[:high]), drops[high]


class _QuantizableGraph:
    """A graph of which any nodes can be quantised."""

    def __init__(
        self, model: ModelProto, inputs: Sequence[Inputs], layout: Int8Layout, progress: Progress
    ) -> None:
        self._model, self._inputs, self._layout, self._progress = model, inputs, layout, progress
        few = min(_PROBE_WINDOWS, len(inputs))
        self._probes = [inputs[index * len(inputs) // few] for index in range(few)]
        by_name = {node.name: node for node in model.graph.node}
        self.nodes = quantizable_nodes(model)
        self.layers = [name for name in self.nodes if by_name[name].op_type in WEIGHTED]
        self.equalized = equalize(model, partial(measure_magnitudes, model, inputs=self._probes))
        progress(f"measuring ranges on {len(inputs)} windows")
        self._ranges: TensorsData = measure_ranges(model, [by_name[name] for name in self.nodes], inputs)

    def without(self, float_nodes: Sequence[str]) -> bytes:
        """The graph in 8 bits, except for some nodes."""
        chosen = [node for node in self.nodes if node not in float_nodes]
        if self._layout == "onnx":
            return qdq_graph(self._model, chosen, self._ranges)
        others = [node.name for node in self._model.graph.node if node.name not in chosen]
        return nncf_graph(self._model, others, self._inputs)

    def rank_nodes(self) -> list[str]:
        """All nodes, by the change of the logits when each is quantised alone, the largest first."""
        expected = logits_of(open_graph(self._model.SerializeToString()), self._probes)
        harm = {}
        for number, node in enumerate(self.nodes, 1):
            self._progress(f"ranking node {number} of {len(self.nodes)}")
            alone = open_graph(qdq_graph(self._model, [node], self._ranges))
            harm[node] = np.square(logits_of(alone, self._probes) - expected).mean()
        return sorted(harm, key=lambda node: -harm[node])
