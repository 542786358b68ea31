"""``earmark serve`` as a process: it starts, answers, and ends gracefully."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from serving import code, listening, messages, post, wav, waveform

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as on Unix")


@contextmanager
def process(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Starts a server on a free port; yields it, and a client."""
    command = [sys.executable, "-m", "earmark", "serve", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ) as started:
        try:
            assert started.stderr is not None
            line = started.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert found, line
            with httpx.Client(base_url=found[0], timeout=60, trust_env=False) as client:
                yield started, client
        finally:
            if started.poll() is None:
                started.kill()


def ended(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = started.communicate(timeout=60)
    return started.returncode, out, err


def test_a_server_ends_gracefully(toy_model: Path) -> None:
    """Running requests get their answers, streams their last message; then nothing listens any more."""
    with process("--model", toy_model) as (started, client), listening(client) as connection:
        assert client.get("/v1/models").json()["models"][0]["name"] == "toy"
        connection.send(json.dumps({"sample_rate": 8000}))
        assert json.loads(connection.recv(timeout=20))["type"] == "ready"
        with ThreadPoolExecutor(1) as thread:
            long = thread.submit(post, client, "/v1/events", wav(waveform(300)))
            wait_for(client, "earmark_requests_in_progress 1.0")
            started.send_signal(signal.SIGTERM)
            [*_, last] = messages(connection)
            answer = long.result()
        assert (last["type"], last["reason"]) == ("end", "server")
        assert answer.status_code == 200
        assert answer.json()["duration_s"] == 300
        assert ended(started) == (0, "", "")
        with pytest.raises(httpx.TransportError):
            client.get("/healthz")


def wait_for(client: httpx.Client, line: str) -> None:
    end = time.monotonic() + 20
    while line not in client.get("/metrics").text:
        assert time.monotonic() < end


@pytest.mark.slow
def test_ctrl_c_and_the_token_of_the_environment(toy_model: Path) -> None:
    with process("--model", toy_model, EARMARK_TOKEN="secret") as (started, client):
        assert code(client.get("/v1/models")) == (401, "unauthorized")
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        started.send_signal(signal.SIGINT)
        assert ended(started) == (0, "", "")


@pytest.mark.slow
def test_a_time_limit_also_ends_the_server(toy_model: Path) -> None:
    with process("--model", toy_model, "--timeout", 1) as (started, client), ThreadPoolExecutor(1) as thread:
        long = thread.submit(post, client, "/v1/events", wav(waveform(1500)))
        time.sleep(0.3)
        started.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert ended(started)[0] == 0
        assert time.monotonic() - begun < 20
        with suppress(httpx.TransportError):  # its connection may be closed with the server
            assert long.result().status_code in (200, 408, 503)
