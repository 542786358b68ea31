"""Tables of results: bars, guesses, parents, times and the timeline."""

import numpy as np
import pytest

from earmark.inference.result import Result, Window
from earmark.inference.table import table

LABELS = ("Siren", "Alarm", "Dog", "Vehicle horn, car horn, honking")


def result(*rows: tuple[float, ...], hop_s: float = 1.0, length_s: float = 1.0, **changes: object) -> Result:
    """A window for each row of scores."""
    windows = tuple(
        Window(number * hop_s, number * hop_s + length_s, np.array(row, np.float32), np.zeros(1, np.float32))
        for number, row in enumerate(rows)
    )
    values = {"labels": LABELS, "windows": windows, "duration_s": windows[-1].end_s, "sample_rate": 8000}
    return Result(**(values | {"model": "toy", "pooling": "max", "path": "a.wav"} | changes))


def lines_of(own: Result, **options: object) -> list[str]:
    return table(own, **options).splitlines()


def line_of(own: Result, label: str) -> str:
    return next(line for line in lines_of(own) if label in line)


THRESHOLDS = (0.5, 0.5, 0.25, 0.5)
two = result((0.75, 0.5, 0.0, 0.0), (0.0, 0.25, 0.3, 0.0), thresholds=THRESHOLDS)


def test_what_is_detected_comes_before_guesses_whatever_its_score() -> None:
    own = result((0.45, 0.75, 0.3, 0.0), thresholds=THRESHOLDS)
    first = [line.split()[0] for line in lines_of(own)[1:]]
    assert first == ["Alarm", "Dog", "Less", "Siren", "Vehicle"]


def test_without_anything_detected_the_guesses_are_there() -> None:
    lines = lines_of(result((0.45, 0.25, 0.125, 0.0), thresholds=THRESHOLDS).filter(top=2))
    assert len(lines) == 4
    assert "Nothing for certain" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["Siren", "Alarm"]


def test_a_model_without_thresholds_has_tags_only() -> None:
    lines = lines_of(result((0.75, 0.5, 0.0, 0.0), (0.0, 0.25, 0.0, 0.0)).filter(top=2))
    assert [line.split()[0] for line in lines] == ["a.wav", "Siren", "Alarm"]


def test_no_tags() -> None:
    assert lines_of(two.filter(threshold=0.99)) == ["a.wav  (2.0 s, toy)", "  Nothing scores that high."]


@pytest.mark.parametrize("score", [0.0, 0.02, 0.5, 0.97, 1.0])
def test_bars_are_proportional(score: float) -> None:
    block, ascii_ = (table(result((score,) * 4), blocks=blocks) for blocks in (True, False))
    full = block.splitlines()[1].count("█")
    assert full == int(score * 16 + 1e-9) or full == round(score * 16)
    assert ascii_.splitlines()[1].count("#") == round(score * 16)


def test_parents_stand_where_the_table_does_not_have_them() -> None:
    assert "(Alarm)" not in table(two)
    assert line_of(two.filter(["Siren", "Dog"]), "Siren").endswith("s")
    assert "(Alarm)" in line_of(two.filter(top=1), "Siren")


def test_times_are_those_of_the_highest_window_and_only_where_there_are_several() -> None:
    assert "1.0 - 2.0 s" in line_of(two, "Dog")
    assert " s" not in line_of(result((0.75, 0.5, 0.0, 0.0)), "Siren")
    hour = result((0.75, 0.5, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), hop_s=3600, length_s=30)
    assert "1:00:00 - 1:00:30" in line_of(hour, "Dog")
    assert "1:00:30" in lines_of(hour)[0]


def strips(own: Result, **options: object) -> dict[str, str]:
    """The strip of each label in the timeline, as text of 0 and 1."""
    _, timeline = table(own, **options).split("\n\n")
    rows = [line.rsplit("  ", 1) for line in timeline.splitlines()[1:]]
    return {label.strip(): strip.translate({ord("█"): "1", ord("·"): "0"}) for label, strip in rows}


def test_the_timeline_is_filled_where_windows_reach_the_threshold() -> None:
    found = strips(two)
    assert set(found) == {"Siren", "Dog"}
    for label, halves in (("Siren", "10"), ("Dog", "01")):
        strip = found[label]
        assert strip == halves[0] * (len(strip) // 2) + halves[1] * (len(strip) // 2)
    assert "\n\n" not in table(result((1.0,) * 4, thresholds=THRESHOLDS)), "one window has no timeline"


def test_a_parent_is_in_the_timeline_where_it_tells_more() -> None:
    assert "Alarm" not in strips(two), "only where the siren is"
    longer = result((0.75, 0.5, 0.0, 0.0), (0.0, 0.75, 0.0, 0.0), thresholds=THRESHOLDS)
    found = strips(longer)
    assert set(found["Alarm"]) == {"1"}
    assert set(found["Siren"]) == {"0", "1"}


def test_the_timeline_is_in_the_order_of_time() -> None:
    own = result((0.0, 0.0, 0.3, 0.0), (0.75, 0.0, 0.0, 0.0), thresholds=THRESHOLDS)
    assert list(strips(own)) == ["Dog", "Siren"]


def test_windows_that_overlap_are_merged() -> None:
    rows = [(0.0, 0.0, float(number in (3, 4)), 0.0) for number in range(9)]
    strip = strips(result(*rows, hop_s=0.5, length_s=1.0, thresholds=THRESHOLDS))["Dog"]
    filled = strip.strip("0")
    assert set(filled) == {"1"}
    assert len(strip) - len(strip.lstrip("0")) == pytest.approx(len(strip) * 1.5 / 5, abs=1)
    assert len(filled) == pytest.approx(len(strip) * 1.5 / 5, abs=1)


def test_a_short_sound_in_a_long_recording_is_visible() -> None:
    rows = [(0.0, 0.0, float(number == 1234), 0.0) for number in range(5000)]
    assert strips(result(*rows, thresholds=THRESHOLDS))["Dog"].count("1") == 1


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("blocks", [True, False])
def test_lines_fit_the_width(width: int, blocks: bool) -> None:
    rows = (0.75, 0.5, 0.3, 0.9), (0.0, 0.25, 0.3, 0.0)
    own = result(*rows, thresholds=THRESHOLDS, labels=("Siren", "Alarm", "Dog", "A label " * 9))
    text = table(own, width, blocks)
    assert max(map(len, text.splitlines())) <= width
    assert blocks or text.isascii()
    assert not any(line != line.rstrip() for line in text.splitlines())
