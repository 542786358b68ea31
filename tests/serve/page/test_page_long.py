"""An hour on the page: it is shown, and the threshold still answers at once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tests_of_page import Open, load

pytestmark = pytest.mark.slow
"""An hour of sound, in Chromium."""

HOUR_S, HOP_S, CLASSES = 3600, 0.3125, 60


def answer() -> str:
    """An answer of the server whose scores wander, with thousands of events."""
    generator = np.random.default_rng(0)
    steps = round(HOUR_S / HOP_S)
    walk = np.cumsum(generator.normal(0, 0.1, (steps, CLASSES)), 0)
    scores = np.round(np.abs(walk % 2 - 1), 3)
    labels = [f"sound {number}" for number in range(CLASSES)]
    facts = {"start_s": 0, "hop_s": HOP_S, "resolution_s": 1.25, "labels": labels}
    timeline = facts | {"thresholds": [0.5] * CLASSES, "scores": scores.tolist()}
    return json.dumps({"model": "mn05_open", "duration_s": HOUR_S, "events": [], "timeline": timeline})


def test_an_hour_stays_usable(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    samples = np.random.default_rng(1).normal(0, 0.05, HOUR_S * 8000).astype(np.float32)
    soundfile.write(path, samples, 8000, "PCM_16")
    page = opened().page
    body = answer()
    page.route("**/v1/events*", lambda route: route.fulfill(content_type="application/json", body=body))
    load(page, path)
    assert page.inner_text("#total") == "1:00:00.0"
    assert page.is_hidden("#picture-note")  # there is a waveform
    count = int(page.inner_text("#count").split(" ")[0].replace(",", ""))
    assert count > 1000
    assert page.locator("#events tbody tr").count() <= 200  # the others on request
    page.click("#rows-more")
    assert page.locator("#events tbody tr").count() == 400
    assert taken_ms(page, 0.9) < 2000
    for _ in range(6):
        page.click("#zoom-in")
    page.wait_for_selector("#spectrogram[data-complete=true]")
    page.eval_on_selector("#scrollbar", "bar => (bar.scrollLeft = bar.scrollWidth)")
    page.wait_for_selector("#ruler span:has-text('59:')")
    page.wait_for_selector("#spectrogram[data-complete=true]")


def taken_ms(page: Any, threshold: float) -> float:
    """How long the page is busy after the threshold was moved."""
    return float(
        page.evaluate(
            """(threshold) => {
                const slider = document.getElementById("threshold");
                slider.value = threshold;
                const start = performance.now();
                slider.dispatchEvent(new Event("input"));
                return performance.now() - start;
            }""",
            threshold,
        )
    )
