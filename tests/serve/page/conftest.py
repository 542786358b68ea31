"""The page in a real browser, from a real server."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests_of_page import SHIPPED, Open, Watched, foreign, open_page

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, toy_model: Path) -> Iterator[str]:
    """The address of ``earmark serve`` with the shipped model and a small one."""
    pytest.importorskip("fastapi", reason="needs the extra 'serve'")
    environment = os.environ | {"EARMARK_CACHE": str(tmp_path_factory.mktemp("served"))}
    command = [sys.executable, "-m", "earmark", "serve", "--port", "0", "-m", SHIPPED, "-m", str(toy_model)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://\S+/", line)
            assert found, line
            yield found[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Any]]:
    """Starts Chromium with further arguments."""
    pytest.importorskip("playwright", reason="needs playwright, of the extra 'dev'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    with sync_playwright() as playwright:
        started: list[Any] = []

        def start(*arguments: str) -> Any:
            options: dict[str, Any] = {"executable_path": chromium, "env": environment}
            started.append(playwright.chromium.launch(args=[*ARGUMENTS, *arguments], **options))
            return started[-1]

        yield start
        for browser in started:
            browser.close()


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Any]) -> Any:
    return launch()


@pytest.fixture
def opened(browser: Any, server: str) -> Iterator[Open]:
    """Opens pages, each with a profile of its own, that ask nobody but the server."""
    pages: list[Watched] = []

    def start(**options: Any) -> Any:
        pages.append(open_page(browser, server, **options))
        return pages[-1]

    yield start
    for one in pages:
        assert not foreign(one.requests, server)
        one.page.context.close()
