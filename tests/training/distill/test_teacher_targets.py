"""Teachers of a run: targets, losses, probes and resuming."""

import numpy as np
import pytest
import torch
import toy
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from earmark.errors import DataError, ModelError, RecipeError
from earmark.models.checkpoint import load_checkpoint, save_checkpoint
from earmark.models.log_mel import TorchLogMel
from earmark.models.network import Output
from earmark.training import trainer as loop
from earmark.training.batch import Augmentation
from earmark.training.config.learning import Teacher
from earmark.training.cross_validation import cross_validate
from earmark.training.distill import teacher_targets as module
from earmark.training.distill.losses import split_outputs
from earmark.training.distill.network_teacher import NetworkTeacher
from earmark.training.distill.probe import Probe
from earmark.training.distill.stored_predictions import PredictionsHeader, serialize, sha256_of
from earmark.training.distill.teacher_targets import open_teacher_targets
from earmark.training.splits import split_clips
from earmark.training.trainer import train_network as train

TEACHER = {"path": "loud.tflite", "sample_rate": 8000, "imitation_weight": 1.0}


class Loudness:
    """A teacher whose outputs are the levels of each waveform's halves and of the whole."""

    name, sha256, kind, task, sample_rate = "loudness", "5" * 64, "logits", None, 8000
    labels = ("first", "second", "both")

    def __call__(self, waveforms: torch.Tensor, sample_rate: int) -> torch.Tensor:
        first, second = waveforms.chunk(2, -1)
        parts = [part.square().mean(-1).add(1e-4).log() / 5 for part in (first, second, waveforms)]
        return torch.stack(parts, -1)


@pytest.fixture
def loudness(monkeypatch):
    monkeypatch.setattr(module, "open_teacher_model", lambda paths, **options: Loudness())


def names_of(path):
    with safe_open(path, framework="pt") as stored:
        return set(stored.keys())


def test_the_imitation_layer_is_dropped_after_training(loudness, clips, tmp_path):
    recipe = toy.toy_recipe(clips, teacher=TEACHER, optimizer={"epochs": 12, "learning_rate": 1e-2})
    losses = []
    info = train(recipe, tmp_path / "run", 1, lambda facts: losses.append(facts["loss"]))
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:4])
    assert {"trained.imitation.0.weight", "trained.imitation.0.bias"} <= names_of(
        tmp_path / "run" / "state.safetensors"
    )
    assert not any("imitation" in name for name in names_of(tmp_path / "run" / "last.safetensors"))
    assert info.provenance["teachers"] == [{"name": "loudness", "sha256": "5" * 64}]


def test_it_changes_what_is_learned(loudness, clips, tmp_path):
    short = {"optimizer": {"epochs": 1}}
    weights = []
    for name, section in (("with", {"teacher": TEACHER}), ("without", {})):
        train(toy.toy_recipe(clips, **short, **section), tmp_path / name, 1)
        weights.append(load_checkpoint(tmp_path / name / "last.safetensors")[0].state_dict())
    with_teacher, without = weights
    assert any(not torch.equal(with_teacher[key], without[key]) for key in without)


def test_a_live_teacher_takes_augmented_waveforms_and_its_targets_are_mixed(clips):
    received = []

    def teacher(waveforms):
        received.append(waveforms)
        return torch.arange(len(waveforms)).float()[:, None]

    recipe = toy.toy_recipe(clips, augment={"gain_db": [6, 6], "roll_s": 0, "mixup_alpha": 1.0})
    waveforms, labels = 0.1 * torch.randn(6, 4000), torch.arange(6).float()[:, None]
    augmentation = Augmentation(recipe, TorchLogMel(recipe.front_end))
    _, wanted, taught = augmentation(waveforms, labels, np.random.default_rng(0), teacher=teacher)
    torch.testing.assert_close(received[0], waveforms * 10 ** (6 / 20))
    torch.testing.assert_close(wanted, taught)
    assert not torch.equal(wanted, labels)


def test_a_probe_is_logistic_regression():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(60, 4, generator=generator) * torch.tensor([1.0, 5.0, 0.2, 1.0]) + 3
    wanted = (outputs @ torch.randn(4, 2, generator=generator) > outputs.mean()).float()
    unknown = torch.full((5, 2), torch.nan)
    probe = Probe.fit(torch.cat([outputs, torch.randn(5, 4)]), torch.cat([wanted, unknown]), decay=0.05)
    standard = StandardScaler().fit(outputs)
    for column in range(2):
        oracle = LogisticRegression(C=1 / (0.05 * 60), tol=1e-10, max_iter=10_000)
        spread = standard.scale_ * np.sqrt(60 / 59)
        oracle.fit((outputs.numpy() - standard.mean_) / spread, wanted[:, column])
        expected = oracle.predict_proba((outputs.numpy() - standard.mean_) / spread)[:, 1]
        np.testing.assert_allclose(probe(outputs)[:, column], expected, atol=2e-4)


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_unlabelled_clips_train_through_a_probe(loudness, clips, tmp_path, task):
    sources = [
        {"manifests": [str(clips)]},
        {"manifests": [str(clips)], "labelled": False, "clips_per_epoch": 10},
    ]
    recipe = toy.toy_recipe(
        clips,
        task=task,
        teacher=TEACHER | {"probe_weight": 1.0, "probe_passes": 1},
        data={"sources": sources},
        optimizer={"epochs": 2},
    )
    split = split_clips(recipe, 1)
    assert {clip.labelled for clip in split.evaluated} == {True}
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
    with pytest.raises(ValidationError):
        toy.toy_recipe(clips, data={"sources": [{"manifests": [str(clips)], "labelled": False}]})


def test_a_probe_of_exclusive_classes_is_multinomial_logistic_regression():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(60, 4, generator=generator)
    classes = (outputs @ torch.randn(4, 3, generator=generator)).argmax(-1)
    probe = Probe.fit(outputs, torch.eye(3)[classes], "single_label", decay=0.05)
    standard = (outputs - outputs.mean(0)) / outputs.std(0)
    oracle = LogisticRegression(C=1 / (0.05 * 60), tol=1e-10, max_iter=10_000).fit(standard, classes)
    np.testing.assert_allclose(probe(outputs), oracle.predict_proba(standard), atol=2e-4)


@pytest.mark.parametrize("content", [b"no probe", None])
def test_a_damaged_probe_is_one_line(loudness, clips, tmp_path, content):
    recipe = toy.toy_recipe(clips, teacher=TEACHER | {"probe_weight": 1.0, "probe_passes": 1})
    path = tmp_path / "probe.safetensors"
    if content is None:
        Probe(torch.zeros(2, 9), torch.zeros(2)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError):
        train(recipe, tmp_path, 1)


def write_predictions(path, ids, labels=("noise", "tone"), level=4.0, **heading):
    """Logits of tones and noises, named as the toy clips are: the first column is that of the first label."""
    values = [[level if label in name else -level for label in labels] for name in ids]
    heading = {"kind": "logits", "task": "multi_label"} | heading
    heading = PredictionsHeader(tuple(labels), teachers=({"name": "wise", "sha256": "7" * 64},), **heading)
    path.write_bytes(serialize(heading, ids, np.array(values, np.float32)))
    return str(path)


def ids_of(clips):
    return [path.stem for path in sorted(clips.parent.glob("*.wav"))]


QUIET = {"roll_s": 0, "gain_db": [0, 0], "mask_mels": 0, "f_max_range": 0}


class TestStoredAnswers:
    @pytest.mark.parametrize("labels", [("noise", "tone"), ("tone", "noise")])
    def test_each_clip_has_its_own_row_mixed_as_its_targets(self, clips, tmp_path, labels, monkeypatch):
        wanted, reported = [], []
        losses = loop.label_loss, module.TeacherTargets.loss
        monkeypatch.setattr(
            loop, "label_loss", lambda *given: (wanted.append(given[1]), losses[0](*given))[1]
        )
        monkeypatch.setattr(
            module.TeacherTargets, "loss", lambda *given: (reported.append(given[2]), losses[1](*given))[1]
        )
        path = write_predictions(tmp_path / "a.npz", ids_of(clips), labels, level=20)
        section = {"path": path, "distill_weight": 1.0, "label_weight": 0.1}
        recipe = toy.toy_recipe(
            clips, teacher=section, optimizer={"epochs": 1}, augment={"waveform_mix_probability": 0.5}
        )
        info = train(recipe, tmp_path / "run", 1)
        soft, weight = split_outputs(torch.cat(reported))
        torch.testing.assert_close(soft, torch.cat(wanted))
        assert len(soft.unique()) > 4
        torch.testing.assert_close(weight, torch.ones(len(soft)))
        assert info.provenance["teachers"] == [{"name": "wise", "sha256": "7" * 64}]

    def test_clips_without_labels_are_learned_from_them(self, clips, tmp_path):
        path = write_predictions(tmp_path / "a.npz", ids_of(clips))
        recipe = toy.toy_recipe(
            clips,
            data={
                "sources": [{"manifests": [str(clips)], "labelled": False}, {"manifests": [str(clips)]}],
                "labels": ["noise", "tone"],
            },
            teacher={"path": path, "distill_weight": 1.0, "label_weight": 0.0},
            optimizer={"epochs": 8, "learning_rate": 1e-2, "ema_decay": 0},
            augment=QUIET | {"mixup_alpha": 0},
        )
        losses = []
        train(recipe, tmp_path / "run", 1, lambda facts: losses.append(facts["loss"]))
        assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])

    def test_clips_without_a_prediction_are_counted_once(self, clips, tmp_path):
        path = write_predictions(tmp_path / "a.npz", ids_of(clips)[:5])
        recipe = toy.toy_recipe(clips, teacher={"path": path, "distill_weight": 0.9}, optimizer={"epochs": 2})
        reported = []
        train(recipe, tmp_path / "run", 2, reported.append)
        reported = [facts for facts in reported if "teacher" in facts]
        assert reported == [{"teacher": path, "clips": 12, "without_prediction": 7}]

    def test_other_labels_are_imitated_through_a_dropped_layer(self, clips, tmp_path):
        path = write_predictions(tmp_path / "a.npz", ids_of(clips), ("noise", "tone", "bell"))
        recipe = toy.toy_recipe(
            clips, teacher={"path": path, "imitation_weight": 0.5}, optimizer={"epochs": 1}
        )
        train(recipe, tmp_path / "run", 1)
        state = load_file(tmp_path / "run" / "state.safetensors")
        assert state["trained.imitation.0.weight"].shape[0] == 3
        assert "imitation" not in "".join(load_file(tmp_path / "run" / "last.safetensors"))

    @pytest.mark.parametrize(
        ("ids", "labels", "changes", "message"),
        [
            (["other"], ("noise", "tone"), {}, r"none of the run's 12 clips"),
            (None, ("noise", "bell"), {}, r"1 of the run's 2 labels .* \('tone'\).* \('bell'\)"),
            (None, ("noise", "tone"), {"task": "single_label"}, "logits are for task single_label"),
        ],
    )
    def test_another_corpus_or_labels_are_refused_before_the_run(
        self, clips, tmp_path, ids, labels, changes, message
    ):
        path = write_predictions(tmp_path / "a.npz", ids or ids_of(clips), labels, **changes)
        recipe = toy.toy_recipe(clips, teacher={"path": path, "distill_weight": 1.0})
        with pytest.raises(DataError, match=message):
            train(recipe, tmp_path / "run", 1)
        assert not (tmp_path / "run" / "log.jsonl").exists()

    def test_a_killed_run_resumes_with_the_same_result(self, clips, tmp_path):
        path = write_predictions(tmp_path / "a.npz", ids_of(clips)[::2])
        changes = {"teacher": {"path": path, "distill_weight": 0.9}, "optimizer": {"epochs": 2}}
        recipe = toy.toy_recipe(clips, **changes, augment={"waveform_mix_probability": 0.5})

        def stop(facts):
            if "seconds" in facts:
                raise KeyboardInterrupt

        train(recipe, tmp_path / "whole", 1)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", 1, stop)
        train(recipe, tmp_path / "cut", 1)
        whole, cut = ((tmp_path / run / "last.safetensors").read_bytes() for run in ("whole", "cut"))
        assert whole == cut


class TestLessons:
    """Targets of several teachers are separate, and mixed as the batch is."""

    def objectives(self, tmp_path, *teachers):
        ids = ["tone 1", "noise 1", "stranger"]
        write_predictions(tmp_path / "a.npz", ids[:2])
        return open_teacher_targets(
            [Teacher(**one) for one in teachers],
            ids=ids,
            labels=("tone", "noise"),
            task="multi_label",
            sample_rate=8000,
            embedding_size=5,
        )

    def test_without_teachers_there_is_nothing(self, tmp_path):
        objectives = self.objectives(tmp_path)
        output = Output(torch.randn(2, 2), torch.randn(2, 5))
        tables = torch.cat([objectives.stored([0, 1]), objectives.computed(torch.randn(2, 100))], -1)
        assert tables.shape == (2, 0)
        assert objectives.loss(output, tables) == 0
        assert objectives.label_weight == 1
        assert not list(objectives.layers.parameters())

    def test_the_temperature_is_the_teachers_alone(self, tmp_path):
        stored = {"path": str(tmp_path / "a.npz"), "distill_weight": 0.9, "label_weight": 0.1}
        objectives = self.objectives(tmp_path, stored | {"temperature": 2.0})
        table = objectives.stored([1, 2])
        score = 1 / (1 + np.exp(-2.0))
        torch.testing.assert_close(table, torch.tensor([[1 - score, score, 1], [0, 0, 0]]).float())
        logits = torch.tensor([[0.3, -0.2], [5.0, 5.0]])
        teacher_scores = 1 / (1 + torch.exp(-logits[0]))
        wanted = torch.tensor([1 - score, score])
        expected = -(wanted * teacher_scores.log() + (1 - wanted) * (1 - teacher_scores).log()).mean() * 0.9
        torch.testing.assert_close(
            objectives.loss(Output(logits, torch.zeros(2, 5)), table), expected.float()
        )
        assert objectives.label_weight == 0.1

    def test_losses_of_several_teachers_are_summed(self, loudness, tmp_path):
        stored = {"path": str(tmp_path / "a.npz"), "distill_weight": 0.9}
        alone, received = self.objectives(tmp_path, stored), self.objectives(tmp_path, TEACHER)
        both = self.objectives(tmp_path, TEACHER, stored)
        both.layers.load_state_dict(received.layers.state_dict())
        output, waveforms = Output(torch.randn(2, 2), torch.randn(2, 5)), torch.randn(2, 100)
        tables = [alone.stored([0, 1]), received.computed(waveforms)]
        expected = alone.loss(output, tables[0]) + received.loss(output, tables[1])
        got = torch.cat([both.stored([0, 1]), both.computed(waveforms)], -1)
        torch.testing.assert_close(got, torch.cat(tables, -1))
        torch.testing.assert_close(both.loss(output, got), expected)
        assert [one["name"] for one in both.teachers] == ["wise", "loudness"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"index": "i.pkl"}, "loud.tflite: teacher.index"),
            ({"path": "a.npz"}, "a.npz: teacher.sample_rate"),
            ({"path": ["a.npz", "b.npz"]}, "a.npz: stored predictions"),
        ],
    )
    def test_keys_of_another_kind_of_teacher_are_refused(self, loudness, tmp_path, changes, message):
        with pytest.raises(RecipeError, match=message):
            self.objectives(tmp_path, TEACHER | changes)


class TestNetworks:
    """Checkpoints and model files of the run's own labels, which take the waveforms of the student."""

    @pytest.fixture
    def checkpoint(self, exported, info, tmp_path):
        path = tmp_path / "fold1" / "last.safetensors"
        save_checkpoint(path, exported[0], info)
        return path

    def test_live_teachers_take_the_waveforms_of_the_student_in_its_label_order(
        self, exported, checkpoint, toy_model, clips, tmp_path, info
    ):
        path = [str(tmp_path / "{fold}" / "last.safetensors"), str(toy_model)]
        section = Teacher(path=path, distill_weight=1.0, temperature=2.0)
        objectives = open_teacher_targets(
            [section],
            ids=["a", "b"],
            labels=("noise", "tone"),
            task="multi_label",
            sample_rate=8000,
            embedding_size=5,
            fold=1,
        )
        waveforms = 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
        logits = exported[0](TorchLogMel(info.front_end)(waveforms)).logits
        soft, weight = split_outputs(objectives.computed(waveforms))
        torch.testing.assert_close(soft, torch.sigmoid(logits[:, [1, 0]] / 2), rtol=0, atol=1e-5)
        assert weight.tolist() == [1, 1]

    def test_a_run_learns_from_them(self, checkpoint, clips, tmp_path):
        path = str(tmp_path / "{fold}" / "last.safetensors")
        section = {"path": path, "distill_weight": 0.9, "label_weight": 0.1}
        info = train(toy.toy_recipe(clips, teacher=section, optimizer={"epochs": 1}), tmp_path / "run", 1)
        assert info.provenance["teachers"] == [{"name": "toy", "sha256": sha256_of([checkpoint])}]

    def test_a_missing_teacher_of_a_later_fold_is_refused_before_training(self, checkpoint, clips, tmp_path):
        path = str(tmp_path / "{fold}" / "last.safetensors")
        recipe = toy.toy_recipe(clips, teacher={"path": path, "distill_weight": 1.0})
        with pytest.raises(RecipeError):
            cross_validate(recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_opening_a_teacher_does_not_change_the_rng(self, checkpoint):
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        NetworkTeacher(str(checkpoint))
        assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imitation_weight": 0}, "imitation_weight or probe_weight above 0"),
        ({"path": []}, "at least 1 item"),
        ({"temperature": 0}, "greater than 0"),
        ({"kind": "feelings"}, "'logits' or 'scores'"),
    ],
)
def test_an_invalid_teacher_table_is_refused(clips, changes, message):
    with pytest.raises(ValueError, match=message):
        toy.toy_recipe(clips, teacher=TEACHER | changes)


def test_label_weight_is_set_once(clips):
    with pytest.raises(ValidationError):
        toy.toy_recipe(clips, teacher=[TEACHER | {"label_weight": 0.5}] * 2)
    assert len(toy.toy_recipe(clips, teacher=[TEACHER, TEACHER | {"label_weight": 0.5}]).teacher) == 2


def test_a_network_that_is_not_there_is_one_line(clips, tmp_path):
    recipe = toy.toy_recipe(clips, teacher={"path": "mn10_az", "distill_weight": 1})
    with pytest.raises(ModelError):
        train(recipe, tmp_path, 1)


def test_published_predictions_are_opened_by_name_and_say_what_they_are(monkeypatch, tmp_path):
    (tmp_path / "a.npz").write_bytes(serialize(stored_header(), ["a.wav"], np.ones((1, 2), np.float32)))
    opened = []

    def published(name):
        opened.append(name)
        return module.StoredPredictions(tmp_path / "a.npz")

    monkeypatch.setattr(module.StoredPredictions, "published", published)
    run = {"ids": ["a.wav"], "labels": ["tone", "noise"], "task": "multi_label"}
    run |= {"sample_rate": 8000, "embedding_size": 8}
    settings = {"path": "passt_ensemble", "distill_weight": 1.0}
    module.require_teachers([Teacher(**settings)], [None])
    targets = open_teacher_targets([Teacher(**settings)], **run)
    assert opened == ["passt_ensemble"]
    assert targets.stored([0])[0, :2].tolist() == pytest.approx([torch.tensor(1.0).sigmoid().item()] * 2)
    for name, value in {"index": "a.pkl", "labels": "audioset", "kind": "logits"}.items():
        with pytest.raises(RecipeError, match=rf"teacher\.{name} is that of the published predictions"):
            open_teacher_targets([Teacher(**settings, **{name: value})], **run)


def stored_header() -> PredictionsHeader:
    return PredictionsHeader(("tone", "noise"), "logits", "multi_label", ({"name": "a", "sha256": "b"},))
