"""Teachers of every kind predict from waveforms of any rate and length as their own programs do."""

import csv
import math

import numpy as np
import pytest
import torch
import toy

import earmark
from earmark.audio import load_audio
from earmark.audio.resample import resample
from earmark.errors import ModelError
from earmark.models.checkpoint import save_checkpoint
from earmark.training.distill.losses import as_scores
from earmark.training.distill.teacher_model import EnsembleTeacher, open_teacher_model
from earmark.training.distill.teacher_windows import even_windows

LOGITS = "tower0/network/layer29/fc/MatMul;tower0/network/layer29/fc/BiasAdd"


def noise(count: int, time: int) -> torch.Tensor:
    return 0.1 * torch.randn(count, time, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("time", "count", "starts"), [(10, 3, [0, 3, 6]), (4, 1, [0]), (9, 2, [0, 5]), (40, 10, range(0, 40, 4))]
)
def test_windows_cover_evenly(time, count, starts):
    windows = even_windows(torch.arange(time)[None], 4, count, "zero")
    assert windows[0, :, 0].tolist() == list(starts)
    assert windows.shape == (1, count, 4)


@pytest.mark.parametrize(("padding", "expected"), [("repeat", [1, 2, 1, 2, 1]), ("zero", [1, 2, 0, 0, 0])])
def test_what_is_short_is_filled_up(padding, expected):
    assert even_windows(torch.tensor([[1, 2]]), 5, 1, padding)[0, 0].tolist() == expected


class TestOwnNetworks:
    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, exported, info, tmp_path_factory):
        path = tmp_path_factory.mktemp("checkpoint") / "toy.safetensors"
        save_checkpoint(path, exported[0], info)
        return path

    @pytest.mark.parametrize("time", [1000, 4000])
    def test_outputs_match_the_tagger(self, checkpoint, toy_model, time):
        tagger = earmark.load(toy_model)
        for path in (checkpoint, toy_model):
            teacher = open_teacher_model([str(path)])
            assert (teacher.name, teacher.labels, teacher.kind, teacher.task) == (
                "toy", ("tone", "noise"), "logits", "multi_label"
            )  # fmt: skip
            waveforms = noise(2, time)
            got = as_scores(teacher(waveforms, toy.SAMPLE_RATE), "multi_label")
            expected = [tagger.tag(row.numpy(), toy.SAMPLE_RATE).scores for row in waveforms]
            np.testing.assert_allclose(got, expected, atol=1e-5)

    def test_the_mean_over_windows_at_any_rate(self, toy_model):
        teacher = open_teacher_model([str(toy_model)])
        waveform = noise(1, 2 * 10_000)  # 1.25 s at 16 kHz: three windows of 0.5 s
        received = torch.from_numpy(resample(waveform[0].numpy(), 16_000, 8000))
        parts = torch.stack([received[start : start + 4000] for start in (0, 3000, 6000)])
        expected = teacher(parts, 8000).mean(0, keepdim=True)
        torch.testing.assert_close(teacher(waveform, 16_000), expected)

    def test_an_ensemble_is_the_mean_of_their_logits(self, checkpoint, toy_model):
        both = open_teacher_model([str(checkpoint), str(toy_model)])
        assert isinstance(both, EnsembleTeacher)
        assert both.name == "toy+toy"
        one = open_teacher_model([str(toy_model)])
        waveforms = noise(20, 4000)  # more than go through at once
        torch.testing.assert_close(both(waveforms, 8000), one(waveforms, 8000), atol=1e-5, rtol=0)

    def test_members_must_agree(self, checkpoint, toy_single_label_model, exported, info, tmp_path):
        with pytest.raises(ModelError):
            open_teacher_model([str(checkpoint), str(toy_single_label_model)])
        other = tmp_path / "other.safetensors"
        save_checkpoint(other, exported[0], info.changed(name="other", labels=("noise", "tone")))
        with pytest.raises(ModelError):
            open_teacher_model([str(checkpoint), str(other)])

    def test_litert_options_are_refused_for_other_teachers(self, checkpoint):
        with pytest.raises(ModelError):
            open_teacher_model([str(checkpoint)], sample_rate=8000)


class TestYamnet:
    @pytest.fixture
    def path(self, shared):
        pytest.importorskip("ai_edge_litert", reason="earmark[litert] is not installed")
        return str(shared / "teachers" / "yamnet_int8.tflite")

    @pytest.fixture
    def labels(self, shared):
        return str(shared / "teachers" / "yamnet_521_labels.txt")

    def test_yamnet_recognises_a_dog(self, path, labels, shared):
        with (shared / "data" / "esc18" / "meta.csv").open(newline="") as stream:
            row = next(row for row in csv.DictReader(stream) if "dog" in row.values())
        name = next(value for value in row.values() if value.endswith((".wav", ".flac", ".ogg")))
        recording = next((shared / "data" / "esc18").rglob(name.rpartition("/")[2]))
        waveform, _ = load_audio(recording, 32000)
        teacher = open_teacher_model([path], sample_rate=16000, labels=labels, kind="scores")
        assert teacher.kind == "scores"
        scores = teacher(torch.from_numpy(waveform)[None], 32000)[0].numpy()
        assert scores.shape == (521,)
        assert scores.min() >= 0
        assert scores.max() <= 1
        assert {teacher.labels[index] for index in np.argsort(-scores)[:4]} & {"Dog", "Bark", "Bow-wow"}

    def test_its_inner_tensors_can_be_learned_from(self, path):
        waveforms = noise(1, 31200)
        scores = open_teacher_model([path], sample_rate=16000)(waveforms, 32000)
        logits = open_teacher_model([path], sample_rate=16000, tensor=LOGITS)(waveforms, 32000)
        torch.testing.assert_close(torch.sigmoid(logits), scores, rtol=0, atol=1 / 128)

    def test_any_length_is_accepted(self, path):
        teacher = open_teacher_model([path], sample_rate=16000)
        assert teacher.labels[520] == "output 520"
        assert teacher(noise(2, 500), 32000).shape == teacher(noise(2, 170_000), 32000).shape == (2, 521)

    def test_what_it_lacks_is_named(self, path):
        with pytest.raises(ModelError):
            open_teacher_model([path], sample_rate=16000, tensor="layer99")
        with pytest.raises(ModelError):
            open_teacher_model([path])
        with pytest.raises(ModelError):
            open_teacher_model([path], sample_rate=16000, labels="audioset")
        with pytest.raises(ModelError):
            open_teacher_model([path, path], sample_rate=16000)


@pytest.mark.parametrize("content", [None, b"no flatbuffer"])
def test_a_file_that_is_no_litert_file_is_refused(tmp_path, content):
    pytest.importorskip("ai_edge_litert", reason="earmark[litert] is not installed")
    path = tmp_path / "teacher.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError):
        open_teacher_model([str(path)], sample_rate=16000)


@pytest.mark.parametrize("model", ["hf:none", "none.onnx", "mn10_az", "none.safetensors"])
def test_a_model_that_is_not_there_is_one_line(model):
    with pytest.raises(ModelError) as refused:
        open_teacher_model([model])
    assert "\n" not in str(refused.value)


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError.__base__):
        open_teacher_model([f"hf:{tmp_path}"])


@pytest.mark.slow
class TestHuggingFace:
    """A small AST of random weights, in the layout of the published ones."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        pytest.importorskip("transformers", reason="earmark[hf] is not installed")
        from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

        torch.manual_seed(0)
        config = ASTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_length=100,
            num_mel_bins=32,
            initializer_range=0.5,
            id2label={0: "dog", 1: "rain", 2: "bell"},
            problem_type="multi_label_classification",
        )
        folder = tmp_path_factory.mktemp("hf") / "small-ast"
        ASTForAudioClassification(config).save_pretrained(folder)
        ASTFeatureExtractor(max_length=100, num_mel_bins=32).save_pretrained(folder)
        return folder

    def test_outputs_match_transformers(self, folder):
        from transformers import pipeline

        teacher = open_teacher_model([f"hf:{folder}"])
        assert (teacher.name, teacher.labels, teacher.task) == (
            "small-ast", ("dog", "rain", "bell"), "multi_label"
        )  # fmt: skip
        waveforms = noise(3, 12_000)
        logits = teacher(waveforms, 16_000)
        classify = pipeline("audio-classification", model=str(folder))
        for row, waveform in zip(torch.sigmoid(logits), waveforms, strict=True):
            outputs = classify(waveform.numpy(), top_k=None, function_to_apply="sigmoid")
            expected = {found["label"]: found["score"] for found in outputs}
            got = dict(zip(teacher.labels, row.tolist(), strict=True))
            assert got == pytest.approx(expected, abs=1e-5)
        assert logits.std(0).max() > 1e-3, "the outputs do not depend on the input"

    def test_long_waveforms_are_cut_into_windows(self, folder):
        teacher = open_teacher_model([f"hf:{folder}"])
        waveform = noise(1, 2 * 38_000)  # 2.375 s at 32 kHz: three windows of 1 s
        received = torch.from_numpy(resample(waveform[0].numpy(), 32_000, 16_000))
        parts = torch.stack([received[start : start + 16_000] for start in (0, 11_000, 22_000)])
        torch.testing.assert_close(teacher(waveform, 32_000)[0], teacher(parts, 16_000).mean(0))
        assert math.isfinite(teacher(noise(1, 400), 16_000).sum())

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("model.safetensors", b"damaged", "cannot load this classifier"),
            ("model.safetensors", None, "cannot load this classifier"),
            ("config.json", b"{}", "cannot load this classifier"),
            ("preprocessor_config.json", None, "cannot load this classifier"),
        ],
    )
    def test_a_damaged_folder_is_one_line(self, folder, tmp_path, name, content, message):
        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=message) as refused:
            open_teacher_model([f"hf:{tmp_path}"])
        assert "\n" not in str(refused.value)

    def test_missing_weights_are_not_made_up(self, folder, tmp_path):
        from safetensors.torch import load_file, save_file

        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        tensors = load_file(folder / "model.safetensors")
        del tensors["classifier.dense.weight"]
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError):
            open_teacher_model([f"hf:{tmp_path}"])
