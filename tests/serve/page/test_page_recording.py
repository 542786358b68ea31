"""A recording on the page: events, playback, threshold, search, downloads, keys, themes, widths."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests_of_page import FARM, SHIPPED, Open, Watched, foreign, load, open_page, wait_until

import earmark
from earmark.events.detect import detect
from earmark.events.event import Event, RecordingEvents, ScoreSeries
from earmark.events.formats import event_layout
from earmark.events.layout import Format
from earmark.inference.local_scores import with_local_scores
from earmark.inference.result import Result

pytestmark = pytest.mark.slow
"""Chromium takes seconds to start."""


@pytest.fixture(scope="module")
def result() -> Result:
    """What the shipped model says of the recording, in Python."""
    return with_local_scores(earmark.load()).tag(FARM)


@pytest.fixture(scope="module")
def watched(browser: Any, server: str) -> Iterator[Watched]:
    """A page that has the recording, for all tests that leave it as it was."""
    one = open_page(browser, server, accept_downloads=True)
    load(one.page)
    yield one
    assert not one.complaints
    assert not foreign(one.requests, server)


@pytest.fixture
def page(watched: Watched) -> Iterator[Any]:
    page = watched.page
    yield page
    page.evaluate("document.activeElement.blur()")
    page.click("#threshold-auto")
    page.fill("#search", "")
    if page.get_attribute("#play", "aria-label") == "Pause":
        page.click("#play")


def rows(page: Any) -> list[list[str]]:
    """Label, start, end and score of each row."""
    cells = page.eval_on_selector_all(
        "#events tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    return [[row[1], row[2], row[3], row[5]] for row in cells]


def expected_rows(events: tuple[Event, ...]) -> list[list[str]]:
    def clock(seconds: float) -> str:
        return f"0:{np.floor(seconds * 10 + 0.5) / 10:04.1f}"

    return [[one.label, clock(one.start_s), clock(one.end_s), f"{one.peak:.2f}"] for one in events]


def rounded(result: Result) -> ScoreSeries:
    """The scores as the server sends them."""
    series = result.score_series
    scores = np.round(series.scores.astype(np.float64), 3).astype(np.float32)
    return ScoreSeries(
        series.labels, scores, series.step_s, series.resolution_s, series.start_s, series.end_s
    )


def set_threshold(page: Any, value: float) -> None:
    page.eval_on_selector(
        "#threshold",
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value,
    )


def time_s(page: Any) -> float:
    minutes, seconds = page.inner_text("#time").split(":")
    return 60 * float(minutes) + float(seconds)


def test_events_are_those_of_the_library(page: Any, result: Result) -> None:
    found, expected = rows(page), expected_rows(result.events())
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    scores = [float(row[3]) for row in found]
    assert scores == pytest.approx([float(row[3]) for row in expected], abs=0.011)
    assert page.inner_text("#count").startswith(f"{len(expected)} events")


def test_what_a_score_is_and_how_precise_times_are_is_said(page: Any) -> None:
    note = page.inner_text("#scores-note")
    assert "not probabilities" in note
    assert "1.25 s" in note


def test_waveform_spectrogram_and_lanes_are_drawn(page: Any) -> None:
    """Each picture has many colours, none is blank."""
    colours = """canvas => {
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(new Uint32Array(pixels.buffer)).size;
    }"""
    assert page.eval_on_selector("#spectrogram", colours) > 100
    assert page.eval_on_selector("#lanes", colours) > 10
    inside = "host => [...host.firstElementChild.shadowRoot.querySelectorAll('canvas')]"
    assert page.eval_on_selector("#waveform", f"host => ({inside})(host).some(one => ({colours})(one) > 5)")


def test_click_on_an_event_plays_it_to_its_end(page: Any) -> None:
    row = page.locator("#events tbody tr", has_text="Rain").first
    row.get_by_role("button").click()
    start, end = (60 * float(one.split(":")[0]) + float(one.split(":")[1]) for one in rows_of(row))
    page.wait_for_selector("#events tr[aria-current].is-on")
    first = time_s(page)
    assert start <= first < end
    wait_until(page, f"document.getElementById('time').innerText !== '{page.inner_text('#time')}'")
    assert time_s(page) > first
    assert "Rain" in page.inner_text("#status")
    page.wait_for_selector("#play[aria-label=Play]", timeout=30_000)
    assert time_s(page) == pytest.approx(end, abs=0.35)
    assert not page.query_selector("#events tr.is-on")


def rows_of(row: Any) -> list[str]:
    return row.locator("td").all_inner_texts()[1:3]


def test_click_on_a_lane_plays_the_event_there(page: Any) -> None:
    box = page.locator("#lanes").bounding_box()
    page.mouse.click(box["x"] + 0.03 * box["width"], box["y"] + 12)  # the first lane starts with an event
    page.wait_for_selector("#play[aria-label=Pause]")
    lane = page.locator("#lane-names li").first.inner_text()
    assert page.locator("#events tr[aria-current] th").inner_text() == lane


def test_click_on_the_spectrogram_seeks(page: Any) -> None:
    box = page.locator("#spectrogram").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    assert time_s(page) == pytest.approx(15.0, abs=0.3)


def test_threshold_detects_again_without_a_request(page: Any, watched: Watched, result: Result) -> None:
    before = len(watched.requests)
    for threshold in (0.8, 0.3):
        set_threshold(page, threshold)
        options = earmark.EventOptions(threshold=threshold)
        expected = expected_rows(tuple(detect(rounded(result), options)))
        assert [row[:3] for row in rows(page)] == [row[:3] for row in expected]
        assert page.inner_text("#threshold-text") == f"{threshold:.2f}"
    assert len(watched.requests) == before
    set_threshold(page, 1.0)
    assert page.is_visible("#none")
    assert page.is_disabled("[data-format=csv]")


def test_search_filters_events_and_says_how_many(page: Any) -> None:
    total = len(rows(page))
    page.fill("#search", "THUNDER")
    labels = {row[0] for row in rows(page)}
    assert labels == {"Thunder", "Thunderstorm"}
    assert page.inner_text("#count") == f"{len(rows(page))} of {total} events, 2 sounds"
    assert page.locator("#lane-names li").count() == 2
    page.fill("#search", "no such sound")
    assert page.is_visible("#none")


@pytest.mark.parametrize(
    ("form", "suffix"), [(Format.CSV, ".csv"), (Format.JSON, ".json"), (Format.AUDACITY, ".txt")]
)
def test_downloads_are_the_files_of_the_command(page: Any, result: Result, form: Format, suffix: str) -> None:
    page.fill("#search", "Thunder")
    with page.expect_download() as download:
        page.click(f"[data-format={form.value}]")
    assert download.value.suggested_filename == f"farm{suffix}"
    text = download.value.path().read_text(encoding="utf-8")
    layout = event_layout(form)
    events = [event for event in result.events() if "Thunder" in event.label]
    expected = layout.head + layout.render(RecordingEvents(result, events)) + layout.tail
    if form == Format.AUDACITY:
        assert text == expected
    elif form == Format.CSV:
        ours, theirs = (list(csv.DictReader(io.StringIO(one))) for one in (text, expected))
        assert [one.keys() for one in ours] == [one.keys() for one in theirs]
        for our, their in zip(ours, theirs, strict=True):
            assert our["path"] == "farm.ogg"
            for name in ("label", "start_s", "end_s", "resolution_s", "calibrated"):
                assert our[name] == their[name]
            for name in ("peak", "mean"):  # the server sends thousandths
                assert float(our[name]) == pytest.approx(float(their[name]), abs=1e-3)
    else:
        [our], [their] = json.loads(text), json.loads(expected)
        assert our.keys() == their.keys()
        assert our["events"][0].keys() == their["events"][0].keys()
        assert [one["label"] for one in our["events"]] == [one["label"] for one in their["events"]]
        assert our["model"] == SHIPPED


def test_keys(page: Any) -> None:
    page.focus("#main")
    page.keyboard.press("ArrowRight")
    first = page.locator("#events tr[aria-current] th").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#events tr[aria-current]").count() == 1
    assert "event" in page.inner_text("#status")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#events tr[aria-current] th").inner_text() == first
    page.keyboard.press(" ")
    page.wait_for_selector("#play[aria-label=Pause]")
    page.keyboard.press(" ")
    page.wait_for_selector("#play[aria-label=Play]")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("dog ?")  # keys are text here
    assert page.input_value("#search") == "dog ?"
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")


def test_zoom_keeps_pictures_in_step(page: Any) -> None:
    for _ in range(3):
        page.click("#zoom-in")
    page.wait_for_selector("#spectrogram[data-complete=true]")
    assert page.is_visible("#scrollbar")
    marks = page.locator("#ruler span").all_inner_texts()
    page.eval_on_selector("#scrollbar", "bar => (bar.scrollLeft = bar.scrollWidth)")
    wait_until(page, f"document.querySelector('#ruler').innerText !== {json.dumps(''.join(marks))}")
    box = page.locator("#spectrogram").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + 10)
    assert time_s(page) == pytest.approx(30.0, abs=0.1)
    for _ in range(3):
        page.click("#zoom-out")
    assert page.is_hidden("#scrollbar")


def test_model_is_a_choice(opened: Open) -> None:
    watched = opened()
    page = watched.page
    assert page.input_value("#model") == SHIPPED
    load(page)
    page.select_option("#model", "toy")
    wait_until(page, "document.getElementById('facts').innerText.includes('toy')")
    assert {row[0] for row in rows(page)} <= {"tone", "noise"}
    assert any("model=toy" in one for one in watched.requests)


def test_dropped_file_is_analysed(opened: Open) -> None:
    page = opened().page
    content = page.evaluate_handle(
        """async (name) => {
            const data = new DataTransfer();
            const samples = new Uint8Array(44 + 16000);
            data.items.add(new File([new TextEncoder().encode("not sound")], name));
            return data;
        }""",
        "notes.txt",
    )
    page.dispatch_event("body", "drop", {"dataTransfer": content})
    page.wait_for_selector("#problem:visible")
    assert "WAV" in page.inner_text("#problem-title")


def test_another_recording_starts_again(opened: Open) -> None:
    page = opened().page
    load(page)
    page.click("#another")
    assert page.is_visible("#choose")
    assert page.is_hidden("#result")
    load(page)
    assert rows(page)
