"""Metrics of order against scikit-learn, SciPy and the numbers of the reference programs."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as oracle

from earmark.evaluation import metrics

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "sound_clf_metrics.npz")


def tables(seed: int, clips: int = 60, classes: int = 5):
    generator = np.random.default_rng(seed)
    targets = (generator.random((clips, classes)) < 0.4).astype(float)
    targets[0] = 0
    return targets, generator.random((clips, classes)) + 0.3 * targets


def unknown(targets: np.ndarray, seed: int = 9) -> np.ndarray:
    """The same with a third of the targets unknown, and all of those of a few clips."""
    hidden = np.random.default_rng(seed).random(targets.shape) < 1 / 3
    hidden[5:8] = True
    return np.where(hidden, np.nan, targets)


@pytest.mark.parametrize("seed", range(3))
def test_lwlrap_is_the_oracles(seed):
    targets, scores = tables(seed)
    counts, labelled = targets.sum(1), targets.any(1)
    wanted = oracle.label_ranking_average_precision_score(
        targets[labelled], scores[labelled], sample_weight=counts[labelled]
    )
    assert metrics.lwlrap(targets, scores) == pytest.approx(wanted, abs=1e-12)


def test_lwlrap_is_the_references():
    found = metrics.label_ranking(GOLDEN["lwlrap/truth"], GOLDEN["lwlrap/scores"])
    assert found.lwlrap == pytest.approx(float(GOLDEN["lwlrap/overall"]), abs=1e-9)
    np.testing.assert_allclose(found.by_class, GOLDEN["lwlrap/per_class"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.by_class @ GOLDEN["lwlrap/weight"], found.lwlrap, rtol=0, atol=1e-9)
    tied = metrics.lwlrap(GOLDEN["lwlrap/tie_truth"], GOLDEN["lwlrap/tie_scores"])
    assert tied == pytest.approx(float(GOLDEN["lwlrap/tie_overall"]), abs=1e-9)
    tied = metrics.lwlrap(GOLDEN["lwlrap/tie_truth"][:, ::-1], GOLDEN["lwlrap/tie_scores"][:, ::-1])
    assert tied != pytest.approx(float(GOLDEN["lwlrap/tie_overall"]), abs=1e-3), "it does depend on ties"


def test_lwlrap_ranks_known_classes_only():
    targets, scores = unknown(tables(4)[0]), tables(4)[1]
    precisions = []
    for truth, values in zip(targets, scores, strict=True):
        known = ~np.isnan(truth)
        for label in np.flatnonzero(truth == 1):
            above = known & (values >= values[label])
            precisions.append(truth[above].sum() / above.sum())
    assert metrics.lwlrap(targets, scores) == pytest.approx(np.mean(precisions), abs=1e-12)


def test_nothing_has_no_lwlrap():
    found = metrics.label_ranking(np.zeros((2, 3)), np.ones((2, 3)))
    assert np.isnan([found.lwlrap, *found.by_class]).all()
    by_class = metrics.label_ranking([[1, 0], [1, 0]], [[1, 0], [0, 1]]).by_class
    np.testing.assert_array_equal(by_class, [0.75, np.nan])


def test_map_at_3_is_the_references():
    targets, scores = np.eye(41)[GOLDEN["map3/labels"]], GOLDEN["map3/probas"]
    assert metrics.map_at_k(targets, scores) == pytest.approx(float(GOLDEN["map3/map3"]), abs=1e-9)
    assert metrics.accuracy(targets, scores) == pytest.approx(float(GOLDEN["map3/acc"]), abs=1e-9)
    each = [metrics.map_at_k(*pair) for pair in zip(targets[:, None], scores[:, None], strict=True)]
    np.testing.assert_allclose(each, GOLDEN["map3/ap_each"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_map_at_k_is_one_over_the_rank(k):
    owner = np.random.default_rng(0).integers(0, 5, 60)
    scores = tables(1)[1]
    ranks = [1 + (row > row[own]).sum() for row, own in zip(scores, owner, strict=True)]
    wanted = np.mean([1 / rank if rank <= k else 0 for rank in ranks])
    assert metrics.map_at_k(np.eye(5)[owner], scores, k) == pytest.approx(wanted, abs=1e-12)
    assert metrics.map_at_k(np.eye(5)[owner], scores, 1) == metrics.accuracy(np.eye(5)[owner], scores)


@pytest.mark.parametrize("seed", range(3))
def test_micro_average_precision_is_the_oracles(seed):
    targets, scores = tables(seed)
    wanted = oracle.average_precision_score(targets, scores, average="micro")
    assert metrics.micro_average_precision(targets, scores) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("value", [0.02, 0.5, 0.7, 0.9718, 0.999])
def test_d_prime_is_the_oracles(value):
    assert metrics.d_prime(value) == pytest.approx(np.sqrt(2) * norm.ppf(value), abs=1e-9)


def test_d_prime_at_its_ends():
    assert [metrics.d_prime(value) for value in (0.0, 1.0)] == [-np.inf, np.inf]
    assert np.isnan(metrics.d_prime(float("nan")))


@pytest.mark.parametrize("name", ["average_precision", "auroc"])
def test_unknown_targets_are_ignored_by_class(name):
    targets, scores = unknown(tables(2)[0]), tables(2)[1]
    known = ~np.isnan(targets)
    score = {"average_precision": oracle.average_precision_score, "auroc": oracle.roc_auc_score}[name]
    wanted = [score(targets[known[:, c], c], scores[known[:, c], c]) for c in range(5)]
    np.testing.assert_allclose(getattr(metrics, name)(targets, scores), wanted, rtol=0, atol=1e-12)
    wanted = oracle.average_precision_score(targets[known], scores[known])
    assert metrics.micro_average_precision(targets, scores) == pytest.approx(wanted, abs=1e-12)
