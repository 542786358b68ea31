"""Fits against independent implementations, and their metrics on other clips."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.evaluation import metrics
from earmark.evaluation.calibration.calibrate import calibrate, calibration_folds, require_classes_in_folds
from earmark.evaluation.calibration.data import CalibrationData, require_classes
from earmark.evaluation.calibration.fit import fit
from earmark.evaluation.calibration.report import (
    markdown_section,
    summary,
    warnings,
    with_calibration,
    write_calibration,
)
from earmark.evaluation.calibration.thresholds import ThresholdTarget, choose_thresholds
from earmark.model_file.calibration import Isotonic, Platt, Temperature

LABELS = ("dog", "rain", "bell")


def several(clips: int = 300, seed: int = 0, slope: float = 0.4, unknown: float = 0.0) -> CalibrationData:
    """Labels that co-occur, from a model that is too sure, and does not know how frequent a class is."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1, 3, (clips, 3))
    truth = (generator.random((clips, 3)) < expit(slope * logits + [-0.5, 0, 1])).astype(np.float32)
    truth[generator.random((clips, 3)) < unknown] = np.nan
    return CalibrationData.from_clip_scores(LABELS, "multi_label", expit(logits).astype(np.float32), truth)


def exclusive(clips: int = 300, seed: int = 0, windows: int = 1) -> CalibrationData:
    """One class a clip, from a model whose logits are 2.5 times too large."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1, (clips, 3))
    owner = [generator.choice(3, p=row) for row in softmax(logits, 1)]
    received = 2.5 * (logits[:, None] + 0.5 * generator.normal(0, 1, (clips, windows, 3)) * (windows > 1))
    scores = tuple(softmax(received, -1).astype(np.float32))
    return CalibrationData(LABELS, "single_label", scores, np.eye(3, dtype=np.float32)[owner])


def softened(positive):
    """Platt's own words: (N+ + 1) / (N+ + 2) and 1 / (N- + 2)."""
    return np.where(positive, (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2))


@pytest.mark.parametrize("held_out", [several(), several(40, 3), several(200, 1, unknown=0.3)])
def test_platt_is_logistic_regression_without_penalty(held_out):
    found = fit("platt", held_out)
    for c in range(3):
        known = ~np.isnan(held_out.targets[:, c])
        places = logit(held_out.scores()[known, c].astype(float))
        positive = held_out.targets[known, c] > 0
        wanted = softened(positive)
        oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000)
        rows = np.concatenate([places, places])[:, None]
        truth = np.repeat([1, 0], len(places))
        oracle.fit(rows, truth, np.concatenate([wanted, 1 - wanted]))
        np.testing.assert_allclose(found.slope[c], oracle.coef_[0, 0], rtol=1e-5)
        np.testing.assert_allclose(found.intercept[c], oracle.intercept_[0], rtol=1e-5, atol=1e-6)
        other = _SigmoidCalibration().fit(places, positive)
        predicted = found.probabilities(np.stack([places] * 3, 1))[:, c]
        np.testing.assert_allclose(predicted, other.predict(places), atol=1e-4)


def test_shared_sigmoid():
    held_out = several(100, unknown=0.2)
    found = fit("shared", held_out)
    known = ~np.isnan(held_out.targets)
    places = logit(held_out.scores().astype(float))
    wanted = np.concatenate([softened(held_out.targets[known[:, c], c] > 0) for c in range(3)])
    rows = np.concatenate([places[known[:, c], c] for c in range(3)])
    oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000)
    weights = np.concatenate([wanted, 1 - wanted])
    oracle.fit(np.tile(rows, 2)[:, None], np.repeat([1, 0], len(rows)), weights)
    np.testing.assert_allclose(found.slope, [oracle.coef_[0, 0]] * 3, rtol=1e-5)
    np.testing.assert_allclose(found.intercept, [oracle.intercept_[0]] * 3, rtol=1e-5)


@pytest.mark.parametrize("held_out", [several(), several(40, 3), several(200, 1, unknown=0.3)])
def test_isotonic_is_scikit_learns(held_out):
    found = fit("isotonic", held_out)
    for c in range(3):
        known = ~np.isnan(held_out.targets[:, c])
        places = logit(held_out.scores()[known, c].astype(float))
        oracle = IsotonicRegression(out_of_bounds="clip")
        oracle.fit(places, softened(held_out.targets[known, c] > 0))
        at = np.linspace(-15, 15, 1001)
        predicted = found.probabilities(np.stack([at] * 3, 1))[:, c]
        np.testing.assert_allclose(predicted, oracle.predict(at), atol=1e-6)


def test_equal_scores_share_a_point():
    scores = np.repeat(np.float32([[0.2], [0.5], [0.8]]), 4, 0)
    truth = np.float32([0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0])[:, None]
    found = fit("isotonic", CalibrationData.from_clip_scores(("dog",), "multi_label", scores, truth))
    oracle = IsotonicRegression().fit(scores[:, 0], softened(truth[:, 0] > 0))
    np.testing.assert_allclose(found.levels[0], oracle.predict([0.2, 0.5, 0.8]), atol=1e-7)


@pytest.mark.parametrize("windows", [1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_a_temperature_has_the_least_log_loss(seed, windows):
    held_out = exclusive(seed=seed, windows=windows)
    logs = np.log(np.stack(held_out.windows).astype(float))  # (clip, window, class)
    count = len(logs)
    wanted = (count * held_out.targets + 1 / 3) / (count + 1)  # one further clip of all classes alike

    def loss(temperature):
        shares = np.exp(log_softmax(logs / temperature, -1)).mean(1)
        return -(wanted * np.log(shares)).sum(1).mean()

    best = minimize_scalar(loss, bounds=(0.05, 50), method="bounded", options={"xatol": 1e-10})
    found = fit("temperature", held_out)
    assert found.temperature == pytest.approx(best.x, rel=1e-5)
    assert found.temperature > 1.5


def test_the_temperature_of_perfect_scores_is_finite():
    truth = np.eye(3, dtype=np.float32)[np.arange(30) % 3]
    scores = (0.1 + 0.7 * truth).astype(np.float32)
    found = fit("temperature", CalibrationData.from_clip_scores(LABELS, "single_label", scores, truth))
    surest = found.probabilities(np.log(scores)).max(1)
    np.testing.assert_allclose(surest, 1 - 2 / 3 / 31, atol=1e-4)


@pytest.mark.parametrize("method", ["platt", "shared", "isotonic"])
def test_windows_and_clips_are_calibrated_alike(method):
    generator = np.random.default_rng(0)
    plain = several(100)
    windows = tuple(
        np.sort(generator.random((1 + number % 3, 3)), 0).astype(np.float32)[::-1] * row
        for number, row in enumerate(plain.scores())
    )
    held_out = CalibrationData(LABELS, "multi_label", windows, plain.targets)
    found = fit(method, held_out)
    assert found == fit(
        method, CalibrationData.from_clip_scores(LABELS, "multi_label", held_out.scores(), plain.targets)
    )
    each = np.stack([found.probabilities(logit(own.astype(float))).max(0) for own in windows])
    np.testing.assert_allclose(held_out.scores(found), each, atol=1e-6)


def test_unknown_targets_are_not_fitted():
    held_out = several(100)
    more = CalibrationData.from_clip_scores(
        LABELS,
        "multi_label",
        np.concatenate([held_out.scores(), np.full((50, 3), 0.9, np.float32)]),
        np.concatenate([held_out.targets, np.full((50, 3), np.nan, np.float32)]),
    )
    for method in ("platt", "isotonic", "shared"):
        assert fit(method, more) == fit(method, held_out)


def test_a_negative_slope_becomes_zero(info):
    held_out = several(200)
    turned = CalibrationData.from_clip_scores(LABELS, "multi_label", 1 - held_out.scores(), held_out.targets)
    for method in ("platt", "isotonic"):
        found = fit(method, turned)
        share = np.mean(softened(turned.targets[:, 0] > 0))
        np.testing.assert_allclose(turned.scores(found)[:, 0], share, atol=0.02)
    found = calibrate(turned, "platt", folds=np.arange(200) % 5)
    assert found.calibration.slope == (0, 0, 0)
    made = with_calibration(info.changed(labels=LABELS, threshold=0.5), found)
    assert made.threshold == (1, 1, 1), "a constant score is never detected"
    assert any(
        "do not predict dog, rain, bell" in reported
        for reported in warnings(info.changed(labels=LABELS), found)
    )


def test_chance_is_refused_for_a_temperature():
    held_out = exclusive(300)
    turned = CalibrationData.from_clip_scores(
        LABELS, "single_label", held_out.scores()[:, ::-1], held_out.targets
    )
    with pytest.raises(DataError, match="no better than by chance"):
        fit("temperature", turned)


def test_missing_classes_are_refused():
    held_out = several(50)
    truth = held_out.targets.copy()
    truth[:, 1:] = 0
    with pytest.raises(DataError, match=r"no clip has 2 of the 3 labels \('rain', 'bell'\)"):
        fit("platt", CalibrationData.from_clip_scores(LABELS, "multi_label", held_out.scores(), truth))
    truth[:, 1:] = [1, np.nan]
    with pytest.raises(DataError):
        require_classes(LABELS, truth)
    truth[:, 2] = held_out.targets[:, 2]
    with pytest.raises(DataError, match=r"every clip has 1 of the 3 labels \('rain'\)"):
        require_classes(LABELS, truth)
    alone = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 2]]
    with pytest.raises(DataError, match=r"without fold 2, no clip has .*'rain'"):
        require_classes_in_folds(LABELS, alone, np.array([1, 3, 2, 2, 1, 3]))


def test_methods_are_for_a_task():
    with pytest.raises(DataError, match="'temperature' does not calibrate a multi_label"):
        fit("temperature", several(50))
    with pytest.raises(DataError):
        fit("isotonic", exclusive(50))
    two = exclusive(50)
    two.targets[0] = 1
    with pytest.raises(DataError):
        fit("temperature", two)


@pytest.mark.parametrize("method", ["platt", "isotonic", "shared"])
def test_calibration_improves_probabilities(method):
    found = calibrate(several(2000), method, folds=np.arange(2000) % 5).metrics
    assert found.after["binary_log_loss"] < 0.85 * found.before["binary_log_loss"]
    assert found.after["binary_brier"] < found.before["binary_brier"]
    assert found.after["binary_expected_calibration_error"] < 0.03
    assert found.before["binary_expected_calibration_error"] > 0.05


def test_cross_fitting():
    held_out, parts, target = several(60, unknown=0.1), np.arange(60) % 3, ThresholdTarget("recall", 0.8)
    found = calibrate(held_out, "isotonic", target, folds=parts)
    limits = np.zeros((60, 3))
    for part in range(3):
        others = held_out.select(parts != part)
        by_others = fit("isotonic", others)
        own = held_out.select(parts == part).scores(by_others)
        np.testing.assert_array_equal(found.metrics.scores[parts == part], own)
        limits[parts == part] = choose_thresholds(target, others.targets, others.scores(by_others)).values
    assert found.calibration == fit("isotonic", held_out)
    truth = held_out.targets
    assert found.metrics.after["binary_log_loss"] == metrics.binary_log_loss(truth, found.metrics.scores)
    assert found.metrics.before["binary_log_loss"] == metrics.binary_log_loss(truth, held_out.scores())
    reached = metrics.recall(truth, found.metrics.scores, limits)
    np.testing.assert_allclose([found.metrics.decisions[label]["recall"] for label in LABELS], reached)
    assert found.metrics.decisions[""]["recall"] == pytest.approx(reached.mean())


def test_measure_on_other_clips():
    held_out, others = several(100), several(80, 5)
    found = calibrate(held_out, "platt", ThresholdTarget("f1"), validation=others)
    predicted = others.scores(found.calibration)
    np.testing.assert_array_equal(found.metrics.scores, predicted)
    assert "80 clips" in found.metrics.measured_on
    wanted = metrics.f1(others.targets, predicted, found.thresholds.values)
    assert found.metrics.decisions[""]["f1"] == pytest.approx(wanted.mean())


def test_calibration_folds():
    clips = [Clip(Path(f"{number}.wav"), (LABELS[number % 3],), number % 4) for number in range(40)]
    np.testing.assert_array_equal(calibration_folds(clips), [clip.fold for clip in clips])
    alike = calibration_folds([Clip(clip.path, clip.labels, 1) for clip in clips])
    assert np.bincount(alike).tolist() == [0, 8, 8, 8, 8, 8]
    with pytest.raises(DataError):
        calibration_folds([Clip(Path("a.wav"), (), 1)] * 3)


@pytest.fixture
def found():
    held_out = several(120, unknown=0.1)
    return calibrate(held_out, None, ThresholdTarget("precision", 0.9), folds=np.arange(120) % 4)


def test_calibration_summary(found):
    lines = summary(found).splitlines()
    assert lines[0].split() == ["before", "after"]
    reported = {line.split()[0]: line.split()[1:] for line in lines[1:6] if line}
    loss = found.metrics.before["binary_log_loss"], found.metrics.after["binary_log_loss"]
    assert reported["binary_log_loss"] == [f"{value:.4f}" for value in loss]
    assert "measured on 120 clips in 4 folds, each calibrated by the others" in lines
    assert lines[-1].startswith("thresholds for precision=0.9: precision 0.")


def test_model_info_gets_the_calibration(found, info):
    known = info.changed(labels=LABELS, card="# toy\n\n## Calibration\n\nold\n\n## Labels\n\nx\n")
    made = with_calibration(known, found)
    assert made.calibration == found.calibration
    assert made.threshold == tuple(found.thresholds.values)
    assert made.metrics["calibration"]["after"] == found.metrics.after
    assert made.metrics["accuracy"] == info.metrics["accuracy"]
    assert made.card == f"# toy\n\n## Labels\n\nx\n\n{markdown_section(found)}"
    assert with_calibration(made, found).card == made.card
    assert made.from_json(made.to_json()) == made


def test_thresholds_are_converted_to_probabilities(info):
    held_out = several(100)
    known = info.changed(labels=LABELS, threshold=0.7)
    for method in ("platt", "isotonic"):
        found = calibrate(held_out, method, folds=np.arange(100) % 4)
        made = with_calibration(known, found)
        limits = found.calibration.probabilities(np.full(3, logit(0.7)))
        np.testing.assert_allclose(made.threshold, limits, atol=1e-6)
        if method == "platt":
            reached = held_out.scores(found.calibration) >= np.array(made.threshold)
            np.testing.assert_array_equal(reached, held_out.scores() >= 0.7)
        assert not any("dropped" in reported for reported in warnings(known, found))
        assert with_calibration(made, found).threshold is None, "it was of another calibration"
        assert any("dropped" in reported for reported in warnings(made, found))


def test_calibration_files(found, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    files = write_calibration(found, {"model": "toy"}, tmp_path / "report")
    assert [path.name for path in files] == ["calibration.json", "reliability.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    reported = json.loads(files[0].read_text(encoding="utf-8"))
    assert (reported["model"], reported["target"], reported["missed"]) == (
        "toy",
        "precision=0.9",
        list(found.missed),
    )
    assert reported["before"] == found.metrics.before
    assert reported["thresholds"] == dict(zip(LABELS, found.thresholds.values.tolist(), strict=True))
    assert reported["calibration"]["method"] == "platt"
    assert (
        sum(reported["reliability"]["after"]["clips"]) == (~np.isnan(several(120, unknown=0.1).targets)).sum()
    )


def test_calibration_types():
    assert isinstance(fit("platt", several(50)), Platt)
    assert isinstance(fit("shared", several(50)), Platt)
    assert isinstance(fit("isotonic", several(50)), Isotonic)
    assert isinstance(fit("temperature", exclusive(50)), Temperature)
