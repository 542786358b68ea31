"""Calibrations: what they make of logits, and what is refused."""

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
    uncalibrated,
)

LOGITS = np.random.default_rng(0).normal(0, 4, (5, 2)).astype(np.float32)
PLATT = Platt((0.5, 2.0), (-1.0, 0.25), {"clips": 7})
ISOTONIC = Isotonic(((-2.0, 0.0, 3.0), (1.0,)), ((0.1, 0.1, 0.9), (0.3,)))
ALL = [Temperature(1.7, {"clips": 3}), PLATT, ISOTONIC]


def test_scores_without_a_calibration():
    wide = LOGITS.astype(np.float64)
    np.testing.assert_allclose(uncalibrated(LOGITS, "multi_label"), expit(wide), atol=1e-7)
    np.testing.assert_allclose(uncalibrated(LOGITS, "single_label"), softmax(wide, -1), atol=1e-7)


def test_probabilities_are_those_of_the_formulas():
    wide = LOGITS.astype(np.float64)
    np.testing.assert_allclose(Temperature(1.7).probabilities(LOGITS), softmax(wide / 1.7, -1), atol=1e-7)
    np.testing.assert_allclose(PLATT.probabilities(LOGITS), expit(wide * [0.5, 2] + [-1, 0.25]), atol=1e-7)
    places = np.array([-9.0, -2, -1, 0, 1, 3, 9])
    answered = ISOTONIC.probabilities(np.stack([places, places], 1))
    wanted = [0.1, 0.1, 0.1, 0.1, 0.1 + 0.8 / 3, 0.9, 0.9]
    np.testing.assert_allclose(answered, np.stack([wanted, [0.3] * 7], 1), atol=1e-7)


@pytest.mark.parametrize("calibration", ALL, ids=lambda own: own.method)
def test_any_shape_goes_in_and_float32_comes_out(calibration):
    answered = calibration.probabilities(LOGITS)
    assert answered.dtype == np.float32
    np.testing.assert_array_equal(calibration.probabilities(LOGITS[1]), answered[1])
    np.testing.assert_array_equal(calibration.probabilities(LOGITS[None])[0], answered)
    extreme = calibration.probabilities(np.array([[-1e4, 1e4], [1e4, 1e4]]))
    assert ((extreme >= 0) & (extreme <= 1)).all()


@pytest.mark.parametrize("calibration", ALL, ids=lambda own: own.method)
def test_it_comes_back_as_it_was(calibration):
    text = json.dumps(calibration_to_dict(calibration))
    assert calibration_from_dict(json.loads(text)) == calibration


def test_none_is_none():
    assert calibration_to_dict(None) is calibration_from_dict(None) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "guess"}, "method is one of temperature, platt, isotonic"),
        ({"colour": 1}, "has the fields"),
        ({"fitted_on": "clips"}, "has the fields"),
        ({"slope": [1.0]}, "equally many"),
        ({"slope": [1.0, -0.1]}, "no slope below 0"),
        ({"slope": [1.0, math.nan]}, "slope must be finite numbers"),
        ({"slope": "12"}, "slope must be finite numbers"),
        ({"slope": [], "intercept": []}, "equally many"),
        ({"intercept": [True, 1.0]}, "intercept must be finite numbers"),
    ],
)
def test_a_sigmoid_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ModelError, match=said):
        calibration_from_dict(calibration_to_dict(PLATT) | changes)


@pytest.mark.parametrize(
    ("logits", "levels", "said"),
    [
        ([[0, 1]], [[0.5]], "equally many"),
        ([[1, 0]], [[0.1, 0.2]], "logits must ascend"),
        ([[0, 1]], [[0.2, 0.1]], "levels must not fall"),
        ([[0, 1]], [[0.2, 1.1]], "within"),
        ([[0]], [[0.2], [0.3]], "equally many"),
        ([], [], "equally many"),
        ([[]], [[]], "logits must ascend"),
        (3, [[0.2]], "list of lists"),
        ([3], [[0.2]], "finite numbers"),
    ],
)
def test_a_line_that_cannot_be_is_refused(logits, levels, said):
    with pytest.raises(ModelError, match=said):
        Isotonic(logits, levels)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf, "2", True])
def test_a_temperature_that_cannot_be_is_refused(temperature):
    with pytest.raises(ModelError, match="temperature must be"):
        Temperature(temperature)


@pytest.mark.parametrize("values", [7, "platt", [], {}, {"method": ["platt"]}])
def test_what_is_no_calibration_is_refused(values):
    with pytest.raises(ModelError, match="calibration must be a table"):
        calibration_from_dict(values)
