"""Metrics against scikit-learn and the numbers of the reference programs."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from earmark.evaluation import metrics

GOLDEN = Path(__file__).parents[2] / "golden"


def tables(seed: int, ties: bool = False, clips: int = 60, classes: int = 5):
    """Drawn targets, every class with and without clips, and scores in (0, 1) that know a little of them."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((clips, classes)) < 0.3).astype(np.float32)
    targets[0], targets[1] = 1, 0
    scores = 1 / (1 + np.exp(-generator.standard_normal((clips, classes)) - targets))
    return targets, (np.round(scores * 4) / 4 if ties else scores).astype(np.float32)


def is_single_label(seed: int, clips: int = 60, classes: int = 5):
    generator = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(classes), generator.integers(0, classes, clips - classes)])
    targets = np.eye(classes, dtype=np.float32)[owner]
    return owner, targets, (generator.random((clips, classes)) + 0.4 * targets + 0.01) / 1.5


CASES = [(seed, ties) for seed in range(3) for ties in (False, True)]


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_average_precision_is_the_oracles(seed, ties):
    targets, scores = tables(seed, ties)
    wanted = oracle.average_precision_score(targets, scores, average=None)
    np.testing.assert_allclose(metrics.average_precision(targets, scores), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_auroc_is_the_oracles(seed, ties):
    targets, scores = tables(seed, ties)
    wanted = oracle.roc_auc_score(targets, scores, average=None)
    np.testing.assert_allclose(metrics.auroc(targets, scores), wanted, rtol=0, atol=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=12))
def test_few_clips_with_ties_are_the_oracles_too(rows):
    targets, scores = (np.array(column, float)[:, None] for column in zip(*rows, strict=True))
    if not targets.any():
        assert np.isnan(metrics.average_precision(targets, scores)).all()
    else:
        wanted = oracle.average_precision_score(targets, scores)
        assert metrics.average_precision(targets, scores)[0] == pytest.approx(wanted, abs=1e-12)
    if targets.all() or not targets.any():
        assert np.isnan(metrics.auroc(targets, scores)).all()
    else:
        wanted = oracle.roc_auc_score(targets, scores)
        assert metrics.auroc(targets, scores)[0] == pytest.approx(wanted, abs=1e-12)


def test_the_order_of_tied_clips_does_not_matter():
    targets, scores = tables(0, ties=True)
    order = np.random.default_rng(1).permutation(len(targets))
    for metric in (metrics.average_precision, metrics.auroc):
        np.testing.assert_array_equal(metric(targets[order], scores[order]), metric(targets, scores))


def test_a_class_without_clips_has_no_value():
    targets, scores = tables(0)
    targets[:, 2] = 0
    kept = [0, 1, 3, 4]
    for metric in (metrics.average_precision, metrics.auroc):
        values = metric(targets, scores)
        assert np.isnan(values[2])
        np.testing.assert_array_equal(values[kept], metric(targets[:, kept], scores[:, kept]))
        assert metrics.macro(values) == pytest.approx(values[kept].mean(), abs=1e-15)


def test_a_class_of_all_clips_has_no_auroc():
    targets, scores = tables(0)
    targets[:, 1] = 1
    assert np.isnan(metrics.auroc(targets, scores)).tolist() == [False, True, False, False, False]
    assert metrics.average_precision(targets, scores)[1] == 1


def test_the_mean_of_nothing_is_not_a_number():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.macro([np.nan, np.nan]))
        assert np.isnan(metrics.macro([]))


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_and_confusion_are_the_oracles(seed):
    owner, targets, scores = is_single_label(seed)
    named = scores.argmax(1)
    assert metrics.accuracy(targets, scores) == pytest.approx(oracle.accuracy_score(owner, named), abs=1e-15)
    table = metrics.confusion(targets, scores)
    np.testing.assert_array_equal(table, oracle.confusion_matrix(owner, named, labels=range(5)))
    assert 0 < metrics.accuracy(targets, scores) < 1
    assert table.dtype == np.int64


def test_any_of_several_labels_is_correct():
    targets = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    scores = [[0.1, 0.9, 0.2], [0.1, 0.2, 0.9], [0.9, 0.1, 0.1]]
    assert metrics.accuracy(targets, scores) == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_log_loss_is_the_oracles(seed):
    owner, targets, scores = is_single_label(seed)
    wanted = oracle.log_loss(owner, scores / scores.sum(1, keepdims=True), labels=range(5))
    assert metrics.log_loss(targets, scores) == pytest.approx(wanted, abs=1e-12)
    assert metrics.log_loss(targets, 0.1 * scores) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_binary_log_loss_is_the_oracles(seed):
    targets, scores = tables(seed)
    wanted = [oracle.log_loss(targets[:, c], scores[:, c].astype(float), labels=[0, 1]) for c in range(5)]
    assert metrics.binary_log_loss(targets, scores) == pytest.approx(np.mean(wanted), abs=1e-12)


def test_the_log_loss_of_a_certain_mistake_is_finite():
    targets, scores = [[1, 0]], [[0, 1]]
    assert metrics.binary_log_loss(targets, scores) == pytest.approx(-np.log(1e-7), rel=1e-6)
    assert metrics.log_loss(targets, scores) == pytest.approx(-np.log(1e-7), rel=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 1.0])
def test_recall_is_the_oracles(threshold):
    targets, scores = tables(3, ties=True)
    wanted = oracle.recall_score(targets, scores >= threshold, average=None)
    np.testing.assert_allclose(metrics.recall(targets, scores, threshold), wanted, rtol=0, atol=1e-15)


def test_recall_of_a_class_without_clips_is_not_a_number():
    np.testing.assert_array_equal(metrics.recall([[1, 0], [1, 0]], [[0.5, 1], [0.4, 1]], 0.5), [0.5, np.nan])


@given(
    st.lists(st.lists(st.integers(0, 20), min_size=2, max_size=2), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.005, 0.1, 0.25, 0.5, 0.9]),
)
def test_the_negative_threshold_is_the_lowest(rows, share):
    scores = np.array(rows) / 20
    threshold = metrics.negative_threshold(scores, share)
    highest = scores.max(1)
    assert np.mean(highest >= threshold) <= share
    lower = highest[highest < threshold].max()  # there is one: a share below 1 lets not all through
    assert threshold == np.nextafter(lower, 2)
    assert np.mean(highest >= lower) > share


def test_the_negative_threshold_of_a_full_share():
    assert metrics.negative_threshold([[0.5], [0.7]], 1.0) == 0.0


@pytest.mark.parametrize(
    ("targets", "scores"),
    [([[1, 0]], [[1, 0, 0]]), ([1, 0], [1, 0]), (np.zeros((0, 3)), np.zeros((0, 3))), ([[1]], [[1], [0]])],
)
@pytest.mark.parametrize(
    "metric",
    [
        "average_precision",
        "auroc",
        "accuracy",
        "binary_log_loss",
        "log_loss",
        "confusion",
        "lwlrap",
        "map_at_k",
        "class_accuracy",
        "class_log_loss",
        "micro_average_precision",
        "expected_calibration_error",
    ],
)
def test_different_shapes_are_refused(metric, targets, scores):
    with pytest.raises(ValueError, match="must have the same shape"):
        getattr(metrics, metric)(targets, scores)


class TestEfficientAT:
    arrays = np.load(GOLDEN / "metrics_toy.npz")
    means = json.loads((GOLDEN / "metrics_toy.json").read_text())

    def test_metrics_of_the_golden(self):
        targets, scores = self.arrays["targets"], self.arrays["scores"]
        for metric, name, mean in ((metrics.average_precision, "ap", "mAP"), (metrics.auroc, "roc", "ROC")):
            values = metric(targets, scores)
            np.testing.assert_allclose(values, self.arrays[name], rtol=0, atol=1e-9)
            np.testing.assert_allclose(values, self.means[name], rtol=0, atol=1e-9)
            assert metrics.macro(values) == pytest.approx(self.means[mean], abs=1e-9)

    def test_masked_metrics_of_the_golden(self):
        targets = np.where(self.arrays["mask"] > 0, self.arrays["targets"], np.nan)
        for metric, name in ((metrics.average_precision, "ap_masked"), (metrics.auroc, "roc_masked")):
            values = metric(targets, self.arrays["scores"])
            np.testing.assert_allclose(values, self.arrays[name], rtol=0, atol=1e-9)


def test_audax_metrics_of_the_golden():
    golden = np.load(GOLDEN / "audax_toy.npz")
    targets, scores = golden["metrics/target"], golden["metrics/scores"]
    precision, auroc = metrics.average_precision(targets, scores), metrics.auroc(targets, scores)
    np.testing.assert_allclose(precision, golden["metrics/AP"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(auroc, golden["metrics/AUC"], rtol=0, atol=1e-9)
    means = [metrics.macro(precision), metrics.macro(auroc), metrics.d_prime(metrics.macro(auroc))]
    np.testing.assert_allclose(means, golden["metrics/mAP_mAUC_dprime"], rtol=0, atol=1e-9)
