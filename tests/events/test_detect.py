"""Windows -> scores over time -> events."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.errors import ModelError
from earmark.events.detect import detect
from earmark.events.event import ScoreSeries
from earmark.events.options import EventOptions, LabelOptions
from earmark.events.windows import average_windows, event_lengths


def series(*rows: float | tuple[float, ...], step_s: float = 1.0, **changes: object) -> ScoreSeries:
    scores = np.array(rows, np.float32).reshape(len(rows), -1)
    labels = ("dog", "cat", "bird")[: scores.shape[1]]
    return ScoreSeries(labels, scores, step_s, 2.0, **changes)


def spans(own: ScoreSeries, **options: object) -> list[tuple[float, float]]:
    found = detect(own, EventOptions(**{"threshold": 0.5} | options))
    return [(round(one.start_s, 6), round(one.end_s, 6)) for one in found]


def test_an_event_starts_at_the_on_threshold_and_ends_below_the_off_threshold() -> None:
    own = series(0.2, 0.4, 0.5, 0.4, 0.35, 0.34, 0.4, 0.2)
    assert spans(own) == [(1, 5)]
    assert spans(own, off_threshold=0.45) == [(2, 3)]
    assert spans(own, off_threshold=0.3) == [(1, 7)]
    assert spans(own, threshold=0.51) == []


def test_low_thresholds_have_an_off_threshold_above_zero() -> None:
    assert spans(series(0.0, 0.1, 0.06, 0.04, 0.0), threshold=0.1) == [(1, 3)]


def test_peak_and_mean_are_of_the_scores_within() -> None:
    (found,) = detect(series(0.0, 0.5, 1.0, 0.6, 0.0, start_s=10), EventOptions(threshold=0.5))
    assert found.label == "dog"
    assert (found.start_s, found.end_s, found.peak, found.resolution_s) == (11, 14, 1.0, 2.0)
    assert found.mean == pytest.approx(0.7)


def test_gaps_are_merged_before_short_events_are_dropped() -> None:
    own = series(0.9, 0, 0.9, 0, 0, 0.9, 0, step_s=0.1)
    assert spans(own, min_duration_s=0, merge_gap_s=0) == [(0, 0.1), (0.2, 0.3), (0.5, 0.6)]
    assert spans(own, min_duration_s=0, merge_gap_s=0.1) == [(0, 0.3), (0.5, 0.6)]
    assert spans(own, min_duration_s=0.3, merge_gap_s=0.1) == [(0, 0.3)]
    assert spans(own) == [(0, 0.3)]


def test_the_last_step_ends_with_the_recording() -> None:
    assert spans(series(0, 0, 0.9, end_s=2.5)) == [(2, 2.5)]


def test_labels_have_settings_of_their_own() -> None:
    own = series((0.4, 0.4, 0.4), (0, 0, 0), (0.4, 0.4, 0.4))
    each = {"dog": LabelOptions(threshold=0.3), "bird": LabelOptions(threshold=0.3, merge_gap_s=1)}
    found = detect(own, EventOptions(threshold=0.5, per_label=each))
    assert [(one.label, one.start_s, one.end_s) for one in found] == [
        ("dog", 0, 1),
        ("bird", 0, 3),
        ("dog", 2, 3),
    ]


def test_one_threshold_per_label() -> None:
    own = series((0.4, 0.4))
    assert [one.label for one in detect(own, EventOptions(threshold=(0.3, 0.5)))] == ["dog"]
    with pytest.raises(ModelError, match=r"\(2\), got 3"):
        detect(own, EventOptions(threshold=(0.3, 0.5, 0.5)))
    with pytest.raises(ModelError, match="auto"):
        detect(own, EventOptions())
    assert detect(own, EventOptions().resolved((0.5, 0.4)))[0].label == "cat"
    assert detect(own, EventOptions().resolved(None)) == []


def test_smoothing_removes_single_steps_but_not_from_the_peak() -> None:
    own = series(0, 0.9, 0, 0, 0.6, 0.6, 0.8, 0.6, 0.1, 0.6, 0)
    assert spans(own, smooth_s=3) == [(4, 9)]
    (found,) = detect(own, EventOptions(threshold=0.5, smooth_s=3))
    assert found.peak == pytest.approx(0.8)


def test_change_points_do_not_depend_on_the_threshold() -> None:
    own = series(0, 0.1, 0.1, 0.7, 0.8, 0.7, 0.1, 0.1, 0.4, 0.4, 0.1, 0)
    wide = spans(own, threshold=0.3, method="change_points")
    assert wide == [(3, 6), (8, 10)]
    assert spans(own, threshold=0.6, method="change_points") == [(3, 6)]
    # The limits of hysteresis move with the threshold.
    assert spans(own, threshold=0.2) != [span for span in wide if span in spans(own, threshold=0.6)]


def test_change_points_join_boxes_between_which_the_score_hardly_falls() -> None:
    own = series(0, 0.9, 0.9, 0.8, 0.9, 0.9, 0.3, 0.9, 0.9, 0)
    assert spans(own, method="change_points") == [(1, 6), (7, 9)]


def test_change_points_are_not_moved_by_faint_sounds_nearby() -> None:
    own = series(0, 0.06, 0, 0.05, 0, 0.9, 0.9, 0.9, 0, 0.04, 0.05, 0, 0.03, 0)
    assert spans(own, method="change_points") == [(5, 8)]


@pytest.mark.parametrize("method", ["hysteresis", "change_points"])
@settings(max_examples=60, deadline=None)
@given(scores=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40), on=st.floats(0.01, 1))
def test_events_are_in_order_and_apart(method: str, scores: list[float], on: float) -> None:
    own = series(*scores, step_s=0.5)
    found = detect(own, EventOptions(threshold=on, method=method))
    for event in found:
        assert 0 <= event.start_s < event.end_s <= len(scores) * 0.5
        assert event.mean <= event.peak + 1e-6
        assert event.peak >= np.float32(on) - 1e-6
    for before, after in pairwise(found):
        assert before.end_s < after.start_s


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": -0.1},
        {"threshold": float("nan")},
        {"threshold": (0.5, -1.0)},
        {"threshold": "best"},
        {"off_threshold": -1},
        {"min_duration_s": -1},
        {"merge_gap_s": float("inf")},
        {"smooth_s": -0.1},
        {"method": "guess"},
    ],
)
def test_impossible_options_are_refused(values: dict) -> None:
    with pytest.raises(ModelError, match=next(iter(values))):
        EventOptions(**values)


@pytest.mark.parametrize(
    "changes", [{"scores": np.zeros((0, 1))}, {"scores": np.zeros(3)}, {"step_s": 0.0}, {"end_s": 0.5}]
)
def test_impossible_series_are_refused(changes: dict) -> None:
    values = {"labels": ("dog",), "scores": np.zeros((2, 1)), "step_s": 1.0, "resolution_s": 1.0}
    with pytest.raises(ModelError):
        ScoreSeries(**values | changes)


def test_windows_that_overlap_are_averaged() -> None:
    windows = [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (2.5, 4.5)]
    own = average_windows(("dog",), windows, np.array([[0], [0.5], [1], [1]], np.float32), 1.0)
    assert own.scores[:, 0] == pytest.approx([0, 0.25, (0.5 + 1 + 0.5) / 2.5, 1, 1])
    assert own.edges_s == pytest.approx([0, 1, 2, 3, 4, 4.5])
    assert own.resolution_s == 2.0


@pytest.mark.parametrize(
    ("length_s", "hop_s", "duration_s"), [(2, 0.5, 7.3), (2, 2, 7.3), (1, 3, 7.0), (2, 1, 0.7)]
)
def test_steps_cover_the_whole_recording(length_s: float, hop_s: float, duration_s: float) -> None:
    from earmark.audio import plan_windows

    starts = plan_windows(round(duration_s * 100), length_s * 100, round(hop_s * 100))
    windows = [(start / 100, min(start / 100 + length_s, duration_s)) for start in starts]
    own = average_windows(("dog",), windows, np.ones((len(windows), 1), np.float32), hop_s)
    assert own.scores == pytest.approx(1)
    assert own.edges_s[-1] == pytest.approx(duration_s)
    assert np.all(np.diff(own.edges_s) > 0)
    assert np.all(np.diff(own.edges_s)[:-1] == pytest.approx(hop_s))


def test_default_lengths() -> None:
    assert event_lengths(None, None, 10.0, False) == (2.0, 0.5)
    assert event_lengths(None, None, 1.0, False) == (1.0, 0.25)
    assert event_lengths(None, None, 10.0, True)[0] == 10.0
    assert event_lengths(4.0, 2.0, 10.0, False) == (4.0, 2.0)
