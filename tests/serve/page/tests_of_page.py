"""Pages in a real browser: how they are opened, and what they asked for."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FARM = Path(__file__).resolve().parents[3] / "examples" / "farm.ogg"
SHIPPED = "mn05_open"
TIMEOUT_MS = 60_000  # of a machine that does other things too

Open = Callable[..., Any]


class Watched:
    """A page, what it asked for, and what it complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url.replace("ws", "http", 1)))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))


def open_page(browser: Any, address: str, **options: Any) -> Watched:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
    context.set_default_timeout(TIMEOUT_MS)
    watched = Watched(context.new_page())
    watched.page.goto(address)
    watched.page.wait_for_selector("body[data-ready]")
    return watched


def load(page: Any, path: Any = FARM) -> None:
    """Chooses a file and waits for its picture."""
    page.set_input_files("#file", path)
    page.wait_for_selector("#result:visible")
    page.wait_for_selector("#spectrogram[data-complete=true]")


def foreign(requests: list[str], server: str) -> list[str]:
    """Requests that left the server; those of blobs stay in the browser."""
    return [one for one in requests if not one.startswith((server, f"blob:{server}", "data:"))]


def wait_until(page: Any, expression: str) -> None:
    """Waits for an expression to be true; the page's policy forbids Playwright's own way, which is eval."""
    end = time.monotonic() + TIMEOUT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(30)
