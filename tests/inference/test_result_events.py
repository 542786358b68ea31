"""Events of results: those of the averaged scores, however many labels are worked on at a time."""

from dataclasses import replace

import numpy as np
import pytest

from earmark.errors import ModelError
from earmark.events.detect import detect
from earmark.events.options import EventOptions
from earmark.inference.result import Result, Window

LABELS = ("dog", "cat", "bird", "rain")


def made(count: int, hop_s: float = 0.5, **changes: object) -> Result:
    generator = np.random.default_rng(count)
    scores = np.repeat(generator.random((count // 4 + 1, len(LABELS))), 4, 0)[:count].astype(np.float32)
    windows = tuple(
        Window(i * hop_s, i * hop_s + 2, row, np.zeros(2, np.float32)) for i, row in enumerate(scores)
    )
    values = {"labels": LABELS, "windows": windows, "duration_s": windows[-1].end_s, "sample_rate": 8000}
    return Result(**values | {"model": "toy", "pooling": "max", "hop_s": hop_s} | changes)


@pytest.mark.parametrize("at_once", [1, 80, 1 << 19])
@pytest.mark.parametrize("threshold", [0.6, (0.5, 0.7, 2.0, 0.6)])
def test_events_are_those_of_the_averaged_scores(
    monkeypatch: pytest.MonkeyPatch, at_once: int, threshold: float | tuple[float, ...]
) -> None:
    monkeypatch.setattr("earmark.inference.result.SCORES_AT_ONCE", at_once)
    result = made(40)
    options = EventOptions(threshold=threshold)
    expected = detect(result.score_series, options)
    assert len(expected) > 3
    assert list(result.events(options=options)) == expected
    assert list(result.events(threshold)) == expected


def test_labels_are_those_that_the_filter_left() -> None:
    result = made(40, thresholds=(0.5, 0.7, 2.0, 0.6))
    events = [event for event in result.events() if event.label in ("dog", "rain")]
    assert list(result.filter("rain,dog").events()) == events


def test_a_result_without_a_hop_has_steps_of_its_windows() -> None:
    result = made(3, hop_s=2.0)
    without = replace(result, hop_s=None)
    assert without.score_series.step_s == result.score_series.step_s == 2.0


def test_thresholds_that_are_not_there() -> None:
    result = made(8)
    assert result.events() == result.events(0.5)
    with pytest.raises(ModelError, match="no thresholds"):
        result.events("auto")
    with pytest.raises(ModelError, match=r"\(4\)"):
        result.events((0.5, 0.5))
