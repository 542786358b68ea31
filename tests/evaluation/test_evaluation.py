"""Clips -> predictions -> all metrics of their task."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy import FRONT_END

from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.evaluation import metrics
from earmark.evaluation.evaluation import evaluate_predictions, groups_of, main_metrics
from earmark.evaluation.predictions import Predictions, predict_clips, require_labels, select_clips
from earmark.evaluation.run import EvaluationOptions, evaluate
from earmark.inference.tagger import Tagger
from earmark.model_file.calibration import uncalibrated_scores
from earmark.model_file.info import ModelInfo

RATE = 8000
SP4ASC = np.load(Path(__file__).parents[1] / "golden" / "sp4asc_metrics.npz")
EXCLUSIVE = {
    "accuracy",
    "accuracy_macro",
    "map_at_3",
    "log_loss",
    "log_loss_macro",
    "expected_calibration_error",
}


class Ear:
    """Its logits are the means of the upper and the lower bands; it keeps the number of frames."""

    def __init__(self):
        self.frames = []

    def run(self, names, inputs):
        [log_mel] = inputs.values()
        self.frames.append(log_mel.shape[2])
        logits = np.stack([log_mel[:, 16:].mean((1, 2)), log_mel[:, :16].mean((1, 2))], 1)
        return [logits.astype(np.float32), log_mel.mean(2)]


@pytest.fixture
def ear():
    return Ear()


@pytest.fixture
def tagger(ear, info):
    return Tagger(ear, info.changed(threshold=None))


@pytest.fixture
def clips(tmp_path):
    """One short and two long clips, each louder towards its end, and one of silence."""
    generator, made = np.random.default_rng(0), []
    for number, samples in enumerate((3000, 9000, 10_000)):
        sound = np.geomspace(1e-3, 0.3, samples) * generator.standard_normal(samples)
        soundfile.write(tmp_path / f"{number}.wav", sound, RATE)
        made.append(
            Clip(tmp_path / f"{number}.wav", (("tone", "noise")[number % 2],), number, {"device": "a"})
        )
    soundfile.write(tmp_path / "3.wav", np.zeros(100), RATE)
    return [*made, Clip(tmp_path / "3.wav", ("noise",), 2, {"device": "b"})]


def read(clip: Clip) -> np.ndarray:
    return soundfile.read(clip.path, dtype="float32")[0]


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_windows_and_pooling(ear, info, clips, task):
    tagger = Tagger(ear, info.changed(task=task))
    as_tagged = predict_clips(tagger, clips).scores
    over_windows = predict_clips(tagger, clips, pooling="mean").scores
    for clip, tagged, mean in zip(clips, as_tagged, over_windows, strict=True):
        windows = np.stack([window.scores for window in tagger.tag(clip.path).windows])
        np.testing.assert_allclose(mean, windows.mean(0), rtol=0, atol=1e-6)
        wanted = windows.max(0) if task == "multi_label" else windows.mean(0)
        np.testing.assert_allclose(tagged, wanted, rtol=0, atol=1e-6)
    assert np.abs(as_tagged - over_windows).max() > 0.01 or task == "single_label"
    for scores, clip in zip(predict_clips(tagger, clips, windows="center").scores, clips, strict=True):
        wave, excess = read(clip), max(0, len(read(clip)) - 4000)
        wanted = tagger.tag(wave[excess // 2 :][:4000], RATE).scores
        np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-6)
    ear.frames.clear()
    received = predict_clips(tagger, clips, windows="whole")
    shortest = FRONT_END.min_samples
    assert ear.frames == [FRONT_END.num_frames(max(shortest, len(read(clip)))) for clip in clips]
    assert len(read(clips[3])) < shortest, "too short for the front-end, so it was filled up"
    assert np.abs(received.scores - over_windows).max() > 0.001


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_windows_at_a_hop_are_pooled_by_their_mean_logit(ear, info, clips, task):
    tagger = Tagger(ear, info.changed(task=task))
    found = predict_clips(tagger, clips, pooling="logits", hop_s=0.1)
    plain = predict_clips(tagger, clips, pooling="mean", hop_s=0.1)
    for clip, scores, windows in zip(clips, found.scores, found.windows, strict=True):
        own = np.stack([window.scores for window in tagger.tag(clip.path, hop_s=0.1).windows])
        np.testing.assert_array_equal(windows, own)
        values = own.astype(np.float64)
        logits = np.log(values / (1 - values) if task == "multi_label" else values).mean(0)
        np.testing.assert_allclose(scores, uncalibrated_scores(logits, task), atol=1e-6)
    assert max(map(len, found.windows)) > 3
    assert np.abs(found.scores - plain.scores).max() > 1e-6
    with pytest.raises(DataError, match="hop"):
        predict_clips(tagger, clips, windows="whole", hop_s=0.1)
    with pytest.raises(DataError, match="hop_s"):
        predict_clips(tagger, clips, hop_s=0)


def test_windows_may_count_as_clips_of_their_own(tagger, clips):
    found = predict_clips(tagger, clips, pooling="none", hop_s=0.1)
    pooled = predict_clips(tagger, clips, hop_s=0.1)
    owners = [clip for clip, own in zip(clips, pooled.windows, strict=True) for _ in own]
    np.testing.assert_array_equal(found.scores, np.concatenate(pooled.windows))
    assert [clip.path for clip in found.clips] == [clip.path for clip in owners]
    assert [clip.labels for clip in found.clips] == [clip.labels for clip in owners]
    assert found.clips[0].id == f"{clips[0].id}#1"
    assert len({clip.id for clip in found.clips}) == len(owners) > len(clips)
    overall = evaluate(tagger, clips, options=EvaluationOptions(pooling="none", hop_s=0.1)).overall
    assert overall["clips"] == len(owners)
    assert predict_clips(tagger, [Clip(Path("missing.wav"), ("tone",))], pooling="none").scores.size == 0


def test_an_unreadable_clip_is_listed_and_the_others_are_evaluated(tagger, clips, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    bad, missing = Clip(tmp_path / "bad.wav", ("tone",)), Clip(tmp_path / "missing.wav", ("tone",))
    reported, seen = [], []
    found = predict_clips(tagger, [bad, *clips, missing], before=seen.append, on_error=reported.append)
    assert found.clips == tuple(clips)
    assert found.scores.shape == (4, 2)
    assert [clip for clip, _ in found.failed] == [bad, missing]
    assert [why for _, why in found.failed] == reported
    assert "bad.wav" in reported[0]
    assert "missing.wav" in reported[1]
    assert seen == [bad, *clips, missing]
    assert predict_clips(tagger, [bad]).scores.shape == (0, 2)


def test_a_prediction_that_is_nan_is_a_failure(info, clips):
    class Broken:
        def run(self, names, inputs):
            return [np.full((1, 2), np.nan, np.float32), np.zeros((1, 96), np.float32)]

    found = predict_clips(Tagger(Broken(), info), clips[:1])
    assert not found.clips
    assert "0.wav" in found.failed[0][1]


def test_select_clips_by_fold_and_limit(clips):
    assert select_clips(clips) == clips
    assert select_clips(clips, fold=2) == clips[2:]
    with pytest.raises(DataError, match="fold 7: its folds are 0, 1, 2"):
        select_clips(clips, fold=7)
    many = clips * 25
    assert select_clips(many, limit=1000) == many
    assert [many.index(clip, 33 * number) for number, clip in enumerate(select_clips(many, limit=3))] == [
        0,
        33,
        66,
    ]


def test_labels_and_columns_are_checked_first(tagger, ear, clips):
    strange = [*clips, Clip(Path("x.wav"), ("tome",)), Clip(Path("y.wav"), (), unknown=("bell",))]
    with pytest.raises(
        DataError, match="2 labels that the model does not have: 'tome', 'bell'; did you mean 'tone'"
    ):
        evaluate(tagger, strange)
    with pytest.raises(DataError, match="none of the manifest's labels"):
        require_labels(strange, ["dog", "cat"])
    with pytest.raises(DataError, match=r"no column 'city' to group by: its columns are fold, device"):
        evaluate(tagger, clips, options=EvaluationOptions(group_by="city"))
    assert not ear.frames


def test_groups_are_those_of_a_column(clips):
    assert groups_of(clips, "device") == ["a", "a", "a", "b"]
    assert groups_of(clips, "fold") == ["0", "1", "2", "2"]


def scenes(rows=slice(None)) -> tuple[list[str], Predictions]:
    """The golden's toy scores as predictions of a manifest."""
    labels = [f"scene{number}" for number in range(10)]
    clips = [
        Clip(Path(f"{number}.wav"), (labels[own],), 0, {"device": str(device)})
        for number, (own, device) in enumerate(zip(SP4ASC["y"], SP4ASC["devices"], strict=True))
    ]
    return labels, Predictions(tuple(clips[rows]), SP4ASC["probs"][rows])


def test_evaluation_of_the_golden():
    labels, outputs = scenes()
    found = evaluate_predictions(outputs, labels, "single_label", group_by="device")
    assert found.overall["clips"] == 173
    assert found.overall["log_loss_macro"] == pytest.approx(SP4ASC["overall"][0], abs=1e-6)
    assert 100 * found.overall["accuracy_macro"] == pytest.approx(SP4ASC["overall"][1], abs=1e-6)
    losses = [found.by_class[label]["log_loss"] for label in labels]
    np.testing.assert_allclose(losses, SP4ASC["class_logloss"], rtol=0, atol=1e-6)
    for device, loss, right in zip(
        SP4ASC["device_names"], SP4ASC["device_logloss"], SP4ASC["device_acc"], strict=True
    ):
        assert found.by_group[device]["log_loss"] == pytest.approx(loss, abs=1e-6)
        assert 100 * found.by_group[device]["accuracy"] == pytest.approx(right, abs=1e-6)
    assert sum(own["clips"] for own in found.by_group.values()) == 173
    assert found.confusion.sum() == 173
    assert found.reliability.clips.sum() == 173
    assert set(found.overall) >= EXCLUSIVE
    assert "binary_log_loss" not in found.overall


def test_overall_metrics():
    labels, outputs = scenes()
    truth, scores = np.eye(10)[SP4ASC["y"]], SP4ASC["probs"]
    found = evaluate_predictions(outputs, labels, "single_label", threshold=0.3)
    assert found.overall["map_macro"] == metrics.macro(metrics.average_precision(truth, scores))
    assert found.overall["auroc_macro"] == metrics.macro(metrics.auroc(truth, scores))
    assert found.overall["d_prime"] == metrics.d_prime(found.overall["auroc_macro"])
    assert found.overall["map_at_3"] == metrics.map_at_k(truth, scores, 3)
    assert found.overall["map_micro"] == metrics.micro_average_precision(truth, scores)
    assert found.overall["recall_at_threshold_macro"] == metrics.macro(metrics.recall(truth, scores, 0.3))
    error = metrics.expected_calibration_error(truth, scores)
    assert found.overall["expected_calibration_error"] == error
    assert found.by_class["scene3"]["auroc"] == metrics.auroc(truth, scores)[3]
    assert not found.by_group


def test_clips_of_several_labels_have_no_accuracy():
    labels, outputs = scenes()
    two = Clip(Path("two.wav"), ("scene1", "scene2"))
    none = Clip(Path("none.wav"), ())
    for odd in (two, none):
        found = evaluate_predictions(
            Predictions((*outputs.clips[1:], odd), outputs.scores), labels, "multi_label"
        )
        assert not EXCLUSIVE & set(found.overall)
        assert found.confusion is None
        assert found.reliability is None
        assert {"map_macro", "lwlrap", "binary_log_loss"} <= set(found.overall)
        assert not {"accuracy", "log_loss"} & set(found.by_class["scene1"])


def test_metrics_without_a_value_are_left_out():
    labels, outputs = scenes(slice(1))
    found = evaluate_predictions(outputs, labels, "single_label", threshold=0.5)
    assert not {"auroc_macro", "d_prime"} & set(found.overall)
    assert list(found.by_class) == [outputs.clips[0].labels[0]]
    values = [value for own in (found.overall, *found.by_class.values()) for value in own.values()]
    assert np.isfinite(values).all()
    nothing = evaluate_predictions(
        Predictions((), np.zeros((0, 10), np.float32)), labels, "single_label", group_by="device"
    )
    assert nothing.overall == {"clips": 0}
    unlabelled = Predictions((Clip(Path("a.wav"), ()),), outputs.scores)
    assert evaluate_predictions(unlabelled, labels, "single_label").overall == {"clips": 1}


def test_unknown_labels_are_ignored():
    labels, outputs = scenes()
    hidden = [
        Clip(clip.path, (), 0, clip.extra, labelled=False) if number % 2 else clip
        for number, clip in enumerate(outputs.clips)
    ]
    found = evaluate_predictions(Predictions(tuple(hidden), outputs.scores), labels, "single_label")
    known = evaluate_predictions(Predictions(outputs.clips[::2], outputs.scores[::2]), labels, "single_label")
    assert found.overall == {**known.overall, "clips": 173}
    assert found.by_class == known.by_class


def test_evaluate_a_tagger(tagger, clips):
    found = evaluate(tagger, clips, options=EvaluationOptions(group_by="device"))
    assert found.labels == ("tone", "noise")
    assert isinstance(tagger.info, ModelInfo)
    assert found.overall["clips"] == 4
    assert {name: own["clips"] for name, own in found.by_group.items()} == {"a": 3, "b": 1}
    np.testing.assert_array_equal(found.targets, [[1, 0], [0, 1], [1, 0], [0, 1]])


def test_main_metrics_are_those_of_the_task():
    scores = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.8], [0.3, 0.4]], np.float32)
    one_each = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    both = {"map_macro", "auroc_macro", "binary_log_loss"}
    assert main_metrics(one_each, scores, "single_label").keys() == {"accuracy", "log_loss", "map_macro"}
    assert main_metrics(one_each, scores, "multi_label").keys() == {"accuracy", "log_loss"} | both
    some = one_each.copy()
    some[1], some[3] = 1, np.nan
    found = main_metrics(some, scores, "multi_label")
    assert found.keys() == both
    right = np.log([0.9, 0.8, 0.6, 0.7, 0.9, 0.8])
    assert found["binary_log_loss"] == pytest.approx(-right.mean(), abs=1e-6)
    assert found["auroc_macro"] == 1.0
    assert main_metrics(np.zeros((4, 2)), scores, "multi_label").keys() == {"binary_log_loss"}
