"""What is written for each runtime answers there as the model does, and carries its record."""

import json
import re
import sys

import numpy as np
import onnx
import pytest
import torch
import toy

import earmark
from earmark.errors import MissingExtraError, ModelError
from earmark.export.export import Exported, export
from earmark.export.source import Form, Source
from earmark.export.targets import TARGETS, target_of
from earmark.export.verify import TOLERANCE
from earmark.features.learned import GraphFrontEnd
from earmark.inference.engines import openvino_core
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file


@pytest.fixture(scope="module")
def source(exported, info) -> Source:
    return Source(info, exported[0])


@pytest.fixture(scope="module")
def made(exported, tmp_path_factory) -> Exported:
    """A model file that takes waveforms, made of one that takes log-mels."""
    content, info = read_model_file(exported[1])
    path = tmp_path_factory.mktemp("waveform") / "toy.onnx"
    return export(Source(info, content=content), path, "onnx", Form(waveform=True))


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    return toy.sound("tone", np.random.default_rng(seed))[: round(seconds * toy.SAMPLE_RATE)]


def test_it_was_compared(made):
    assert made.check.holds
    assert 0 < made.check.difference <= TOLERANCE
    sounds = [case.sound for case in made.check.cases]
    assert {"siren_and_bell.ogg", "silence", "full scale", "more than fp16 holds", "noise"} <= set(sounds)
    assert len({case.batch for case in made.check.cases}) == 3
    assert len({case.seconds for case in made.check.cases}) == 3
    assert f"wrote {made.files[0]} (" in made.summary()
    assert "takes waveforms at 8000 Hz, resampling not included, of any length" in made.summary()


def test_a_model_file_that_takes_waveforms_tags_as_the_model_does(made, toy_model):
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
    with pytest.raises(ModelError, match=r"toy\.onnx: .*(damaged|not a complete)"):
        earmark.load(tmp_path / "toy.onnx")


def test_one_length(source, tmp_path):
    made = export(source, tmp_path / "toy.onnx", "onnx", Form(seconds=0.75))
    assert (made.info.window_s, made.info.fixed_window) == (0.75, True)
    assert {case.seconds for case in made.check.cases} == {0.75}
    tagger = earmark.load(tmp_path / "toy.onnx")
    assert len(tagger.tag(np.tile(clip(0.3), 5), 8000, hop_s=0.25).windows) > 1
    with pytest.raises(ModelError, match=r"exported for windows of 0\.75 s and takes no others"):
        tagger.tag(clip(0.9), 8000, window_s=0.5)
    with pytest.raises(ModelError, match="takes no others"):
        tagger.embed_windows(np.zeros(8000, np.float32), [0], 4000)
    again = Source(made.info, content=(tmp_path / "toy.onnx").read_bytes())
    for form in (Form(seconds=0.5), Form(seconds="dynamic")):
        with pytest.raises(ModelError, match=r"takes (windows of 0\.75 s only|one length only)"):
            export(again, tmp_path / "again.onnx", "onnx", form)
    assert not (tmp_path / "again.onnx").exists()


@pytest.mark.parametrize("seconds", [0, -1, 0.01, 601, float("nan"), float("inf")])
def test_a_length_that_cannot_be_is_refused(source, tmp_path, seconds):
    with pytest.raises(ModelError, match=r"is not possible: 0\.016 to 600 s are"):
        export(source, tmp_path / "toy.onnx", "onnx", Form(seconds=seconds))
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_is_named_is_heard(source, tmp_path, exported):
    path = toy.write_clips(tmp_path / "clips", clips_per_fold=2, quiet=0).parent / "fold1_0_tone.wav"
    content = exported[1].read_bytes()
    made = export(Source(source.info, content=content), tmp_path / "a.onnx", recordings=[path])
    assert made.check.cases[-1].sound == "fold1_0_tone.wav"


@pytest.mark.parametrize("kind", ["network", "graph"])
def test_half_the_size(exported, source, tmp_path, kind):
    if kind == "graph":
        source = Source(source.info, content=exported[1].read_bytes())
    made = export(source, tmp_path / "toy.onnx", "onnx", Form(waveform=True, precision="fp16"))
    info = read_model_file(tmp_path / "toy.onnx")[1]
    assert info.precision == made.info.precision == "fp16"
    types = {
        tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type)
        for tensor in onnx.load(tmp_path / "toy.onnx").graph.initializer
        if len(tensor.dims) > 1
    }
    within = {kind for name, kind in types.items() if name.startswith("front_end/")}
    assert within == {"FLOAT"}
    assert {kind for name, kind in types.items() if not name.startswith("front_end/")} >= {"FLOAT16"}
    scores = [earmark.load(path).tag(clip(0.3), 8000).scores for path in (tmp_path / "toy.onnx", exported[1])]
    np.testing.assert_allclose(*scores, atol=1e-2)


def test_openvino(exported, info, tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs the extra openvino")
    content, info = read_model_file(exported[1])
    made = export(Source(info, content=content), tmp_path / "toy.xml", "openvino", Form(waveform=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.bin", "toy.xml"]
    assert made.check.holds
    model = openvino.Core().read_model(tmp_path / "toy.xml")
    assert ModelInfo.from_json(model.get_rt_info("earmark.record").value) == made.info
    assert model.get_rt_info("earmark.labels").value.split() == list(info.labels)
    weights = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    assert "f16" not in {node.get_element_type().to_string() for node in weights}


def test_pt2(source, tmp_path):
    made = export(source, tmp_path / "toy.pt2", "pt2", Form(waveform=True))
    assert made.check.holds
    beside = {"earmark.record": "", "earmark.labels": ""}
    program = torch.export.load(tmp_path / "toy.pt2", extra_files=beside)
    assert ModelInfo.from_json(beside["earmark.record"]) == made.info
    assert beside["earmark.labels"].split() == ["tone", "noise"]
    logits, embedding = program.module()(torch.zeros(5, 4000))
    assert (logits.shape, embedding.shape) == ((5, 2), (5, 96))
    with pytest.raises(ModelError, match=r"files take one length only: give --seconds 0\.5"):
        export(source, tmp_path / "other.pt2", "pt2", Form(seconds="dynamic"))
    with pytest.raises(ModelError, match="holds float32 only"):
        export(source, tmp_path / "other.pt2", "pt2", Form(precision="fp16"))


@pytest.mark.slow
def test_litert(source, tmp_path):
    pytest.importorskip("litert_torch", reason="needs the extra litert_export")
    made = export(source, tmp_path / "toy.tflite", "litert", Form(waveform=True))
    assert made.check.holds
    names = ["toy.labels.txt", "toy.record.json", "toy.tflite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "toy.labels.txt").read_text().splitlines() == ["tone", "noise"]
    assert ModelInfo.from_json((tmp_path / "toy.record.json").read_text()) == made.info
    assert (made.info.fixed_window, made.info.window_s) == (True, 0.5)


def test_a_graph_alone_is_not_enough_for_some(made, tmp_path):
    source = Source(made.info, content=made.files[0].read_bytes())
    with pytest.raises(ModelError, match="only its graph is known"):
        export(source, tmp_path / "toy.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_its_extra(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    openvino_core.cache_clear()
    with pytest.raises(MissingExtraError, match=r"earmark\[openvino\]"):
        export(source, tmp_path / "toy.xml", "openvino")
    assert list(tmp_path.iterdir()) == []


def test_an_ending_says_the_target(tmp_path):
    for name, target in TARGETS.items():
        assert target_of(tmp_path / f"a{target.suffix}") == name
        assert target_of(tmp_path / f"a{target.suffix}", name) == name
    for path, name in [("a.txt", None), ("a.onnx", "openvino"), ("a", "onnx")]:
        with pytest.raises(ModelError, match=re.escape(f"{path}: an export is named *.")):
            target_of(tmp_path / path, name)


def test_the_record_is_json_for_others(made):
    values = json.loads(made.info.to_json())
    assert values["front_end"]["in_graph"] is True
    assert values["front_end"]["sample_rate"] == 8000
