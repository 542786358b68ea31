"""Layers in 8 bits: close to what they were, by a bound, and said in the record."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import toy

import earmark
from earmark.data.manifest import Clip, read_manifest
from earmark.errors import AudioError, DataError, ModelError
from earmark.evaluation.metrics import average_precision, macro
from earmark.export import quantize as room
from earmark.export.calibration_set import Evidence, find_clips, listen
from earmark.export.nncf import nncf_graph
from earmark.export.quantize import Quantized, quantize
from earmark.features.learned import LEAF
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_clips(tmp_path_factory.mktemp("clips"), clips_per_fold=10, quiet=2)


@pytest.fixture(scope="session")
def content(toy_model: Path) -> bytes:
    return read_model_file(toy_model)[0]


@pytest.fixture(scope="session")
def evidence(content: bytes, info: ModelInfo, manifest: Path) -> Evidence:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return listen(session, info, find_clips([manifest], info))


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def made(content: bytes, info: ModelInfo, evidence: Evidence) -> Quantized:
    return quantize(content, info, evidence, 1.0)


def test_evidence_scores_clips_as_a_tagger_does(toy_model: Path, manifest: Path, evidence: Evidence) -> None:
    tagger, clips = earmark.load(toy_model), read_manifest(manifest)
    wanted = np.stack([tagger.tag(clip.path).scores for clip in clips])
    got = evidence.scores(session_of(toy_model.read_bytes()))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert len(evidence.feeds) > len(clips), "some are longer than a window"
    single = evidence.scores(session_of(toy_model.read_bytes())).copy()
    single[:, 0] = 0.5
    first, second = (macro(average_precision(evidence.truth, scores)) for scores in (wanted, single))
    assert evidence.loss(wanted, single) == pytest.approx(first - second)
    assert evidence.judged_by == "mAP"


def test_without_labels_a_loss_is_the_largest_difference(evidence: Evidence, info: ModelInfo) -> None:
    blind = Evidence(info, evidence.feeds, evidence.clips, None)
    before = np.array([[0.5, 0.5], [0.1, 0.9]], np.float32)
    after = np.array([[0.4, 0.8], [0.1, 0.9]], np.float32)
    assert blind.judged_by == "agreement"
    assert blind.loss(before, after) == pytest.approx(0.15)


def test_accuracy_judges_classes_that_exclude_each_other(evidence: Evidence, info: ModelInfo) -> None:
    truth = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    single = Evidence(info.changed(task="single_label"), evidence.feeds, evidence.clips, truth)
    right = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]], np.float32)
    assert single.loss(right, right[:, ::-1]) == 1.0
    assert single.loss(right, np.array([[0.9, 0.1], [0.6, 0.4], [0.9, 0.1]], np.float32)) == 0.5


def test_it_answers_nearly_as_before_and_is_smaller(
    content: bytes, evidence: Evidence, made: Quantized
) -> None:
    before, after = (evidence.scores(session_of(one)) for one in (content, made.content))
    assert 0 < np.abs(after - before).mean() < 0.05
    assert made.loss == pytest.approx(evidence.loss(before, after))
    tensors = onnx.load_model_from_string(made.content).graph.initializer
    narrow = sum(np.prod(t.dims) for t in tensors if t.data_type == onnx.TensorProto.INT8)
    assert narrow > 0.9 * sum(np.prod(t.dims) for t in tensors if t.data_type == onnx.TensorProto.FLOAT)
    assert len(made.content) < len(content)


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


def test_the_record_says_how(made: Quantized, info: ModelInfo, tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(made.content)
    _, stored = read_model_file(tmp_path / "small.onnx")
    assert stored == made.info
    assert stored.precision == "int8"
    how = stored.provenance["int8"]
    assert how["clips"] == 22
    assert (how["judged_by"], how["bound"], how["in_float"], how["engine"]) == ("mAP", 1.0, [], "onnx")
    assert stored.provenance["seed"] == 0
    tagger = earmark.load(tmp_path / "small.onnx")
    assert tagger.tag(np.zeros(3000), 8000).scores.shape == (2,)


def test_what_does_most_harm_stays_in_float(
    content: bytes, info: ModelInfo, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a judge that bears neither of two layers: both are found, and not much more is given up."""
    tried: list[int] = []
    harmful = {"3_Conv", "9_Conv"}

    class Judged(room._Search):
        def _loss(self, in_float):
            tried.append(len(in_float))
            return 0.3 * len(harmful - set(in_float))

        def _by_harm(self):
            return tuple(sorted(self.nodes, key=lambda node: node not in {*harmful, "5_Conv"}))

    monkeypatch.setattr(room, "_Search", Judged)
    found = quantize(content, info, evidence, 0.1)
    assert set(found.in_float) == {"3_Conv", "5_Conv", "9_Conv"}
    assert tried == [0, 1, 2, 4, 3]
    floats = Counter(
        node.op_type
        for node in onnx.load_model_from_string(found.content).graph.node
        if node.op_type == "Conv" and not node.input[1].endswith("_DequantizeLinear_Output")
    )
    assert floats["Conv"] == 3
    assert found.info.provenance["int8"]["in_float"] == list(found.in_float)


@pytest.mark.slow
def test_harm_is_what_a_node_does_alone(content: bytes, info: ModelInfo, evidence: Evidence) -> None:
    search = room._Search(room.graph_of(content), evidence, "onnx", lambda text: None)
    search._ranges.data["hardswish"].highest[...] = 1e4  # all that it takes falls into one step
    order = search._by_harm()
    takes = {node.name for node in search._model.graph.node if "hardswish" in node.input}
    assert order[0] in takes
    assert set(order) == set(search.nodes) > set(search.layers)


def test_a_bound_that_nothing_keeps_is_one_line(
    content: bytes, info: ModelInfo, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a network with every layer in float taken for one of 8 bits."""

    class Judged(room._Search):
        def _loss(self, in_float):
            return 0.5 if set(self.layers) - set(in_float) else 0.0

        def _by_harm(self):
            return tuple(self.nodes)

    monkeypatch.setattr(room, "_Search", Judged)
    with pytest.raises(ModelError, match=r"toy: 8 bits cost 0\.5000 of mAP, 0\.01 is allowed"):
        quantize(content, info, evidence, 0.01)


def test_norms_that_could_be_folded_are_named(content: bytes) -> None:
    graph = onnx.load_from_string(content)
    assert room._instead(graph) == "keep it in float"
    graph.graph.node.append(onnx.helper.make_node("BatchNormalization", ["x"] * 5, ["y"]))
    assert room._instead(graph) == "give its checkpoint, whose norms can be folded"


def test_what_hears_waveforms_or_is_small_already_is_refused(
    content: bytes, info: ModelInfo, evidence: Evidence, made: Quantized
) -> None:
    with pytest.raises(ModelError, match="waveforms span more than 8 bits"):
        quantize(content, info.changed(front_end=LEAF), evidence, 1.0)
    with pytest.raises(ModelError, match="its weights are int8 already"):
        quantize(made.content, made.info, evidence, 1.0)


def test_clips_have_to_hold_every_class(info: ModelInfo, manifest: Path, tmp_path: Path) -> None:
    only = tmp_path / "only.csv"
    lines = [line for line in manifest.read_text(encoding="utf-8").splitlines() if ",noise," not in line]
    only.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"no clip has 1 of the 2 labels \('noise'\)"):
        find_clips([only], info, manifest.parent)
    unlabelled = find_clips([manifest.parent, manifest.parent / "quiet_0.wav"], info)
    assert len(unlabelled) == 23
    assert not any(clip.labelled for clip in unlabelled)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="empty"):
        find_clips([tmp_path / "empty"], info)


def test_a_clip_that_cannot_be_heard_ends_it(content: bytes, info: ModelInfo, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"a\.wav"):
        listen(session_of(content), info, [Clip(tmp_path / "a.wav", (), labelled=False)])


@pytest.mark.slow
def test_nncf_lays_the_graph_out_for_openvino(
    content: bytes, info: ModelInfo, evidence: Evidence, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf", reason="NNCF comes with the extra openvino")
    openvino = pytest.importorskip("openvino", reason="OpenVINO comes with the extra openvino")
    few = Evidence(info, evidence.feeds[:12], evidence.clips[:12], None)
    made = quantize(content, info, few, 1.0, engine="openvino")
    assert capfd.readouterr() == ("", "")
    assert made.info.provenance["int8"]["engine"] == "openvino"
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(made.content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    runtime = session_of(made.content)
    for feed in few.feeds[:4]:
        got, same = compiled(feed)["logits"], runtime.run(["logits"], feed)[0]
        before = session_of(content).run(["logits"], feed)[0]
        assert np.abs(got - same).max() < 0.2 * np.abs(before).max(), "what differs is rounding to 8 bits"
        assert np.abs(got - before).max() > 1e-4


def test_without_nncf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nncf", None)
    with pytest.raises(earmark.EarmarkError, match=r"pip install 'earmark\[openvino\]'"):
        nncf_graph(onnx.ModelProto(), [], [])
