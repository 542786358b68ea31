"""The static page in Chromium: its answers are those of earmark in Python, and nothing leaves its server."""

import http.server
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import toy

import earmark
from earmark.export.export import export
from earmark.export.options import ExportOptions
from earmark.export.source import ExportSource, open_source
from earmark.inference.local_scores import finest_scores
from earmark.model_file.calibration import Isotonic, Platt, Temperature
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file, replace_info
from earmark.serve.browser_model import browser_model
from earmark.serve.onnxruntime_web import web_runtime
from earmark.serve.static_page import write_page

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
FARM = ROOT / "examples" / "farm.ogg"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ANALYSE = """async ([backend, files]) => {
    const { analyse, models } = await import(backend);
    const [card] = await models();
    const answers = [];
    for (const [name, address] of files) {
        const content = await (await fetch(address)).blob();
        answers.push(await analyse(new File([content], name)));
    }
    return { card, answers };
}"""
LISTEN = """async ([backend, address, rate, size]) => {
    const { listen } = await import(backend);
    const samples = new Float32Array(await (await fetch(address)).arrayBuffer());
    const messages = [];
    const stream = await listen({ sampleRate: rate, onMessage: (message) => messages.push(message) });
    for (let at = 0; at < samples.length; at += size) {
        stream.feed(samples.subarray(at, at + size));
        const heard = () => messages.findLast((message) => message.type === "scores")?.time_s ?? 0;
        while (heard() < at / rate - 5) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await stream.stop();
    return messages;
}"""

Evaluate = Callable[[Path, str, list[Any]], Any]
Site = tuple[Path, str]
OpenBrowser = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def modules() -> Path:
    folder = Path(os.environ.get("EARMARK_NODE_MODULES", ROOT / "node_modules")) / "onnxruntime-web"
    if not folder.is_dir():
        pytest.skip("needs onnxruntime-web in node_modules or $EARMARK_NODE_MODULES")
    return folder


@pytest.fixture(scope="module")
def open_browser() -> Iterator[OpenBrowser]:
    """Opens browser windows of a new profile each, without proxies."""
    playwright_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    with playwright_api.sync_playwright() as playwright:

        @contextmanager
        def opened(*arguments: str) -> Iterator[Any]:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
                context = playwright.chromium.launch_persistent_context(
                    profile, executable_path=path, args=[*ARGUMENTS, *arguments], env=environment
                )
                context.set_default_timeout(60_000)
                try:
                    yield context.new_page()
                finally:
                    context.close()

        yield opened


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A folder that Python's http.server serves, and its address."""
    folder = tmp_path_factory.mktemp("site")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def page(site: Site, modules: Path) -> Path:
    """The page of the model that ships, below the root of the server."""
    folder = site[0] / "some where" / "page"
    made = browser_model([open_source("mn05_open")], ExportOptions(waveform=True))
    write_page(folder, made, web_runtime(modules))
    return folder


@pytest.fixture(scope="module")
def window(open_browser: OpenBrowser) -> Iterator[Any]:
    """A window, and in ``window.requested`` every address that it asked for."""
    with open_browser() as tab:
        tab.requested = []
        tab.on("request", lambda request: tab.requested.append(request.url))
        yield tab


@pytest.fixture(scope="module")
def in_page(site: Site, window: Any) -> Evaluate:
    """Runs JavaScript in a page, with the address of its backend as the first argument."""
    folder, url = site

    def evaluate(page: Path, script: str, arguments: list[Any]) -> Any:
        address = f"{url}/{page.relative_to(folder).as_posix()}/".replace(" ", "%20")
        if window.url != address:
            window.goto(address)
        return window.evaluate(script, [f"{address}backend_local.js", *arguments])

    return evaluate


def largest_differences(answer: dict[str, Any], tagger: earmark.Tagger, path: Path) -> tuple[float, float]:
    """The largest differences of tags, and of scores along time, from those in Python."""
    tags = {tag.label: tag for tag in tagger.tag(path).tags}
    assert len(answer["tags"]) == len(tags)
    differs = [abs(tag["score"] - tags[tag["label"]].score) for tag in answer["tags"]]
    finest, window_s, hop_s = finest_scores(tagger)
    result = finest.tag(path, window_s=window_s, hop_s=hop_s)
    series, timeline = result.score_series, answer["timeline"]
    chosen = [series.labels.index(label) for label in timeline["labels"]]
    assert set(np.flatnonzero(series.scores.max(0) >= 0.06)) <= set(chosen)
    expected, scores = series.scores[:, chosen], np.array(timeline["scores"]).reshape(len(series.scores), -1)
    assert answer["duration_s"] == pytest.approx(result.duration_s, abs=1e-3)
    assert timeline["hop_s"] == pytest.approx(series.step_s)
    assert timeline["resolution_s"] == pytest.approx(series.resolution_s)
    limits = dict(zip(finest.labels, finest.info.thresholds or [0.5] * len(finest.labels), strict=True))
    assert timeline["thresholds"] == pytest.approx([limits[label] for label in timeline["labels"]])
    return max(differs), float(np.abs(scores - expected).max(initial=0))


@pytest.fixture(scope="module")
def clips(site: Site) -> dict[str, Path]:
    """Recordings of several rates, channels, formats and lengths beside the page."""
    folder = site[0] / "clips"
    folder.mkdir()
    waveform, rate = soundfile.read(FARM, dtype="float32")
    paths = {name: folder / name for name in ("farm.ogg", "model.wav", "short.wav", "stereo.flac", "cd.wav")}
    shutil.copy(FARM, paths["farm.ogg"])
    soundfile.write(paths["model.wav"], waveform[: 37 * rate // 2], rate)
    soundfile.write(paths["short.wav"], waveform[: 7 * rate // 4], rate)
    louder = soxr.resample(waveform[: 12 * rate], rate, 48000)
    soundfile.write(paths["stereo.flac"], np.stack([louder, -0.9 * louder], 1), 48000)  # they cancel
    long = np.tile(soxr.resample(waveform, rate, 44100), 2)[: 41 * 44100]
    soundfile.write(paths["cd.wav"], np.stack([long, 0.5 * long], 1), 44100)
    return paths


def addresses(site: Site, paths: list[Path]) -> list[tuple[str, str]]:
    return [(path.name, f"{site[1]}/{path.relative_to(site[0]).as_posix()}") for path in paths]


def test_scores_are_those_of_python(
    in_page: Evaluate, page: Path, site: Site, clips: dict[str, Path]
) -> None:
    done = in_page(page, ANALYSE, [addresses(site, list(clips.values()))])
    tagger = earmark.load()
    for (name, path), answer in zip(clips.items(), done["answers"], strict=True):
        found = largest_differences(answer, tagger, path)
        print(name, found)
        assert max(found) < 1e-4, name
    assert done["card"]["name"] == "mn05_open"
    assert done["card"]["labels"] == list(tagger.labels)


def test_a_recording_of_half_the_rate(in_page: Evaluate, page: Path, site: Site, tmp_path: Path) -> None:
    """Between the programs that convert sample rates something differs at the edge of the band."""
    waveform, rate = soundfile.read(FARM, dtype="float32")
    path = site[0] / "half.wav"
    soundfile.write(path, soxr.resample(waveform, rate, 16000), 16000)
    [answer] = in_page(page, ANALYSE, [addresses(site, [path])])["answers"]
    tags, timeline = largest_differences(answer, earmark.load(), path)
    assert (tags < 0.01, timeline < 0.03) == (True, True)


def test_events_and_requests_of_the_page(window: Any, in_page: Evaluate, page: Path, site: Any) -> None:
    in_page(page, "() => null", [])
    window.requested.clear()
    window.reload()
    window.wait_for_selector("#model:enabled")
    window.set_input_files("#file", str(FARM))
    window.wait_for_selector("#result", state="visible")
    window.locator("#events tbody tr").nth(3).wait_for()
    table = window.inner_text("#events")
    assert "Dog" in table
    assert "Thunder" in table
    assert window.locator("#unserved").count() == 0
    assert window.requested
    own = (f"{site[1]}/some%20where/page/", "blob:", "data:")
    assert [address for address in window.requested if not address.startswith(own)] == []


def test_live_sound_has_the_events_of_a_listener(in_page: Evaluate, page: Path, site: Site) -> None:
    waveform, rate = soundfile.read(FARM, dtype="float32")
    waveform = soxr.resample(waveform, rate, 44100)
    (site[0] / "farm.raw").write_bytes(waveform.tobytes())
    messages = in_page(page, LISTEN, [f"{site[1]}/farm.raw", 44100, 2048])
    listener = earmark.load().listen(44100)
    notices = [*listener.feed(waveform), *listener.flush()]
    expected = [
        (f"event_{notice.kind}", notice.event.label, round(notice.event.start_s, 3), notice.event.peak)
        for notice in notices
    ]
    found = [one for one in messages if one["type"].startswith("event_")]
    assert [(one["type"], one["label"], one["start_s"]) for one in found] == [one[:3] for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one[3] for one in expected], abs=1e-3)
    ends = [notice.event.end_s for notice in notices if notice.kind == "end"]
    assert [one["end_s"] for one in found if one["type"] == "event_end"] == pytest.approx(ends, abs=1e-3)
    scores = [one for one in messages if one["type"] == "scores"]
    assert [one["time_s"] for one in scores] == pytest.approx(1 + 0.5 * np.arange(59))
    assert {len(one["top"]) for one in scores} == {5}
    assert messages[0] == {"type": "ready", "model": "mn05_open"}
    assert messages[-1] == {"type": "end", "events": len(ends)}


def test_the_microphone(open_browser: OpenBrowser, page: Path, site: Site, tmp_path: Path) -> None:
    waveform, rate = soundfile.read(FARM, dtype="float32")
    soundfile.write(tmp_path / "farm.wav", soxr.resample(waveform, rate, 48000), 48000)
    fake = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={tmp_path / 'farm.wav'}",
    )
    with open_browser(*fake) as tab:
        tab.goto(f"{site[1]}/some%20where/page/")
        tab.wait_for_selector("#model:enabled")
        tab.click("#tab-live")
        tab.click("#live-button")
        tab.locator("#live-log li:not(.is-on)").nth(2).wait_for()
        heard = tab.inner_text("#live-log")
        tab.click("#live-button")
        assert "Stopped" in tab.inner_text("#live-state")
    known = {"Crowing", "Rooster", "Chicken", "Animal", "Dog", "Bark", "Thunder"}
    assert any(label in heard for label in known), heard


def test_an_analysis_is_cancelled_and_the_next_one_works(
    in_page: Evaluate, page: Path, site: Site, clips: dict[str, Path]
) -> None:
    script = """async ([backend, address]) => {
        const { analyse } = await import(backend);
        const file = new File([await (await fetch(address)).blob()], "cd.wav");
        const controller = new AbortController();
        const shares = [];
        const onProgress = (share) => { shares.push(share); if (shares.length === 2) controller.abort(); };
        const { signal } = controller;
        const name = await analyse(file, { signal, onProgress }).catch((error) => error.name);
        return { name, shares, again: (await analyse(file)).model };
    }"""
    [(_, address)] = addresses(site, [clips["cd.wav"]])
    done = in_page(page, script, [address])
    assert (done["name"], done["again"]) == ("AbortError", "mn05_open")
    assert len(done["shares"]) == 2
    assert 0 < done["shares"][0] < done["shares"][1] < 1


@pytest.mark.parametrize(
    ("content", "code"),
    [("", "empty"), ("no sound", "unsupported_audio"), ("RIFF....WAVEfmt ", "unsupported_audio")],
)
def test_bad_recordings(in_page: Evaluate, page: Path, content: str, code: str) -> None:
    script = """async ([backend, content]) => {
        const { analyse } = await import(backend);
        return analyse(new File([content], "a.wav")).then(() => null, (error) => error.code);
    }"""
    assert in_page(page, script, [content]) == code


def test_a_page_opened_as_a_file_says_what_to_do(open_browser: OpenBrowser, page: Path) -> None:
    with open_browser() as tab:
        tab.goto((page / "index.html").as_uri())
        tab.wait_for_selector("#unserved", state="visible", timeout=20_000)
        assert "python -m http.server" in tab.inner_text("#unserved")


def test_a_file_of_the_page_is_missing(in_page: Evaluate, page: Path, site: Site) -> None:
    broken = site[0] / "broken"
    shutil.copytree(page, broken)
    (broken / "model" / "model.onnx").unlink()
    script = """async ([backend]) => (await import(backend)).models().catch((error) => error.message)"""
    assert "model.onnx" in in_page(broken, script, [])


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "platt": {"calibration": Platt((0.5, 2.0), (0.1, -1.0))},
    "isotonic": {"calibration": Isotonic(((-1.0, 0.0, 2.0), (0.0,)), ((0.1, 0.4, 0.9), (0.3,)))},
    "softmax": {"task": "single_label", "threshold": None},
    "temperature": {"task": "single_label", "calibration": Temperature(2.0), "padding": "zero"},
    "long": {"window_s": 6.0, "threshold": (0.3, 0.7)},
    "fixed": {},
}


@pytest.fixture(scope="module")
def waveform_toy(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ModelInfo]:
    """The content of a small model that takes waveforms, and its info."""
    path = tmp_path_factory.mktemp("waveform") / "toy.onnx"
    export(open_source(str(toy_model)), path, ExportOptions(waveform=True))
    return read_model_file(path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(
    kind: str, in_page: Evaluate, site: Site, modules: Path, waveform_toy: tuple[bytes, ModelInfo]
) -> None:
    """Calibrations, tasks, paddings, windows of one length, and windows longer than those along time."""
    folder, generator = site[0] / "kinds", np.random.default_rng(0)
    content, info = waveform_toy
    own = info.changed(**KINDS[kind])
    source = ExportSource(own, content=replace_info(content, own))
    seconds = own.window_s if kind == "fixed" else None
    made = browser_model([source], ExportOptions(waveform=True, seconds=seconds, name=kind))
    write_page(folder / kind, made, web_runtime(modules))
    model = folder / f"{kind}.onnx"
    model.write_bytes(made.files["model.onnx"])
    tagger = earmark.load(model)
    assert (made.card["timeline"]["local"] is None) == (kind == "fixed")
    paths = []
    for clip_s in (0.3, 1.3, 7.7):
        paths.append(folder / f"{clip_s}.wav")
        parts = [toy.sound(label, generator) for label in ("tone", "noise") * 20]
        waveform = np.concatenate(parts)[: round(clip_s * toy.SAMPLE_RATE)]
        soundfile.write(paths[-1], waveform, toy.SAMPLE_RATE, "FLOAT")  # Chromium scales integers by 32767
    answers = in_page(folder / kind, ANALYSE, [addresses(site, paths)])["answers"]
    for path, answer in zip(paths, answers, strict=True):
        assert answer["model"] == kind
        assert max(largest_differences(answer, tagger, path)) < 2e-4, path.name
