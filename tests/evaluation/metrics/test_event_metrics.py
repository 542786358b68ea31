import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from earmark.errors import DataError
from earmark.evaluation.metrics.events import EventCounts, event_counts, segment_counts
from earmark.evaluation.metrics.psds import SCENARIO_1, SCENARIO_2, PsdsOptions, psds
from earmark.events.event import Event

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "events.json").read_text())
LABELS = GOLDEN["labels"]


def event(label: str, start_s: float, end_s: float) -> Event:
    return Event(label, start_s, end_s, 1.0, 1.0, 0.1)


def events(recordings: list[list[list]]) -> list[list[Event]]:
    return [[event(*one) for one in recording] for recording in recordings]


TRUTH = events(GOLDEN["truth"])
OPERATING_POINTS = [events(point) for point in GOLDEN["operating_points"]]


def assert_same(counts: EventCounts, wanted: dict) -> None:
    assert counts.micro_f1 == pytest.approx(wanted["micro"], abs=1e-12)
    assert counts.f1 == pytest.approx(wanted["class"], abs=1e-12)


def test_segment_f1_is_that_of_sed_eval() -> None:
    for detected, wanted in zip(OPERATING_POINTS, GOLDEN["segment_1s"], strict=True):
        assert_same(segment_counts(TRUTH, detected, LABELS), wanted)


@pytest.mark.parametrize("collar_s", [0.2, 0.5])
def test_event_f1_is_that_of_sed_eval(collar_s: float) -> None:
    for detected, wanted in zip(OPERATING_POINTS, GOLDEN["event"][str(collar_s)], strict=True):
        assert_same(event_counts(TRUTH, detected, LABELS, collar_s), wanted)


@pytest.mark.parametrize("name", GOLDEN["psds"])
def test_psds_is_that_of_psds_eval(name: str) -> None:
    golden = GOLDEN["psds"][name]
    for max_rate, wanted in golden["by_max_rate"].items():
        options = PsdsOptions(*golden["parameters"], max_rate=float(max_rate))
        found = psds(TRUTH, OPERATING_POINTS, LABELS, GOLDEN["duration_s"], options)
        assert found == pytest.approx(wanted, abs=1e-12)


def test_as_many_events_as_possible_are_matched() -> None:
    truth = [[event("dog", 1.0, 2.0), event("dog", 1.3, 2.3)]]
    # The first detection fits both true events, the second one only the first of them.
    detected = [[event("dog", 1.15, 2.15), event("dog", 0.85, 1.85)]]
    counts = event_counts(truth, detected, ["dog"], 0.2)
    assert [int(count[0]) for count in counts] == [2, 0, 0]


def test_the_end_of_a_long_event_may_be_off_by_a_share_of_its_length() -> None:
    truth, detected = [[event("rain", 0.0, 10.0)]], [[event("rain", 0.1, 14.0)]]
    assert event_counts(truth, detected, ["rain"], 0.2).micro_f1 == 1.0
    assert event_counts(truth, detected, ["rain"], 0.2, length_share=0.3).micro_f1 == 0.0


def test_classes_without_true_events_have_no_f1() -> None:
    counts = segment_counts([[event("dog", 0, 1)]], [[event("cat", 0, 1)]], ["dog", "cat", "cow"])
    assert counts.f1[0] == 0
    assert np.isnan(counts.f1[1:]).all()
    assert np.isnan(segment_counts([[]], [[]], ["dog"]).micro_f1)


def test_psds_is_1_for_the_truth_and_0_for_nothing() -> None:
    for options in (SCENARIO_1, SCENARIO_2):
        assert psds(TRUTH, [TRUTH], LABELS, GOLDEN["duration_s"], options) == 1.0
        assert psds(TRUTH, [[[] for _ in TRUTH]], LABELS, GOLDEN["duration_s"], options) == 0.0
    assert psds(TRUTH, [], LABELS, GOLDEN["duration_s"]) == 0.0


def test_more_operating_points_never_lower_psds_without_costs() -> None:
    options = PsdsOptions(instability_cost=0)
    scores = [
        psds(TRUTH, OPERATING_POINTS[:count], LABELS, GOLDEN["duration_s"], options)
        for count in (1, 4, 8, 12)
    ]
    assert all(one <= other for one, other in pairwise(scores))
    assert scores[0] < scores[-1]


def test_recordings_have_to_be_the_same() -> None:
    with pytest.raises(DataError, match="12 recordings"):
        segment_counts(TRUTH, TRUTH[1:], LABELS)
    with pytest.raises(DataError, match="12 recordings"):
        psds(TRUTH, [TRUTH[1:]], LABELS, 1.0)
    with pytest.raises(DataError, match="no true event"):
        psds([[]], [[[]]], LABELS, 1.0)
