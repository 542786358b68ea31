"""What the page says when something fails: a sentence that helps, and the page goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests_of_page import FARM, Open, load, wait_until

pytestmark = pytest.mark.slow
"""Chromium takes seconds to start."""

EVENTS = "**/v1/events*"


def refused(page: Any, status: int, code: str, message: str = "so it is") -> None:
    body = json.dumps({"error": {"code": code, "message": message}})
    page.route(EVENTS, lambda route: route.fulfill(status=status, content_type="application/json", body=body))


def problem(page: Any) -> tuple[str, str]:
    """What helps, and what the server said; the recording can be chosen again."""
    page.wait_for_selector("#problem:visible")
    assert page.is_visible("#choose")
    assert page.is_enabled("#choose")
    return page.inner_text("#problem-title"), page.inner_text("#problem-detail")


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (401, "unauthorized", "token"),
        (408, "request_timeout", "shorter"),
        (413, "too_large", "FLAC or MP3"),
        (413, "too_long", "Cut it"),
        (429, "queue_full", "try again"),
        (503, "unavailable", "try again"),
        (500, "internal_error", "Try again"),
    ],
)
def test_refusals_of_the_server(opened: Open, status: int, code: str, remedy: str) -> None:
    page = opened().page
    refused(page, status, code)
    page.set_input_files("#file", FARM)
    title, detail = problem(page)
    assert remedy in title
    assert detail == "so it is"
    page.unroute(EVENTS)
    load(page)  # it goes on
    assert page.is_hidden("#problem")


def test_answer_that_is_no_json(opened: Open) -> None:
    page = opened().page
    page.route(EVENTS, lambda route: route.fulfill(status=502, body="<html>bad gateway"))
    page.set_input_files("#file", FARM)
    assert "502" in problem(page)[1]


def test_server_that_is_gone(opened: Open) -> None:
    page = opened().page
    page.route(EVENTS, lambda route: route.abort())
    page.set_input_files("#file", FARM)
    assert "earmark serve" in problem(page)[0]


def test_failure_keeps_the_recording_that_was_shown(opened: Open) -> None:
    page = opened().page
    load(page)
    refused(page, 429, "queue_full")
    page.set_input_files("#file", FARM)
    page.wait_for_selector("#problem:visible")
    assert page.locator("#events tbody tr").count()
    assert page.is_visible("#result")
    page.click("#problem-close")
    assert page.is_hidden("#problem")


def test_server_without_models(opened: Open, server: str) -> None:
    page = opened().page
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert "earmark serve" in page.inner_text("#problem-title")
    page.set_input_files("#file", FARM)
    wait_until(page, "document.getElementById('problem-title').innerText.includes('models')")


def test_file_that_is_not_sound(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing to be heard\n" * 500)
    page = opened().page
    page.set_input_files("#file", path)
    assert "not sound" in problem(page)[0]


def test_empty_file(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.touch()
    watched = opened()
    watched.page.set_input_files("#file", path)
    assert "empty" in problem(watched.page)[0]
    assert not any("/v1/events" in one for one in watched.requests)


def test_upload_is_cancelled(opened: Open) -> None:
    page = opened().page
    page.route(EVENTS, lambda route: None)  # it never answers
    page.set_input_files("#file", FARM)
    page.wait_for_selector("#work:visible")
    assert "farm.ogg" in page.inner_text("#work-text") or "Finding" in page.inner_text("#work-text")
    page.click("#cancel")
    assert page.is_hidden("#work")
    assert page.is_hidden("#problem")
    page.unroute(EVENTS)
    load(page)


@pytest.mark.parametrize(
    ("script", "remedy"),
    [
        ("throw new DOMException('no', 'NotAllowedError')", "Allow it"),
        ("throw new DOMException('no', 'NotFoundError')", "Connect one"),
        ("throw new DOMException('no', 'NotReadableError')", "other programs"),
    ],
)
def test_microphone_that_cannot_be_opened(opened: Open, script: str, remedy: str) -> None:
    page = opened().page
    page.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = async () => {{ {script} }}; }}")
    page.click("#record")
    assert remedy in problem(page)[0]
    page.click("#problem-close")
    page.click("#tab-live")
    page.click("#live-button")
    page.wait_for_selector("#problem:visible")
    assert remedy in page.inner_text("#problem-title")
    assert page.inner_text("#live-button") == "Listen"


def test_microphone_that_the_browser_refuses(opened: Open) -> None:
    """Without a permission or a device, as it is in headless Chromium."""
    page = opened().page
    page.click("#record")
    assert "microphone" in problem(page)[0].lower()


def test_page_that_may_not_use_a_microphone(opened: Open) -> None:
    page = opened().page
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.click("#record")
    assert "HTTPS" in problem(page)[0]
