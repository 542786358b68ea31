"""Graphs in 8 bits stay close to the model, on every processor, and keep to the limit."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import earmark
from earmark.data.manifest import Clip
from earmark.errors import MissingExtraError, ModelError
from earmark.export.calibration_set import CalibrationSet
from earmark.export.export import export
from earmark.export.nncf import nncf_graph
from earmark.export.options import ExportOptions
from earmark.export.qdq import open_graph
from earmark.export.quantize import Quantized, _QuantizableGraph, choose_float_nodes, quantize
from earmark.export.source import ExportSource
from earmark.features.learned import LEAF
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file


@pytest.fixture(scope="session")
def content(toy_model: Path) -> bytes:
    return read_model_file(toy_model)[0]


@pytest.fixture(scope="session")
def made(content: bytes, info: ModelInfo, clip_set: CalibrationSet) -> Quantized:
    return quantize(content, info, clip_set, 1.0)


def exact_session(graph: bytes) -> onnxruntime.InferenceSession:
    """Computes a QDQ graph in float, without integer arithmetic."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def test_scores_stay_close_and_the_file_is_smaller(
    content: bytes, clip_set: CalibrationSet, made: Quantized
) -> None:
    before, after = (clip_set.scores(open_graph(one)) for one in (content, made.content))
    assert 0 < np.abs(after - before).mean() < 0.08
    assert made.drop == pytest.approx(clip_set.drop(before, after))
    tensors = onnx.load_model_from_string(made.content).graph.initializer
    narrow = sum(np.prod(t.dims) for t in tensors if t.data_type == onnx.TensorProto.INT8)
    assert narrow > 0.9 * sum(np.prod(t.dims) for t in tensors if t.data_type == onnx.TensorProto.FLOAT)
    assert len(made.content) < len(content)


def test_integer_arithmetic_does_not_saturate(clip_set: CalibrationSet, made: Quantized) -> None:
    """Or outputs would differ between processors with and without VNNI."""
    integer, exact = (clip_set.scores(opened(made.content)) for opened in (open_graph, exact_session))
    assert np.abs(integer - exact).mean() < 0.015
    tensors = onnx.load_model_from_string(made.content).graph.initializer
    weights = [onnx.numpy_helper.to_array(t) for t in tensors if t.data_type == onnx.TensorProto.INT8]
    assert max(np.abs(values.astype(int)).max() for values in weights) <= 64


def test_weights_have_a_scale_for_each_channel_and_ends_stay_in_float(made: Quantized) -> None:
    model = onnx.load_model_from_string(made.content)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    for conv in convs:
        weights = producers[conv.input[1]]
        assert weights.op_type == "DequantizeLinear"
        assert tensors[weights.input[0]].data_type == onnx.TensorProto.INT8
        assert list(tensors[weights.input[1]].dims) == list(tensors[weights.input[0]].dims)[:1]
        assert producers[conv.input[0]].op_type == "DequantizeLinear"
    assert len(convs) > 40
    for output in ("logits", "embedding"):
        assert producers[output].op_type not in ("QuantizeLinear", "DequantizeLinear")
    last = producers["logits"]
    assert tensors[last.input[1]].data_type == onnx.TensorProto.FLOAT


@pytest.mark.slow
def test_the_export_is_a_model_file_and_describes_the_quantisation(
    content: bytes, info: ModelInfo, clips: list[Clip], tmp_path: Path
) -> None:
    source, path = ExportSource(info, content=content), tmp_path / "small.onnx"
    exported = export(source, path, ExportOptions(precision="int8", max_drop=1.0), calibration_clips=clips)
    stored = read_model_file(path)[1]
    assert stored == exported.info
    assert stored.precision == "int8"
    how = stored.provenance["int8"]
    assert (how["clips"], how["judged_by"], how["bound"], how["engine"]) == (22, "mAP", 1.0, "onnx")
    assert how["in_float"] == []
    assert stored.provenance["seed"] == 0
    assert earmark.load(path).tag(np.zeros(3000), 8000).scores.shape == (2,)
    again = ExportSource(stored, content=path.read_bytes())
    with_log_mel = export(again, tmp_path / "waveform.onnx", ExportOptions(waveform=True))
    assert with_log_mel.verification.passed


HARMFUL = {"c", "i"}


def test_the_fewest_nodes_stay_in_float() -> None:
    """Both harmful nodes are found, and not much more stays in float."""
    tried: list[int] = []

    def drop(float_nodes):
        tried.append(len(float_nodes))
        return 0.3 * len(HARMFUL - set(float_nodes))

    def rank():
        return ["c", "e", "i", "a", "b", "d", "f", "g", "h"]

    assert choose_float_nodes(rank, ["a", "h"], drop, 0.1) == (("c", "e", "i"), 0.0)
    assert tried == [0, 1, 2, 4, 3]
    assert choose_float_nodes(rank, ["a", "h"], drop, 0.6) == ((), 0.6)


def test_at_least_one_layer_is_in_8_bits() -> None:
    def drop(float_nodes):
        return 0.0 if {"a", "b"} <= set(float_nodes) else 0.5

    float_nodes, found = choose_float_nodes(lambda: ["c", "a", "d", "b"], ["a", "b"], drop, 0.1)
    assert found == 0.5
    assert "b" not in float_nodes


@pytest.mark.slow
def test_an_exceeded_limit_is_an_error_of_one_line(
    content: bytes, info: ModelInfo, clip_set: CalibrationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_QuantizableGraph, "rank_nodes", lambda graph: graph.nodes)  # any order, at once
    impossible = CalibrationSet(info, clip_set.inputs[:2], clip_set.clip_numbers[:2] * 0, None)
    with pytest.raises(ModelError, match=r"int8 lowers agreement by 0\.\d{4} \(limit 1e-09\)") as caught:
        quantize(content, info, impossible, 1e-9)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_some_nodes_stay_in_float(content: bytes, info: ModelInfo, clip_set: CalibrationSet) -> None:
    unlabelled = CalibrationSet(info, clip_set.inputs, clip_set.clip_numbers, None)
    all_narrow = quantize(content, info, unlabelled, 1.0)
    made = quantize(content, info, unlabelled, all_narrow.drop / 2)
    assert made.drop <= all_narrow.drop / 2
    assert len(made.float_nodes) > 0
    assert made.info.provenance["int8"]["in_float"] == list(made.float_nodes)
    assert set(made.layers) - set(made.float_nodes)


def test_models_of_waveforms_and_of_other_precisions_are_refused(
    content: bytes, info: ModelInfo, clip_set: CalibrationSet, made: Quantized
) -> None:
    with pytest.raises(ModelError):
        quantize(content, info.changed(front_end=LEAF), clip_set, 1.0)
    with pytest.raises(ModelError):
        quantize(made.content, made.info, clip_set, 1.0)


@pytest.mark.slow
def test_nncf_lays_the_graph_out_for_openvino(
    content: bytes, info: ModelInfo, clip_set: CalibrationSet, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf", reason="NNCF comes with the extra openvino")
    openvino = pytest.importorskip("openvino", reason="OpenVINO comes with the extra openvino")
    few = CalibrationSet(info, clip_set.inputs[:12], clip_set.clip_numbers[:12], None)
    made = quantize(content, info, few, 1.0, layout="openvino")
    assert capfd.readouterr() == ("", "")
    assert made.info.provenance["int8"]["engine"] == "openvino"
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(made.content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    runtime = open_graph(made.content)
    found, before = [], []
    for inputs in few.inputs[:4]:
        found.append(compiled(dict(inputs))["logits"].copy())
        before.append(open_graph(content).run(["logits"], inputs)[0])
        assert np.isfinite(runtime.run(["logits"], inputs)[0]).all()
    # Without VNNI both runtimes saturate: how close they come depends on the processor.
    assert 1e-4 < np.abs(np.subtract(found, before)).max() < np.abs(before).max()


def test_without_nncf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match="openvino"):
        nncf_graph(onnx.ModelProto(), [], [])
