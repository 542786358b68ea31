"""Measures a static page: its time in Chromium, beside ONNX Runtime in Python in the same run.

    python -m benchmarks.browser [MODEL ...] --onnxruntime-web node_modules/onnxruntime-web [--rounds 7]

Both sides tag the same WAV file at the model's rate, decoding included, with one thread, and compute scores
along time; Python runs the graph of the page, with the log-mel in it. The sides take turns, and the median of
the rounds counts.

Conventions: a row per model. Needs Chromium and the extras ``train`` and ``dev``.
"""

from __future__ import annotations

import argparse
import http.server
import shutil
import statistics
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from playwright.sync_api import sync_playwright

import earmark
from earmark.export.options import ExportOptions
from earmark.export.source import open_source
from earmark.hub import registry
from earmark.inference.local_scores import finest_scores
from earmark.serve.browser_model import MODEL, BrowserModel, browser_model
from earmark.serve.onnxruntime_web import web_runtime
from earmark.serve.static_page import write_page

LENGTH_S, PART_S = 60, 5
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
RUN = """async () => {
    const { analyse } = await import("./backend_local.js");
    const file = new File([await (await fetch("noise.wav")).blob()], "noise.wav");
    const start = performance.now();
    await analyse(file);
    return (performance.now() - start) / 1000;
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Logs nothing."""

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


def measure(name: str, runtime_folder: Path | None, rounds: int) -> str:
    """A row: milliseconds of both sides, their ratio, and the speed in Chromium."""
    made = browser_model([open_source(name)], ExportOptions(waveform=True))
    with tempfile.TemporaryDirectory() as folder:
        page = write_page(Path(folder) / "page", made, web_runtime(runtime_folder)).folder
        clip = page / "noise.wav"
        rate = made.card["sample_rate_hz"]
        noise = 0.1 * np.random.default_rng(0).standard_normal(LENGTH_S * rate)
        soundfile.write(clip, noise, rate)
        browser, python = _rounds(page, made, rounds)
    cells = [f"{1e3 * seconds * PART_S / LENGTH_S:.0f}" for seconds in (browser, python)]
    return f"| `{name}` | {cells[0]} | {cells[1]} | {browser / python:.2f} | {LENGTH_S / browser:.0f} x |"


def _rounds(page: Path, made: BrowserModel, rounds: int) -> tuple[float, float]:
    """Median seconds of Chromium and of Python."""
    tagger = earmark.load(page / "model" / MODEL, threads=1)
    finest, window_s, hop_s = finest_scores(tagger)
    is_one_pass = made.card["tagging"]["window"] == made.card["timeline"]["window"]
    times: dict[str, list[float]] = {"browser": [], "python": []}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(page)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser: Any = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        tab = browser.new_page()
        tab.set_default_timeout(600_000)
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        for number in range(rounds + 1):  # the first warms up
            found = tab.evaluate(RUN)
            start = time.perf_counter()
            finest.tag(page / "noise.wav", window_s=window_s, hop_s=hop_s)
            if not is_one_pass:
                tagger.tag(page / "noise.wav")
            if number:
                times["browser"].append(found)
                times["python"].append(time.perf_counter() - start)
        browser.close()
    server.shutdown()
    return statistics.median(times["browser"]), statistics.median(times["python"])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=[registry.DEFAULT])
    parser.add_argument("--onnxruntime-web", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    print("| model | Chromium, ms per 5 s | Python, ms per 5 s | ratio | speed in Chromium |")
    print("| --- | --: | --: | --: | --: |")
    for name in given.models:
        print(measure(name, given.onnxruntime_web, given.rounds), flush=True)


if __name__ == "__main__":
    main()
