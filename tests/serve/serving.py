"""A server in a thread of the tests, and sounds to send to it."""

import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
from toy import SAMPLE_RATE, sound
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import earmark
from earmark.serve.access import LOOPBACK, Access
from earmark.serve.limits import Limits
from earmark.serve.models import Models
from earmark.serve.server import Server, open_socket
from earmark.serve.state import ServerState

WAV = "audio/wav"


@contextmanager
def serving(
    taggers: list[earmark.Tagger],
    limits: Limits | None = None,
    access: Access | None = None,
    send_buffer: int | None = None,
) -> Iterator[httpx.Client]:
    """Runs a server; yields a client of it. A small send buffer makes clients that do not read felt soon."""
    state = ServerState(
        Models(taggers), limits or Limits(workers=2), access or Access(hosts=frozenset(LOOPBACK))
    )
    opened, started = open_socket("127.0.0.1", 0), threading.Event()
    if send_buffer:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    server = Server(state, started.set)
    port = opened.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([opened],))
    thread.start()
    try:
        assert started.wait(30)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            client.server = server  # type: ignore[attr-defined]
            yield client
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def waveform(seconds: float = 3.0) -> np.ndarray:
    """A tone, then noise, and so on, a second each."""
    generator = np.random.default_rng(3)
    parts = [sound(("tone", "noise")[number % 2], generator) for number in range(int(2 * seconds) + 2)]
    joined = np.concatenate(parts)
    return joined[: round(seconds * SAMPLE_RATE)].astype(np.float32)


def wav(
    samples: np.ndarray, sample_rate: int = SAMPLE_RATE, kind: str = "WAV", subtype: str = "PCM_16"
) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=kind, subtype=subtype)
    return file.getvalue()


def post(
    client: httpx.Client, path: str, content: Any, kind: str | None = WAV, **more: Any
) -> httpx.Response:
    headers = {} if kind is None else {"Content-Type": kind}
    return client.post(path, content=content, headers=headers | more.pop("headers", {}), **more)


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which has the form of all errors."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    assert error["message"]
    assert "\n" not in error["message"]
    return answer.status_code, error["code"]


def listening(client: httpx.Client, **more: Any) -> connect:
    """A WebSocket to the server of a client, for use in a ``with`` statement."""
    address = str(client.base_url).replace("http", "ws").rstrip("/")
    return connect(f"{address}/v1/listen", proxy=None, open_timeout=10, **more)


def messages(connection: ClientConnection) -> list[dict[str, Any]]:
    """All messages up to the end of a connection, whatever its code."""
    found = []
    with suppress(ConnectionClosed):
        while True:
            found.append(json.loads(connection.recv(timeout=30)))
    return found


def in_process(paths: list[Path]) -> list[earmark.Tagger]:
    return [earmark.load(path, threads=1) for path in paths]
