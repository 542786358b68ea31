"""A teacher answers what the student hears, the student learns to answer alike, and nothing of it is left."""

import csv

import numpy as np
import pytest
import torch
import toy
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from earmark.audio import load_audio
from earmark.errors import RecipeError
from earmark.models.log_mel import LogMel
from earmark.train import loop
from earmark.train.batch import Augmentation
from earmark.train.loop import train
from earmark.train.recipe import Imitation
from earmark.train.sources import split_clips
from earmark.train.teacher import Probe, open_teacher

LOGITS = "tower0/network/layer29/fc/MatMul;tower0/network/layer29/fc/BiasAdd"
TEACHER = {"path": "loud.tflite", "sample_rate": 8000, "weight": 1.0}


class Loudness:
    """Answers with the level of each waveform's halves and of the whole."""

    num_outputs = 3

    def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
        first, second = waveforms.chunk(2, -1)
        parts = [part.square().mean(-1).add(1e-4).log() / 5 for part in (first, second, waveforms)]
        return torch.stack(parts, -1)


@pytest.fixture
def loudness(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "open_teacher", lambda settings, rate: Loudness())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loud.tflite").write_bytes(b"a teacher")


def names_of(path):
    with safe_open(path, framework="pt") as stored:
        return set(stored.keys())


def test_it_is_imitated_and_left_behind(loudness, clips, tmp_path):
    recipe = toy.toy_recipe(clips, teacher=TEACHER, optimizer={"epochs": 12, "learning_rate": 1e-2})
    losses = []
    record = train(recipe, tmp_path / "run", 1, lambda facts: losses.append(facts["loss"]))
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:4])
    assert {"trained.imitation.weight", "trained.imitation.bias"} <= names_of(
        tmp_path / "run" / "state.safetensors"
    )
    assert not any("imitation" in name for name in names_of(tmp_path / "run" / "last.safetensors"))
    assert len(record.provenance["teacher"]) == 64


def test_it_changes_what_is_learned(loudness, clips, tmp_path):
    short = {"optimizer": {"epochs": 1}}
    weights = []
    for name, teacher in (("with", {"teacher": TEACHER}), ("without", {})):
        train(toy.toy_recipe(clips, **short, **teacher), tmp_path / name, 1)
        with safe_open(tmp_path / name / "last.safetensors", framework="pt") as stored:
            weights.append(stored.get_tensor("features.0.0.weight"))
    assert not torch.equal(*weights)


def test_it_hears_the_waveforms_as_they_are_augmented_and_is_mixed_as_the_labels_are(clips):
    heard = []

    def teacher(waveforms):
        heard.append(waveforms)
        return torch.arange(len(waveforms)).float()[:, None]

    recipe = toy.toy_recipe(clips, augment={"gain_db": [6, 6], "roll_s": 0, "mixup_alpha": 1.0})
    waveforms, labels = 0.1 * torch.randn(6, 4000), torch.arange(6).float()[:, None]
    augmentation = Augmentation(recipe, LogMel(recipe.front_end))
    _, wanted, taught = augmentation(waveforms, labels, np.random.default_rng(0), 0, teacher)
    torch.testing.assert_close(heard[0], waveforms * 10 ** (6 / 20))
    torch.testing.assert_close(wanted, taught)
    assert not torch.equal(wanted, labels)


def test_a_probe_is_logistic_regression():
    generator = torch.Generator().manual_seed(0)
    answers = torch.randn(60, 4, generator=generator) * torch.tensor([1.0, 5.0, 0.2, 1.0]) + 3
    wanted = (answers @ torch.randn(4, 2, generator=generator) > answers.mean()).float()
    unknown = torch.full((5, 2), torch.nan)
    probe = Probe.fit(torch.cat([answers, torch.randn(5, 4)]), torch.cat([wanted, unknown]), decay=0.05)
    standard = StandardScaler().fit(answers)
    for column in range(2):
        oracle = LogisticRegression(C=1 / (0.05 * 60), tol=1e-10, max_iter=10_000)
        spread = standard.scale_ * np.sqrt(60 / 59)
        oracle.fit((answers.numpy() - standard.mean_) / spread, wanted[:, column])
        expected = oracle.predict_proba((answers.numpy() - standard.mean_) / spread)[:, 1]
        np.testing.assert_allclose(probe(answers)[:, column], expected, atol=2e-4)


def test_clips_without_labels_teach_through_a_probe(loudness, clips, tmp_path):
    sources = [
        {"manifests": [str(clips)]},
        {"manifests": [str(clips)], "labelled": False, "clips_per_epoch": 10},
    ]
    recipe = toy.toy_recipe(
        clips,
        teacher=TEACHER | {"probe_weight": 1.0, "probe_passes": 1},
        data={"sources": sources},
        optimizer={"epochs": 2},
    )
    split = split_clips(recipe, 1)
    assert {clip.labelled for clip in split.judged} == {True}
    assert not any(clip.labels for clip in split.groups[1])
    train(recipe, tmp_path / "whole", 1)

    def stop(facts):
        if "seconds" in facts:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", 1, stop)
    train(recipe, tmp_path / "cut", 1)
    for name in ("probe", "state", "last"):
        file = f"{name}.safetensors"
        cut, whole = (load_file(tmp_path / run / file) for run in ("cut", "whole"))
        assert all(torch.equal(cut[key], whole[key]) for key in cut | whole)


def test_nothing_is_learned_from_clips_without_labels_but_from_a_teacher(clips):
    with pytest.raises(ValueError, match=r"labelled = false need a \[teacher\]"):
        toy.toy_recipe(clips, data={"sources": [{"manifests": [str(clips)], "labelled": False}]})


class TestYamnet:
    @pytest.fixture
    def settings(self, shared):
        pytest.importorskip("ai_edge_litert", reason="earmark[litert] is not installed")
        return Imitation(
            path=shared / "teachers" / "yamnet_int8.tflite", sample_rate=16000, output=None, weight=1
        )

    @pytest.fixture
    def labels(self, shared):
        return (shared / "teachers" / "yamnet_521_labels.txt").read_text().splitlines()

    def test_it_knows_a_dog(self, settings, labels, shared):
        with (shared / "data" / "esc18" / "meta.csv").open(newline="") as stream:
            row = next(row for row in csv.DictReader(stream) if "dog" in row.values())
        name = next(value for value in row.values() if value.endswith((".wav", ".flac", ".ogg")))
        path = next((shared / "data" / "esc18").rglob(name.rpartition("/")[2]))
        waveform, _ = load_audio(path, 32000)
        scores = open_teacher(settings, 32000)(torch.from_numpy(waveform)[None])[0].numpy()
        assert scores.shape == (521,)
        assert scores.min() >= 0
        assert scores.max() <= 1
        assert {labels[index] for index in np.argsort(-scores)[:4]} & {"Dog", "Bark", "Bow-wow"}

    def test_its_inner_tensors_can_be_imitated(self, settings):
        waveforms = 0.1 * torch.randn(1, 31200, generator=torch.Generator().manual_seed(0))
        scores = open_teacher(settings, 32000)(waveforms)
        logits = open_teacher(settings.model_copy(update={"output": LOGITS}), 32000)(waveforms)
        torch.testing.assert_close(torch.sigmoid(logits), scores, rtol=0, atol=1 / 128)
        changes = {"output": LOGITS, "center": -10.0, "spread": 5.0}
        scaled = open_teacher(settings.model_copy(update=changes), 32000)(waveforms)
        torch.testing.assert_close(scaled, (logits + 10) / 5)

    def test_any_length_is_answered(self, settings):
        teacher = open_teacher(settings, 32000)
        assert teacher(torch.randn(2, 500)).shape == teacher(torch.randn(2, 170_000)).shape == (2, 521)

    def test_a_tensor_it_lacks_is_named(self, settings):
        with pytest.raises(RecipeError, match="no tensor named 'layer99'"):
            open_teacher(settings.model_copy(update={"output": "layer99"}), 32000)


@pytest.mark.parametrize("content", [None, b"no flatbuffer"])
def test_a_file_that_is_no_teacher_is_refused(tmp_path, content):
    pytest.importorskip("ai_edge_litert", reason="earmark[litert] is not installed")
    path = tmp_path / "teacher.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"teacher\.tflite: is no LiteRT file"):
        open_teacher(Imitation(path=path, sample_rate=16000, weight=1), 32000)
