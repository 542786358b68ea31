"""Cross-validation evaluates each clip once, and chooses a threshold by negative clips."""

import json

import numpy as np
import pytest
import torch
import toy

from earmark.data.manifest import read_manifest, targets
from earmark.errors import DataError, RecipeError
from earmark.evaluation import metrics
from earmark.evaluation.calibration.data import CalibrationData
from earmark.evaluation.calibration.fit import fit
from earmark.models.checkpoint import load_checkpoint
from earmark.training.cross_validation import (
    cross_validate,
    negative_threshold,
    run_folder,
    score_clips,
    summary,
)
from earmark.training.model_card import model_card
from earmark.training.splits import split_clips


@pytest.mark.slow
def test_its_networks_learn(cv_folder, cross_validated):
    for fold in (1, 2):
        log = (run_folder(cv_folder, fold) / "log.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in log.splitlines()]
        losses = [line["loss"] for line in lines]
        assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
        assert lines[-1]["accuracy"] > 0.95
        assert lines[-1]["map_macro"] > 0.9


@pytest.mark.slow
def test_each_clip_is_evaluated_once_by_a_network_not_trained_on_it(cv_recipe, cv_folder, cross_validated):
    start = 0
    for fold in (1, 2):
        network, info = load_checkpoint(run_folder(cv_folder, fold) / "last.safetensors")
        clips = split_clips(cv_recipe, fold).evaluated
        assert cross_validated.clips[start : start + len(clips)] == clips
        scores = cross_validated.scores[start : start + len(clips)]
        np.testing.assert_array_equal(scores, score_clips(cv_recipe, network, clips))
        start += len(clips)
        received = {clip.path for group in split_clips(cv_recipe, fold).groups for clip in group}
        assert not received & {clip.path for clip in clips}
    assert start == len(cross_validated.clips) == len({clip.path for clip in cross_validated.clips}) == 48
    np.testing.assert_array_equal(cross_validated.targets, targets(cross_validated.clips, info.labels))


@pytest.mark.slow
def test_the_network_to_ship_is_trained_on_all(cv_folder, cross_validated):
    network, info = load_checkpoint(run_folder(cv_folder, None) / "last.safetensors")
    kept = cross_validated.network.state_dict()
    assert all((value == kept[name]).all() for name, value in network.state_dict().items())
    listed = read_manifest(cross_validated.clips[0].path.parent / "clips.csv")
    assert info.provenance["clips"] == sum(clip.extra["license"] != "CC-BY-NC" for clip in listed)
    assert cross_validated.info == info.changed(
        threshold=cross_validated.info.threshold,
        threshold_rule=cross_validated.info.threshold_rule,
        metrics=cross_validated.info.metrics,
    )


@pytest.mark.slow
def test_the_model_info_holds_the_scores(cross_validated):
    found, truth, scores = cross_validated.info.metrics, cross_validated.targets, cross_validated.scores
    assert (found["clips"], found["folds"]) == (48, [1, 2])
    wanted = {
        "accuracy": metrics.accuracy(truth, scores),
        "map_macro": metrics.macro(metrics.average_precision(truth, scores)),
        "auroc_macro": metrics.macro(metrics.auroc(truth, scores)),
        "log_loss": metrics.log_loss(truth, scores),
        "binary_log_loss": metrics.binary_log_loss(truth, scores),
        "recall_at_threshold_macro": metrics.macro(
            metrics.recall(truth, scores, cross_validated.info.threshold)
        ),
    }
    assert found.keys() == wanted.keys() | {"clips", "folds"}
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=5.1e-5), name
    assert found["accuracy"] > 0.95


@pytest.mark.slow
def test_the_threshold_limits_every_kind_of_negative(cv_recipe, cross_validated):
    threshold = cross_validated.info.threshold
    assert 0.3 <= threshold <= 1
    assert {group: len(scores) for group, scores in cross_validated.negatives.items()} == {
        "hum": 5,
        "silence": 5,
    }
    for scores in cross_validated.negatives.values():
        assert np.mean(scores.astype(float) >= threshold) <= 0.1
    clips = read_manifest(cv_recipe.evaluation.negative_manifests[0])
    hums = [clip for clip in clips if clip.extra["kind"] == "hum"]
    highest = score_clips(cv_recipe, cross_validated.network, hums).max(1)
    np.testing.assert_allclose(cross_validated.negatives["hum"], highest, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_complete_runs_are_not_repeated(cv_recipe, cv_folder, cross_validated):
    reported = []
    again = cross_validate(cv_recipe, cv_folder, reported.append)
    assert reported == [{"fold": 1}, {"fold": 2}, {"fold": None}]
    np.testing.assert_array_equal(again.scores, cross_validated.scores)
    assert again.info == cross_validated.info


@pytest.mark.parametrize(
    ("quiet", "threshold"),
    [
        ({}, None),
        ({"hum": [0.1, 0.2], "silence": [0.05]}, 0.3),
        ({"hum": [0.1, 0.2], "silence": [0.614]}, 0.62),
        ({"hum": [0.5], "silence": [0.1]}, 0.51),
        ({"hum": [0.999]}, 1.0),
    ],
)
def test_a_threshold_is_a_round_number_above_what_must_not_pass(clips, quiet, threshold):
    scores = {group: np.array(values, np.float32) for group, values in quiet.items()}
    found = negative_threshold(toy.toy_recipe(clips, evaluation={"max_false_positive_rate": 0.0}), scores)
    assert found == (None if threshold is None else pytest.approx(threshold, abs=1e-9))


def test_a_threshold_lets_the_share_through_that_was_allowed(clips):
    scores = {"hum": np.linspace(0.4, 0.8, 101, dtype=np.float32)}
    recipe = toy.toy_recipe(clips, evaluation={"max_false_positive_rate": 0.1})
    threshold = negative_threshold(recipe, scores)
    assert threshold == pytest.approx(0.76)
    assert (scores["hum"].astype(float) >= threshold).sum() == 10


def test_without_folds_there_is_no_evaluation(clips, tmp_path):
    recipe = toy.toy_recipe(clips, data={"folds": []}, optimizer={"epochs": 1})
    found = cross_validate(recipe, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["all"]
    assert (found.clips, found.targets.shape, found.scores.shape, dict(found.negatives)) == (
        (),
        (0, 2),
        (0, 2),
        {},
    )
    assert (found.info.threshold, found.info.metrics) == (None, {})


@pytest.mark.parametrize("problem", ["labels", "missing", "fold"])
def test_a_mistake_is_found_before_anything_is_trained(clips, tmp_path, problem):
    changes, error, message = {
        "labels": (
            {"evaluation": {"negative_manifests": [str(clips)]}},
            RecipeError,
            "clips without labels only",
        ),
        "missing": (
            {"evaluation": {"negative_manifests": ["none.csv"]}},
            DataError,
            "none.csv: cannot be read",
        ),
        "fold": ({"data": {"folds": [1, 2, 3]}}, DataError, "no clip is in fold 3"),
    }[problem]
    with pytest.raises(error, match=message):
        cross_validate(toy.toy_recipe(clips, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_summary_of_nothing_is_empty(cross_validated):
    empty = np.zeros((0, 2), np.float32)
    assert summary(cross_validated.info, (), empty, empty) == {}
    assert "recall_at_threshold_macro" not in summary(
        cross_validated.info.changed(threshold=None, threshold_rule=""),
        cross_validated.clips,
        cross_validated.targets,
        cross_validated.scores,
    )


def test_a_single_fold_is_a_fixed_split(clips, tmp_path):
    options = {"optimizer": {"epochs": 6, "learning_rate": 2e-2, "ema_decay": 0.0}}
    recipe = toy.toy_recipe(
        clips, data={"folds": [1]}, evaluation={"every_epochs": 1, "keep": "best"}, **options
    )
    cross_validated = cross_validate(recipe, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["fold1"]
    assert {clip.fold for clip in cross_validated.clips} == {1}
    kept = load_checkpoint(tmp_path / "fold1" / "best.safetensors")[0].state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in cross_validated.network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "recall=0.9"])
def test_a_recipe_may_calibrate_its_model(cv_recipe, cv_folder, cross_validated, target):
    table = cv_recipe.evaluation.model_copy(update={"calibration": "shared", "threshold_target": target})
    found = cross_validate(cv_recipe.model_copy(update={"evaluation": table}), cv_folder)
    held_out = CalibrationData.from_clip_scores(
        cross_validated.info.labels, "multi_label", cross_validated.scores, cross_validated.targets
    )
    calibration, info = found.info.calibration, found.info
    assert calibration.slope == fit("shared", held_out).slope, "of the pooled scores of all folds"
    assert calibration.fitted_on == {"sigmoids": "one for all labels", "clips": 48, "folds": "1, 2"}
    folds = np.array([clip.fold for clip in found.clips])
    by_others = fit("shared", held_out.select(folds == 2))
    np.testing.assert_array_equal(found.scores[folds == 1], held_out.select(folds == 1).scores(by_others))
    assert info.metrics["accuracy"] == cross_validated.info.metrics["accuracy"]
    assert info.metrics["binary_log_loss"] == pytest.approx(
        metrics.binary_log_loss(found.targets, found.scores), abs=5.1e-5
    )
    before = info.metrics["calibration"]["before"]["binary_log_loss"]
    assert before == pytest.approx(cross_validated.info.metrics["binary_log_loss"], abs=5.1e-5)
    for name, scores in found.negatives.items():
        assert np.mean(scores.astype(float) >= min(info.thresholds)) <= 0.1
        assert np.argsort(scores).tolist() == np.argsort(cross_validated.negatives[name]).tolist()
    card = model_card(cv_recipe, found)
    assert "## Calibration\n\nScores are probabilities: platt, fitted on held-out clips" in card
    if target is None:
        assert isinstance(info.threshold, float)
        assert "The default threshold is" in card
    else:
        assert len(info.threshold) == 2
        assert info.metrics["calibration"]["target"] == target
        assert "recall_at_threshold_macro" not in info.metrics
        assert f"No label's threshold is below {min(info.threshold):g}" in card


def test_folds_that_cannot_calibrate_are_found_before_anything_is_trained(clips, tmp_path):
    table = clips.with_name("one.csv")
    lines = clips.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(line for line in lines if ",noise,2" not in line), encoding="utf-8")
    recipe = toy.toy_recipe(table, evaluation={"calibration": "platt"})
    with pytest.raises(DataError):
        cross_validate(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
