"""Results: tags, thresholds, filters."""

import json

import numpy as np
import pytest

from earmark.errors import ModelError
from earmark.inference.pooling import check_pooling, pool_windows
from earmark.inference.result import Result, Window

LABELS = ("Bark", "Meow", "Siren")


def result(*scores: tuple[float, ...], **changes: object) -> Result:
    """A window of one second for each row of scores."""
    windows = tuple(
        Window(number, number + 1, np.array(row, np.float32), np.full(4, number, np.float32))
        for number, row in enumerate(scores)
    )
    values = {"labels": LABELS, "windows": windows, "duration_s": 2.0, "sample_rate": 8000, "model": "toy"}
    return Result(**(values | {"pooling": "max"} | changes))


@pytest.fixture
def two() -> Result:
    return result((0.25, 0.5, 0.125), (0.75, 0.0, 0.25), thresholds=(0.5, 0.625, 0.25))


def names(tags) -> list[str]:
    return [tag.label for tag in tags]


def test_tags_are_sorted_and_span_the_window_with_the_highest_score(two: Result) -> None:
    assert two.tags == (("Bark", 0.75, 1, 2), ("Meow", 0.5, 0, 1), ("Siren", 0.25, 1, 2))
    np.testing.assert_array_equal(two.scores, [0.75, 0.5, 0.25])
    np.testing.assert_array_equal(two.embedding, [0.5] * 4)
    assert names(two.detected) == ["Bark", "Siren"]
    assert result((1.0, 1.0, 1.0)).detected == ()


def test_pooling() -> None:
    scores = np.array([[0.25, 1], [0.75, 0]], np.float32)
    assert pool_windows(scores, "max").tolist() == [0.75, 1]
    assert pool_windows(scores, "mean").tolist() == [0.5, 0.5]
    assert (check_pooling(None, "multi_label"), check_pooling(None, "single_label")) == ("max", "mean")
    assert result((0.25, 0.5, 0.125), (0.75, 0.0, 0.25), pooling="mean").tags[0].score == 0.5


def test_threshold_and_top(two: Result) -> None:
    assert names(two.filter(threshold=0.5).tags) == ["Bark", "Meow"]
    assert names(two.filter(threshold="auto").tags) == ["Bark", "Siren"]
    assert names(two.filter(threshold=[1, 0, 0]).tags) == ["Meow", "Siren"]
    assert names(two.filter(threshold=np.float32(0)).tags) == ["Bark", "Meow", "Siren"]
    assert names(two.filter(threshold="auto", top=1).tags) == ["Bark"]
    assert two.filter(top=0).tags == ()
    assert two.filter().tags == two.tags


def test_filters_hold_for_what_is_written_but_not_for_what_is_detected(two: Result) -> None:
    few = two.filter(threshold=0.25, top=1)
    written = few.to_dict()
    assert names(few.detected) == ["Bark", "Siren"]
    assert few.scores.shape == (3,)
    assert [tag["label"] for tag in written["tags"]] == ["Bark"]
    assert [[tag["label"] for tag in window["tags"]] for window in written["windows"]] == [["Meow"], ["Bark"]]
    assert json.loads(json.dumps(written)) == written


def test_some_labels(two: Result) -> None:
    few = two.filter(["Siren", "meow"])
    assert few.labels == ("Meow", "Siren")
    assert few.thresholds == (0.625, 0.25)
    assert names(few.detected) == ["Siren"]
    assert two.filter("siren, Meow").labels == few.labels
    assert names(two.filter(threshold=[0, 0.75, 0]).filter("Meow,Siren").tags) == ["Siren"]


def test_parents_have_the_lowest_threshold_of_their_children() -> None:
    animals = result((0.25, 0.5), labels=LABELS[:2], calibrated=True, thresholds=(0.375, 0.5))
    rolled = animals.filter(rollup=True)
    limits = dict(zip(rolled.labels, rolled.thresholds or (), strict=True))
    wanted = {"Bark": 0.375, "Dog": 0.375, "Meow": 0.5, "Cat": 0.5, "Animal": 0.375}
    assert wanted.items() <= limits.items()
    detected = set(names(rolled.detected))
    assert {"Meow", "Cat", "Animal"} <= detected
    assert not {"Bark", "Dog"} & detected
    assert not rolled.calibrated
    assert names(animals.filter("Animal", rollup=True, threshold=0.5).tags) == ["Animal"]
    limited = animals.filter(threshold=[0.125, 0.75]).filter(rollup=True)
    assert {"Dog", "Animal"} <= set(names(limited.tags))
    assert not {"Meow", "Cat"} & set(names(limited.tags))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": "auto"}, "has no thresholds of its own"),
        ({"threshold": "high"}, "must be a number or 'auto', got 'high'"),
        ({"threshold": [0.5]}, r"one value per label \(3\), got 1"),
        ({"labels": "Brak"}, "Bark"),
    ],
)
def test_unusable_filters(options: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        result((0.25, 0.5, 0.125)).filter(**options)
