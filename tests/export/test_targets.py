"""Exports for each runtime have the outputs of the model there, and carry its model info and labels."""

import json
import sys

import numpy as np
import onnx
import pytest
import torch
import toy

import earmark
from earmark.errors import MissingExtraError, ModelError
from earmark.export.export import Exported, export
from earmark.export.options import ExportOptions
from earmark.export.source import ExportSource
from earmark.export.targets import TARGETS, find_target
from earmark.export.verify import TOLERANCE
from earmark.features.learned import GraphFrontEnd
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file


@pytest.fixture(scope="module")
def network(exported, info) -> ExportSource:
    return ExportSource(info, exported[0])


@pytest.fixture(scope="module")
def graph(exported) -> ExportSource:
    content, info = read_model_file(exported[1])
    return ExportSource(info, content=content)


@pytest.fixture(scope="module")
def made(graph, tmp_path_factory) -> Exported:
    """A model file that takes waveforms, made of one that takes log-mels."""
    return export(graph, tmp_path_factory.mktemp("waveform") / "toy.onnx", ExportOptions(waveform=True))


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    return toy.sound("tone", np.random.default_rng(seed))[: round(seconds * toy.SAMPLE_RATE)]


def test_outputs_are_verified(made):
    found = made.verification
    assert found.passed
    assert 0 < found.difference <= TOLERANCE
    sounds = {case.sound for case in found.cases}
    assert sounds == {"siren_and_bell.ogg", "silence", "full scale", "beyond fp16", "noise"}
    assert len({case.batch for case in found.cases}) == 3
    assert len({case.seconds for case in found.cases}) == 3
    assert f"wrote {made.files[0]} (" in made.summary()


def test_a_model_file_that_takes_waveforms_tags_as_the_model(made, toy_model):
    [path] = made.files
    assert made.info.front_end == GraphFrontEnd(toy.FRONT_END)
    assert read_model_file(path)[1] == made.info
    takes = "waveforms at 8000 Hz, resampling not included"
    assert made.info.provenance["export"] == {"target": "onnx", "takes": takes}
    for sample_rate in (8000, 11025):
        sound = np.tile(clip(0.3), 5)
        got, wanted = (earmark.load(file).tag(sound, sample_rate) for file in (path, toy_model))
        assert len(got.windows) > 1
        for ours, theirs in zip(got.windows, wanted.windows, strict=True):
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
            np.testing.assert_allclose(ours.embedding, theirs.embedding, atol=1e-3)


@pytest.mark.parametrize("place", [0.001, 0.5, 0.999])
def test_a_damaged_file_is_refused(made, tmp_path, place):
    content = bytearray(made.files[0].read_bytes())
    content[int(place * len(content))] ^= 1
    (tmp_path / "toy.onnx").write_bytes(content)
    with pytest.raises(ModelError):
        earmark.load(tmp_path / "toy.onnx")


def test_a_fixed_length(graph, tmp_path):
    made = export(graph, tmp_path / "toy.onnx", ExportOptions(seconds=0.75))
    assert (made.info.window_s, made.info.fixed_window) == (0.75, True)
    assert {case.seconds for case in made.verification.cases} == {0.75}
    tagger = earmark.load(tmp_path / "toy.onnx")
    assert len(tagger.tag(np.tile(clip(0.3), 5), 8000, hop_s=0.25).windows) > 1
    with pytest.raises(ModelError):
        tagger.tag(clip(0.9), 8000, window_s=0.5)
    again = ExportSource(made.info, content=(tmp_path / "toy.onnx").read_bytes())
    for seconds in (0.5, "dynamic"):
        with pytest.raises(ModelError):
            export(again, tmp_path / "again.onnx", ExportOptions(seconds=seconds))
    assert not (tmp_path / "again.onnx").exists()


@pytest.mark.parametrize("seconds", [0, -1, 0.01, 601, float("nan"), float("inf")])
def test_a_length_out_of_range_is_refused(graph, tmp_path, seconds):
    with pytest.raises(ModelError, match=r"seconds must be between 0\.016 and 600"):
        export(graph, tmp_path / "toy.onnx", ExportOptions(seconds=seconds))
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_verified_with_further_recordings(graph, tmp_path):
    path = toy.write_clips(tmp_path / "clips", clips_per_fold=2, quiet=0).parent / "fold1_0_tone.wav"
    made = export(graph, tmp_path / "a.onnx", recordings=[path])
    assert made.verification.cases[-1].sound == "fold1_0_tone.wav"


def test_the_log_mel_stays_in_fp32(graph, toy_model, tmp_path):
    path = tmp_path / "toy.onnx"
    made = export(graph, path, ExportOptions(waveform=True, precision="fp16"))
    assert read_model_file(path)[1].precision == made.info.precision == "fp16"
    types = {
        tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type)
        for tensor in onnx.load(path).graph.initializer
        if len(tensor.dims) > 1
    }
    assert {kind for name, kind in types.items() if name.startswith("front_end/")} == {"FLOAT"}
    assert {kind for name, kind in types.items() if not name.startswith("front_end/")} >= {"FLOAT16"}
    scores = [earmark.load(model).tag(clip(0.3), 8000).scores for model in (path, toy_model)]
    np.testing.assert_allclose(*scores, atol=1e-2)


@pytest.mark.slow
def test_openvino(graph, tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs the extra openvino")
    made = export(graph, tmp_path / "toy.xml", ExportOptions(waveform=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.bin", "toy.xml"]
    model = openvino.Core().read_model(tmp_path / "toy.xml")
    assert ModelInfo.from_json(model.get_rt_info("earmark.record").value) == made.info
    assert model.get_rt_info("earmark.labels").value.split() == list(graph.info.labels)
    weights = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    assert "f16" not in {node.get_element_type().to_string() for node in weights}


@pytest.mark.slow
def test_pt2(info, tmp_path):
    info = info.changed(architecture="cnn6_60k", arguments={"n_mels": 32}, embedding_size=128)
    network = ExportSource(info, toy.lively_network(info))  # of few layers, which take the time
    made = export(network, tmp_path / "toy.pt2", ExportOptions(waveform=True))
    beside = {"earmark.record": "", "earmark.labels": ""}
    program = torch.export.load(tmp_path / "toy.pt2", extra_files=beside)
    assert ModelInfo.from_json(beside["earmark.record"]) == made.info
    assert beside["earmark.labels"].split() == ["tone", "noise"]
    logits, embedding = program.module()(torch.zeros(5, 4000))
    assert (logits.shape, embedding.shape) == ((5, 2), (5, network.info.embedding_size))
    with pytest.raises(ModelError):
        export(network, tmp_path / "other.pt2", ExportOptions(seconds="dynamic"))


@pytest.mark.slow
def test_litert(network, tmp_path):
    pytest.importorskip("litert_torch", reason="needs the extra litert_export")
    made = export(network, tmp_path / "toy.tflite", ExportOptions(waveform=True))
    names = ["toy.labels.txt", "toy.record.json", "toy.tflite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "toy.labels.txt").read_text().splitlines() == ["tone", "noise"]
    assert ModelInfo.from_json((tmp_path / "toy.record.json").read_text()) == made.info
    assert (made.info.fixed_window, made.info.window_s) == (True, 0.5)


@pytest.mark.parametrize("name", ["toy.pt2", "toy.tflite", "toy.safetensors"])
def test_some_targets_need_weights(graph, tmp_path, name):
    with pytest.raises(ModelError, match="needs weights"):
        export(graph, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_its_extra(graph, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"earmark\[openvino\]"):
        export(graph, tmp_path / "toy.xml")
    assert list(tmp_path.iterdir()) == []


def test_the_suffix_determines_the_target(tmp_path):
    for name, target in TARGETS.items():
        assert find_target(tmp_path / f"a{target.suffix}") == name
        assert find_target(tmp_path / f"a{target.suffix}", name) == name
    for path, name in [("a.txt", None), ("a.onnx", "openvino"), ("a", "onnx"), ("a.onnx", "tpu")]:
        with pytest.raises(ModelError):
            find_target(tmp_path / path, name)


def test_the_model_info_is_json_for_other_programs(made):
    values = json.loads(made.info.to_json())
    assert values["front_end"]["in_graph"] is True
    assert values["front_end"]["sample_rate"] == 8000
