"""The microphone on the page: live mode and recordings, with a fake one that hears a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from tests_of_page import FARM, Watched, foreign, open_page, wait_until

pytestmark = pytest.mark.slow
"""Chromium takes seconds to start."""

RATE = 48000


@pytest.fixture(scope="module")
def ear(launch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A browser whose microphone hears a rooster, again and again."""
    samples, sample_rate = soundfile.read(FARM, frames=3 * 32000)
    mono = samples if samples.ndim == 1 else samples.mean(1)
    path = tmp_path_factory.mktemp("fake") / "rooster.wav"
    soundfile.write(path, soxr.resample(mono, sample_rate, RATE), RATE, "PCM_16")
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    return launch(*fake, f"--use-file-for-fake-audio-capture={path}")


@pytest.fixture
def watched(ear: Any, server: str) -> Iterator[Watched]:
    one = open_page(ear, server)
    yield one
    assert not one.complaints
    assert not foreign(one.requests, server)
    one.page.context.close()


def test_live_sound(watched: Watched) -> None:
    page = watched.page
    page.click("#tab-live")
    page.click("#live-button")
    wait_until(page, "document.getElementById('live-state').innerText.startsWith('Listening')")
    page.wait_for_selector("#live-log li:has-text('Crowing')")
    top = page.locator("#live-top li").all_inner_texts()
    assert len(top) == 5
    scores = [float(one.split("\n")[1]) for one in top]
    assert scores == sorted(scores, reverse=True)
    assert float(page.inner_text("#live-time").split(":")[1]) > 0
    assert "not probabilities" in page.inner_text("#live-note")
    picture = """canvas => {
        const pixels = canvas.getContext("2d").getImageData(canvas.width - 60, 0, 60, canvas.height).data;
        return new Set(new Uint32Array(pixels.buffer)).size;
    }"""
    assert page.eval_on_selector("#live-spectrogram", picture) > 50
    page.click("#live-button")
    assert page.inner_text("#live-state") == "Stopped."
    wait_until(page, "!document.querySelector('#live-log li.is-on')")  # events end with the stream
    page.click("#live-button")
    wait_until(page, "document.getElementById('live-state').innerText.startsWith('Listening')")
    page.click("#tab-file")
    assert page.inner_text("#live-state") == "Stopped."


def test_live_sound_when_the_server_goes(watched: Watched) -> None:
    page = watched.page
    page.route_web_socket("**/v1/listen", lambda socket: socket.on_message(lambda _: socket.close(code=1011)))
    page.click("#tab-live")
    page.click("#live-button")
    page.wait_for_selector("#problem:visible")
    assert "Check that it runs" in page.inner_text("#problem-title")
    assert page.inner_text("#live-button") == "Listen"


def test_live_sound_that_the_server_refuses(watched: Watched) -> None:
    page = watched.page

    def refuse(socket: Any) -> None:
        socket.on_message(lambda _: None)
        socket.send('{"type": "error", "code": "too_many_streams", "message": "no more"}')
        socket.close(code=1013)

    page.route_web_socket("**/v1/listen", refuse)
    page.click("#tab-live")
    page.click("#live-button")
    page.wait_for_selector("#problem:visible")
    assert "Wait until one has ended" in page.inner_text("#problem-title")
    assert page.inner_text("#problem-detail") == "no more"


def test_recording_of_the_microphone(watched: Watched) -> None:
    page = watched.page
    page.click("#record")
    wait_until(page, "document.getElementById('recorder-time').innerText >= '0:03.5'")
    page.click("#recorder-stop")
    page.wait_for_selector("#result:visible")
    assert page.inner_text("#name").startswith("recording-")
    assert page.inner_text("#name").endswith(".wav")
    assert float(page.inner_text("#total").split(":")[1]) == pytest.approx(3.5, abs=1.5)
    assert page.locator("#events tbody tr", has_text="Crowing").count()
    page.click("#play")
    wait_until(page, "document.getElementById('time').innerText > '0:00.2'")


def test_recording_is_discarded(watched: Watched) -> None:
    page = watched.page
    page.click("#record")
    wait_until(page, "document.getElementById('recorder-time').innerText > '0:00.0'")
    page.click("#recorder-cancel")
    assert page.is_visible("#choose")
    assert not any("/v1/events" in one for one in watched.requests)


def test_long_wav_is_decoded_in_parts(ear: Any, server: str, tmp_path: Path) -> None:
    """The parts of a long file are in place: one tone after another, in the file as in the picture."""
    path = tmp_path / "long.wav"
    seconds = np.arange(75 * 8000) / 8000
    samples = np.where(seconds < 60, 0.0, 0.5 * np.sin(2 * np.pi * 1000 * seconds))
    soundfile.write(path, samples, 8000, "PCM_16")
    page = open_page(ear, server).page
    found = page.evaluate(
        """async (bytes) => {
            const { decodeFile } = await import("/static/decode.js");
            const decoded = await decodeFile(new File([Uint8Array.from(bytes)], "long.wav"));
            const power = (from, to) => {
                const part = decoded.samples.subarray(from * decoded.sampleRate, to * decoded.sampleRate);
                return part.reduce((sum, one) => sum + one * one, 0) / part.length;
            };
            const { durationS, fileRate } = decoded;
            return { durationS, fileRate, before: power(1, 59.9), after: power(60.1, 74.9) };
        }""",
        list(path.read_bytes()),
    )
    assert found["durationS"] == pytest.approx(75)
    assert found["fileRate"] == 8000
    assert found["before"] < 1e-6
    assert found["after"] == pytest.approx(0.125, rel=0.02)
    page.context.close()
