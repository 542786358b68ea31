"""Depth "probe" against scikit-learn's logistic regression."""

from pathlib import Path

import numpy as np
import pytest

from earmark.custom import Example
from earmark.custom.probe import DEFAULT_C, fit_probe
from earmark.custom.table import make_table

pytest.importorskip("scipy")
linear_model = pytest.importorskip("sklearn.linear_model")


def data(classes: int) -> tuple[list[Example], list[np.ndarray]]:
    """Clips with one window each, of classes of different sizes."""
    rng = np.random.default_rng(0)
    truth = [number for number in range(classes) for _ in range(2 + 2 * number)]
    features = [(rng.standard_normal((1, 12)) * 3 + number).astype(np.float32) for number in truth]
    examples = [Example(Path(f"{row}.wav"), (f"c{number}",), str(row)) for row, number in enumerate(truth)]
    return examples, features


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_classifier_is_that_of_scikit_learn(classes: int, task: str) -> None:
    examples, features = data(classes)
    labels = tuple(f"c{number}" for number in range(classes))
    table = make_table(examples, features, [], labels, task)  # type: ignore[arg-type]
    found = fit_probe(table, np.ones(len(examples), bool)).logits(np.arange(len(examples)))
    inputs = np.concatenate(features)
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    truth = table.targets.argmax(1)

    def oracle(target: np.ndarray) -> np.ndarray:
        model = linear_model.LogisticRegression(C=DEFAULT_C, class_weight="balanced", tol=1e-8, max_iter=1000)
        return np.asarray(model.fit(inputs, target).decision_function(inputs))

    if task == "multi_label":
        expected = np.stack([oracle(truth == number) for number in range(classes)], 1)
        np.testing.assert_allclose(found, expected, atol=5e-3)
    elif classes > 2:
        expected = oracle(truth)
        np.testing.assert_allclose(found - found.mean(1, keepdims=True), expected, atol=5e-3)
    else:  # scikit-learn penalises the difference of the two logits, a softmax each of them
        assert ((found[:, 1] > found[:, 0]) == (oracle(truth) > 0)).mean() > 0.9


def test_windows_of_a_long_clip_weigh_as_one_clip() -> None:
    examples, features = data(2)
    labels, everything = ("c0", "c1"), np.ones(len(examples), bool)
    repeated = [np.repeat(features[0], 50, 0), *features[1:]]
    logits = [
        fit_probe(make_table(examples, own, [], labels, "multi_label"), everything).logits(np.array([rows]))
        for own, rows in ((features, len(features) - 1), (repeated, len(features) + 48))
    ]
    np.testing.assert_allclose(logits[0], logits[1], atol=5e-3)
