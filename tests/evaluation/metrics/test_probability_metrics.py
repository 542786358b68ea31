"""Accuracy, log loss and calibration, by class and where not all is known, against independent sums."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as oracle

from earmark.evaluation import metrics

SP4ASC = np.load(Path(__file__).parents[2] / "golden" / "sp4asc_metrics.npz")
PER_CLIP = ["accuracy", "log_loss", "binary_log_loss", "map_at_k", "expected_calibration_error"]
PER_CLIP += ["brier", "binary_brier", "binary_expected_calibration_error"]
PER_CLASS = ["class_accuracy", "class_log_loss", "class_calibration_error"]


def is_single_label(seed: int, clips: int = 80, classes: int = 4):
    generator = np.random.default_rng(seed)
    owner = generator.integers(0, classes, clips)
    logits = 2 * generator.standard_normal((clips, classes)) + 1.5 * np.eye(classes)[owner]
    scores = np.exp(logits)
    return owner, np.eye(classes)[owner], scores / scores.sum(1, keepdims=True)


def test_dcase_metrics_of_the_golden():
    targets, scores = np.eye(10)[SP4ASC["y"]], SP4ASC["probs"]
    losses, right = metrics.class_log_loss(targets, scores), metrics.class_accuracy(targets, scores)
    np.testing.assert_allclose(losses, SP4ASC["class_logloss"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(100 * right, SP4ASC["class_acc"], rtol=0, atol=1e-6)
    overall = metrics.macro(losses), 100 * metrics.macro(right)
    np.testing.assert_allclose(overall, SP4ASC["overall"], rtol=0, atol=1e-6)
    for device, loss, share in zip(
        SP4ASC["device_names"], SP4ASC["device_logloss"], SP4ASC["device_acc"], strict=True
    ):
        own = SP4ASC["devices"] == device
        assert metrics.log_loss(targets[own], scores[own]) == pytest.approx(loss, abs=1e-6)
        assert 100 * metrics.accuracy(targets[own], scores[own]) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_macro_accuracy_and_log_loss_are_the_oracles(seed):
    owner, targets, scores = is_single_label(seed)
    right = metrics.class_accuracy(targets, scores)
    wanted = oracle.recall_score(owner, scores.argmax(1), average=None)
    np.testing.assert_allclose(right, wanted, rtol=0, atol=1e-12)
    wanted = oracle.balanced_accuracy_score(owner, scores.argmax(1))
    assert metrics.macro(right) == pytest.approx(wanted, abs=1e-12)
    wanted = [oracle.log_loss(owner[owner == c], scores[owner == c], labels=range(4)) for c in range(4)]
    np.testing.assert_allclose(metrics.class_log_loss(targets, scores), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_brier_scores_are_the_oracles(seed):
    owner, targets, scores = is_single_label(seed)
    wanted = sum(oracle.brier_score_loss(targets[:, c], scores[:, c]) for c in range(4))
    assert metrics.brier(targets, scores) == pytest.approx(wanted, abs=1e-12)
    several = np.random.default_rng(seed).integers(0, 2, (80, 4))
    wanted = oracle.brier_score_loss(several.ravel(), scores.ravel())
    assert metrics.binary_brier(several, scores) == pytest.approx(wanted, abs=1e-12)
    assert metrics.brier(targets, np.eye(4)[(owner + 1) % 4]) == 2


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_summed_bin_by_bin(seed, bins):
    owner, targets, scores = is_single_label(seed)
    confidence, right = scores.max(1), scores.argmax(1) == owner
    edges = np.linspace(0, 1, bins + 1)
    error = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.expected_calibration_error(targets, scores, bins) == pytest.approx(error, abs=1e-12)
    assert error > 0.01


def test_calibration_error_of_pairs_and_classes():
    _, _, scores = is_single_label(0)
    targets = np.random.default_rng(0).integers(0, 2, (80, 4)).astype(float)
    targets[::7, 1] = np.nan
    by_class = metrics.class_calibration_error(targets, scores)
    for c in range(4):
        known = ~np.isnan(targets[:, c])
        place, error = np.ceil(15 * scores[known, c]), 0.0
        for bin_number in range(1, 16):
            inside = place == bin_number
            if inside.any():
                own = targets[known, c][inside].mean() - scores[known, c][inside].mean()
                error += inside.mean() * abs(own)
        assert by_class[c] == pytest.approx(error, abs=1e-12)
    pairs = ~np.isnan(targets)
    column = metrics.class_calibration_error(targets[pairs][:, None], scores[pairs][:, None])
    assert metrics.binary_expected_calibration_error(targets, scores) == pytest.approx(column[0], abs=1e-12)
    assert metrics.binary_reliability(targets, scores).clips.sum() == pairs.sum()


def test_bins_hold_their_upper_edge():
    scores = [[0.0, 0.0], [0.5, 0.1], [0.51, 0.2], [1.0, 0.0]]
    found = metrics.reliability([[1, 0], [0, 1], [1, 0], [1, 0]], scores, bins=4)
    assert found.clips.tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(found.confidence, [0, 0.5, 0.51, 1])
    np.testing.assert_array_equal(found.accuracy, [1, 0, 1, 1])
    assert metrics.expected_calibration_error([[1, 0]], [[1.0, 0.0]]) == 0


@pytest.mark.parametrize("name", PER_CLIP + PER_CLASS)
def test_unlabelled_clips_are_ignored(name):
    _, targets, scores = is_single_label(5)
    metric = getattr(metrics, name)
    hidden = np.where(np.arange(80)[:, None] % 3 == 0, np.nan, targets)
    known = np.arange(80) % 3 != 0
    np.testing.assert_allclose(metric(hidden, scores), metric(targets[known], scores[known]), atol=1e-12)
    assert not np.allclose(metric(hidden, scores), metric(targets, scores))


@pytest.mark.parametrize("name", PER_CLIP + PER_CLASS)
def test_nothing_known_is_not_a_number(name):
    assert np.isnan(getattr(metrics, name)(np.full((3, 2), np.nan), np.full((3, 2), 0.5))).all()


def test_unknown_targets_are_ignored():
    targets, scores = [[np.nan, 1, 0], [np.nan, 1, 0]], [[0.9, 0.8, 0.1], [0.1, 0.8, 0.7]]
    assert metrics.accuracy(targets, scores) == 1, "the target of the first clip is unknown"
    assert metrics.confusion(targets, scores).tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(metrics.recall(targets, scores, 0.5), [np.nan, 1, np.nan])
    wanted = -np.log([0.8, 0.8, 0.9, 0.3]).mean()
    assert metrics.binary_log_loss(targets, scores) == pytest.approx(wanted, abs=1e-12)
