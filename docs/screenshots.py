"""Pictures of the page: ``python docs/screenshots.py`` writes them into ``docs/images`` again.

Needs the extras "serve" and "dev", and Chromium (``apt-get install chromium``).
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
RECORDING = ROOT / "examples" / "farm.ogg"
PICTURES = {
    "page-light": {"viewport": {"width": 1200, "height": 1010}, "color_scheme": "light"},
    "page-dark": {"viewport": {"width": 1200, "height": 1010}, "color_scheme": "dark"},
    "page-phone": {"viewport": {"width": 360, "height": 780}, "color_scheme": "light"},
}
"""Name -> window."""
LARGEST = 300_000
"""Bytes of a picture."""


def main() -> None:
    """Writes all pictures."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("screenshots.py: needs Chromium: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with server() as address, sync_playwright() as playwright:
        options = {"executable_path": chromium, "args": arguments, "env": environment}
        browser = playwright.chromium.launch(**options)
        for name in PICTURES:
            path = IMAGES / f"{name}.png"
            take(browser, address, path)
            size = path.stat().st_size
            print(f"{path.relative_to(ROOT)}: {size / 1e3:.0f} kB")
            if size > LARGEST:
                sys.exit(f"screenshots.py: {path.name} is larger than {LARGEST / 1e3:.0f} kB")
        browser.close()


def take(browser: Browser, address: str, path: Path) -> None:
    """Writes a picture of the page with the example recording, some seconds into it."""
    page = browser.new_page(**PICTURES[path.stem])
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    page.set_input_files("#file", RECORDING)
    page.wait_for_selector("#result:visible")
    page.wait_for_selector("#spectrogram[data-complete=true]")
    box = page.locator("#spectrogram").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.47 * box["width"], box["y"] + 20)
    page.mouse.move(2, 2)
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    page.close()


@contextmanager
def server() -> Iterator[str]:
    """Runs ``earmark serve`` and yields its address."""
    command = [sys.executable, "-m", "earmark", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://\S+/", line)
            if found is None:
                sys.exit(f"screenshots.py: {line}")
            yield found[0]
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
