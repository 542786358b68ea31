"""Thresholds against all that could have been chosen."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from earmark.errors import DataError
from earmark.evaluation import metrics
from earmark.evaluation.calibration.thresholds import (
    ThresholdTarget,
    agreement_thresholds,
    choose_thresholds,
)


def clips(seed: int, count: int = 40):
    generator = np.random.default_rng(seed)
    truth = (generator.random((count, 3)) < 0.4).astype(float)
    scores = np.round(np.clip(0.3 * truth + generator.random((count, 3)) * 0.7, 0, 1), 2)  # some are equal
    truth[generator.random((count, 3)) < 0.1] = np.nan
    truth[:2] = [[1], [0]]
    return truth, scores


def choices(truth, scores):
    """Every threshold that makes a difference, with precision, recall and F1 there."""
    precision, recall, limits = oracle.precision_recall_curve(truth, scores)
    precision, recall = precision[:-1], recall[:-1]  # the last are those of no threshold
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return list(zip(limits, precision, recall, f1, strict=True))


@pytest.mark.parametrize("text", ["precision=0.8", "precision=1", "recall=0.7", "recall=1", "f1"])
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_are_the_best_of_all(seed, text):
    truth, scores = clips(seed)
    target = ThresholdTarget.parse(text)
    found = choose_thresholds(target, truth, scores)
    for c in range(3):
        known = ~np.isnan(truth[:, c])
        table = choices(truth[known, c], scores[known, c])
        reached = [limit for limit, *_ in table if limit >= found.values[c]]
        precision, recall, f1 = next(rest for limit, *rest in table if limit == min(reached))
        assert found.values[c] < min(reached), "between two scores"
        if target.metric == "precision":
            good = [own for own in table if own[1] >= target.minimum - 1e-9]
            assert bool(good) != found.missed[c]
            best = good or [own for own in table if own[1] == max(row[1] for row in table)]
            assert recall == pytest.approx(max(own[2] for own in best))
            assert precision == pytest.approx(best[0][1]) or precision >= target.minimum - 1e-9
        elif target.metric == "recall":
            assert recall >= target.minimum - 1e-9
            assert min(reached) == max(own[0] for own in table if own[2] >= target.minimum - 1e-9)
        else:
            assert f1 == pytest.approx(max(own[3] for own in table))


def test_a_target_that_is_not_reached():
    truth, scores = np.array([[0.0], [1], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.6]])
    found = choose_thresholds(ThresholdTarget("precision", 0.9), truth, scores)
    assert found.missed.tolist() == [True]
    assert 0.6 < found.values[0] < 0.7
    assert not choose_thresholds(ThresholdTarget("precision", 0.6), truth, scores).missed[0]


def test_none_is_below_the_lowest():
    truth, scores = clips(0)
    free = choose_thresholds(ThresholdTarget("recall", 0.9), truth, scores).values
    np.testing.assert_array_equal(
        choose_thresholds(ThresholdTarget("recall", 0.9), truth, scores, min_threshold=0.5).values,
        np.maximum(free, 0.5),
    )


@pytest.mark.parametrize(
    ("text", "target"),
    [("precision=0.9", ("precision", 0.9)), ("recall=1", ("recall", 1)), ("f1", ("f1", 1))],
)
def test_parse_a_target(text, target):
    assert ThresholdTarget.parse(text) == target
    assert str(ThresholdTarget.parse(text)) == text


@pytest.mark.parametrize("text", ["", "precision", "precision=", "recall=0", "recall=1.1", "f1=0.5", "auc=1"])
def test_an_invalid_target_is_refused(text):
    with pytest.raises(DataError, match=r"must be like precision=0\.9, recall=0\.8 or f1"):
        ThresholdTarget.parse(text)


def two_models(clips: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Scores of four classes, and of a reference: precise, sloppy, wrong, and reached by no clip."""
    generator = np.random.default_rng(3)
    reference = generator.random((clips, 4))
    scores = np.clip(reference + generator.normal(0, [0.02, 0.15, 1, 0], (clips, 4)), 0, 1)
    scores[:, 2], scores[:, 3] = generator.random(clips), 0.01
    return scores, reference


def test_a_model_agrees_with_its_reference_from_the_threshold_on() -> None:
    scores, reference = two_models()
    found = agreement_thresholds(scores, reference, reference_threshold=0.4, reference="big")
    precise, sloppy, wrong, silent = found.values
    for c, limit in enumerate((precise, sloppy)):
        for step, good in ((limit, True), (limit - 0.02, False)):
            reached = scores[:, c] >= step
            assert ((reference[reached, c] >= 0.4).mean() >= 0.9 - 0.005) == good
    assert precise < sloppy
    assert wrong == 0.6, "the upper limit"
    assert silent == found.common
    assert set(np.round(100 * found.values)) <= set(range(10, 61))
    assert "big" in found.rule
    assert str(len(scores)) in found.rule
    low = agreement_thresholds(scores[:, :1], reference[:, :1], reference_threshold=0.01)
    assert low.values[0] == 0.1, "the lower limit"


def test_few_clips_lean_on_those_of_all_labels() -> None:
    scores, reference = two_models()
    scores, reference = scores[:, [0, 0]].copy(), reference[:, [0, 0]].copy()
    scores[3:, 1] = 0.01  # of the second class three clips
    scores[:3, 1], reference[:3, 1] = 0.5, 0  # all of them wrong
    free, held = (
        agreement_thresholds(scores, reference, reference_threshold=0.4, prior_clips=clips)
        for clips in (0.1, 200)
    )
    assert free.values[1] == pytest.approx(0.51)
    assert held.values[1] == pytest.approx(held.common, abs=0.011)


def test_nothing_to_choose_by() -> None:
    for shape, other in (((0, 2), (0, 2)), ((3, 2), (3, 1)), ((3,), (3,))):
        with pytest.raises(DataError, match="same shape"):
            agreement_thresholds(np.zeros(shape), np.zeros(other))


@pytest.mark.parametrize("each", [False, True])
def test_decisions_are_the_oracles(each):
    truth, scores = clips(7)
    limits = np.full(truth.shape, 0.5) if each else [0.5, 0.4, 0.95]
    for name in ("precision", "recall", "f1"):
        for c, value in enumerate(getattr(metrics, name)(truth, scores, limits)):
            known = ~np.isnan(truth[:, c])
            reached = scores[known, c] >= (0.5 if each else limits[c])
            wanted = getattr(oracle, f"{name}_score")(truth[known, c], reached, zero_division=np.nan)
            assert value == pytest.approx(wanted, nan_ok=True), name
