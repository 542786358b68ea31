"""Calibrations compute the published formulas, and invalid ones are refused."""

import json
import math

import numpy as np
import pytest
from scipy.special import expit, softmax

from earmark.errors import ModelError
from earmark.model_file.calibration import (
    Isotonic,
    Platt,
    Temperature,
    calibration_from_dict,
    calibration_to_dict,
    uncalibrated_scores,
)

LOGITS = np.random.default_rng(0).normal(0, 4, (5, 2)).astype(np.float32)
PLATT = Platt((0.5, 2.0), (-1.0, 0.25), {"clips": 7})
ISOTONIC = Isotonic(((-2.0, 0.0, 3.0), (1.0,)), ((0.1, 0.1, 0.9), (0.3,)))
ALL = [Temperature(1.7, {"clips": 3}), PLATT, ISOTONIC]


def test_scores_without_a_calibration():
    wide = LOGITS.astype(np.float64)
    np.testing.assert_allclose(uncalibrated_scores(LOGITS, "multi_label"), expit(wide), atol=1e-7)
    np.testing.assert_allclose(uncalibrated_scores(LOGITS, "single_label"), softmax(wide, -1), atol=1e-7)


def test_probabilities_follow_the_formulas():
    wide = LOGITS.astype(np.float64)
    np.testing.assert_allclose(Temperature(1.7).probabilities(LOGITS), softmax(wide / 1.7, -1), atol=1e-7)
    np.testing.assert_allclose(PLATT.probabilities(LOGITS), expit(wide * [0.5, 2] + [-1, 0.25]), atol=1e-7)
    points = np.array([-9.0, -2, -1, 0, 1, 3, 9])
    found = ISOTONIC.probabilities(np.stack([points, points], 1))
    expected = [0.1, 0.1, 0.1, 0.1, 0.1 + 0.8 / 3, 0.9, 0.9]
    np.testing.assert_allclose(found, np.stack([expected, [0.3] * 7], 1), atol=1e-7)


@pytest.mark.parametrize("calibration", ALL, ids=lambda own: own.method)
def test_any_shape_is_accepted_and_float32_returned(calibration):
    found = calibration.probabilities(LOGITS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(calibration.probabilities(LOGITS[1]), found[1])
    np.testing.assert_array_equal(calibration.probabilities(LOGITS[None])[0], found)
    extreme = calibration.probabilities(np.array([[-1e4, 1e4], [1e4, 1e4]]))
    assert ((extreme >= 0) & (extreme <= 1)).all()


@pytest.mark.parametrize("calibration", ALL, ids=lambda own: own.method)
def test_round_trip(calibration):
    text = json.dumps(calibration_to_dict(calibration))
    assert calibration_from_dict(json.loads(text)) == calibration


def test_no_calibration_is_stored_as_none():
    assert calibration_to_dict(None) is calibration_from_dict(None) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "guess"},
        {"colour": 1},
        {"fitted_on": "clips"},
        {"slope": [1.0]},
        {"slope": [1.0, -0.1]},
        {"slope": [1.0, math.nan]},
        {"slope": "12"},
        {"slope": [], "intercept": []},
        {"intercept": [True, 1.0]},
    ],
)
def test_an_invalid_platt_calibration_is_refused(changes):
    with pytest.raises(ModelError, match=r"^calibration"):
        calibration_from_dict(calibration_to_dict(PLATT) | changes)


@pytest.mark.parametrize(
    ("logits", "levels"),
    [
        ([[0, 1]], [[0.5]]),
        ([[1, 0]], [[0.1, 0.2]]),
        ([[0, 1]], [[0.2, 0.1]]),
        ([[0, 1]], [[0.2, 1.1]]),
        ([[0]], [[0.2], [0.3]]),
        ([], []),
        ([[]], [[]]),
        (3, [[0.2]]),
        ([3], [[0.2]]),
    ],
)
def test_an_invalid_isotonic_calibration_is_refused(logits, levels):
    with pytest.raises(ModelError, match=r"^calibration"):
        Isotonic(logits, levels)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf, "2", True])
def test_an_invalid_temperature_is_refused(temperature):
    with pytest.raises(ModelError, match=r"^calibration"):
        Temperature(temperature)


@pytest.mark.parametrize("values", [7, "platt", [], {}, {"method": ["platt"]}])
def test_values_other_than_a_calibration_are_refused(values):
    with pytest.raises(ModelError, match=r"^calibration"):
        calibration_from_dict(values)
