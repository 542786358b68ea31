"""Live sound over a WebSocket: the listener's events, and an error for every wrong frame."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import in_process, listening, messages, serving, waveform
from toy import SAMPLE_RATE
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

import earmark
from earmark.events.options import EventOptions
from earmark.serve.access import LOOPBACK, Access
from earmark.serve.limits import Limits

LIMITS = Limits(workers=2, streams=3, idle_s=2)
OPENING = {"sample_rate": SAMPLE_RATE}
STOP = json.dumps({"type": "stop"})


@pytest.fixture(scope="module")
def client(toy_model: Path) -> Iterator[httpx.Client]:
    with serving(in_process([toy_model]), LIMITS) as client:
        yield client
        assert answers_of(client, OPENING, [samples(1)])[-1]["type"] == "end", "the server goes on"


def samples(seconds: float) -> np.ndarray:
    return waveform(seconds).astype("<f4")


@contextmanager
def opened(client: httpx.Client, opening: Any = OPENING, **more: Any) -> Iterator[ClientConnection]:
    with listening(client, **more) as connection:
        connection.send(opening if isinstance(opening, (str, bytes)) else json.dumps(opening))
        yield connection


def answers_of(client: httpx.Client, opening: dict[str, Any], blocks: list[Any]) -> list[dict[str, Any]]:
    """All messages of a stream that is stopped after some blocks."""

    def send() -> None:
        with suppress(ConnectionClosed):
            for block in blocks:
                connection.send(block.tobytes() if isinstance(block, np.ndarray) else block)
            connection.send(STOP)

    with opened(client, opening) as connection:
        thread = threading.Thread(target=send)
        thread.start()
        found = messages(connection)
        thread.join()
        return found


def events_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in found if one["type"].startswith("event_")]


def wanted_events(model: Path, block: np.ndarray, rate: int, options: EventOptions) -> list[dict[str, Any]]:
    """What the listener says, as messages."""
    listener = earmark.load(model).listen(rate, options)
    notices = listener.feed(block) + listener.flush()
    return [
        {"type": f"event_{one.kind}", "label": one.event.label, "start_s": round(one.event.start_s, 3)}
        | ({"end_s": round(one.event.end_s, 3)} if one.kind == "end" else {})
        | {"score": round(one.event.peak, 4)}
        for one in notices
    ]


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(401, 9000), min_size=1, max_size=5))
def test_events_are_the_listeners_for_frames_of_any_size(
    client: httpx.Client, toy_model: Path, sizes: list[int]
) -> None:
    block = samples(4)
    content, blocks = block.tobytes(), []
    while content:
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(content[:size])
        content = content[size:]
    found = answers_of(client, {**OPENING, "threshold": 0.6}, blocks)
    wanted = wanted_events(toy_model, block, SAMPLE_RATE, EventOptions(0.6))
    assert events_of(found) == wanted
    assert len(wanted) >= 4
    starts = sum(one["type"] == "event_start" for one in wanted)
    assert found[-1] == {"type": "end", "events": starts, "time_s": 4.0, "reason": "client"}


def test_every_hop_has_its_scores(client: httpx.Client, toy_model: Path) -> None:
    block = samples(4)
    found = answers_of(client, {**OPENING, "top": 2}, [block])
    ready, scores = found[0], [one for one in found if one["type"] == "scores"]
    assert (ready["type"], ready["model"]) == ("ready", "toy")
    tagger = earmark.load(toy_model)
    windows = list(tagger.stream([block], SAMPLE_RATE, window_s=ready["window_s"], hop_s=ready["hop_s"]))
    assert len(scores) in (len(windows), len(windows) - 1), "a last window off the grid has no message"
    for message, window in zip(scores, windows, strict=False):
        assert {one["label"]: one["score"] for one in message["top"]} == pytest.approx(
            dict(zip(tagger.labels, window.scores.tolist(), strict=True)), abs=1e-4
        )
    times = [one["time_s"] for one in scores]
    assert times == sorted(times)


@pytest.mark.parametrize("channels", [1, 2])
def test_other_formats(client: httpx.Client, toy_model: Path, channels: int) -> None:
    mono = (waveform(4) * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2")
    block = np.repeat(mono[:, None], channels, 1)
    opening = {
        "sample_rate": 16000,
        "format": "s16le",
        "channels": channels,
        "model": "toy",
        "threshold": None,
    }
    found = answers_of(client, opening, [block])
    assert events_of(found) == wanted_events(toy_model, block, 16000, EventOptions())


def closed(connection: ClientConnection) -> tuple[str, int]:
    """The code of the error, and that which closed the connection."""
    [*_, last] = messages(connection)
    assert last["type"] == "error"
    assert last["message"]
    assert connection.protocol.close_code is not None
    return last["code"], connection.protocol.close_code


OPENINGS = {
    "bytes": (b"\0\0", "unexpected_message", 1003),
    "no JSON": ("hello", "invalid_json", 1007),
    "a list": ("[1]", "invalid_json", 1007),
    "deep JSON": ("[" * 100_000, "invalid_json", 1007),
    "no rate": ("{}", "invalid_parameter", 1007),
    "rate in words": ('{"sample_rate": "fast"}', "invalid_parameter", 1007),
    "rate 0": ('{"sample_rate": 0}', "unsupported_audio", 1003),
    "NaN": ('{"sample_rate": 8000, "threshold": NaN}', "invalid_parameter", 1007),
    "unknown key": ('{"sample_rate": 8000, "path": "/etc/passwd"}', "invalid_parameter", 1007),
    "unknown format": ('{"sample_rate": 8000, "format": "mp3"}', "unsupported_audio", 1003),
    "many channels": ('{"sample_rate": 8000, "channels": 1000}', "unsupported_audio", 1003),
    "unknown model": ('{"sample_rate": 8000, "model": "/etc/passwd"}', "unknown_model", 1008),
    "threshold": ('{"sample_rate": 8000, "threshold": 2}', "invalid_parameter", 1007),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_first_frames(client: httpx.Client, name: str) -> None:
    frame, error, closing = OPENINGS[name]
    with opened(client, frame) as connection:
        assert closed(connection) == (error, closing)


FRAMES = {
    "odd bytes at the end": ([bytes(4001), STOP], "partial_sample", 1007),
    "NaN": ([np.full(100, np.nan, "<f4").tobytes()], "unreadable_audio", 1007),
    "infinite": ([np.full(100, np.inf, "<f4").tobytes()], "unreadable_audio", 1007),
    "text": ([bytes(400), "hello"], "invalid_json", 1007),
    "unknown message": (['{"type": "go"}'], "unexpected_message", 1003),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(client: httpx.Client, name: str) -> None:
    frames, error, closing = FRAMES[name]
    with opened(client) as connection:
        for frame in frames:
            connection.send(frame)
        assert closed(connection) == (error, closing)


def test_a_stream_without_samples(client: httpx.Client) -> None:
    found = answers_of(client, OPENING, [])
    assert [one["type"] for one in found] == ["ready", "end"]
    assert [one["type"] for one in answers_of(client, OPENING, [b""])] == ["ready", "end"]


def test_a_frame_that_is_too_large(client: httpx.Client) -> None:
    with opened(client) as connection:
        with suppress(ConnectionClosed):  # the server does not wait for its end
            connection.send(bytes(1 << 21))
            messages(connection)
        assert connection.protocol.close_code == 1009


@pytest.mark.parametrize("is_polite", [True, False])
def test_clients_that_leave_in_mid_stream(client: httpx.Client, is_polite: bool) -> None:
    for _ in range(LIMITS.streams + 1):
        with opened(client) as connection:
            assert json.loads(connection.recv(timeout=10))["type"] == "ready"
            connection.send(bytes(4001))
            if not is_polite:
                connection.socket.shutdown(socket.SHUT_RDWR)
        wait_for_streams(client, 0)


def test_a_client_that_stops_within_a_frame(client: httpx.Client) -> None:
    with opened(client) as connection:
        assert json.loads(connection.recv(timeout=10))["type"] == "ready"
        connection.socket.sendall(b"\x82\xfe\x10\x00abcd" + bytes(100))  # 4096 bytes were promised
        assert closed(connection) == ("too_slow", 1008)
    wait_for_streams(client, 0)


def wait_for_streams(client: httpx.Client, count: int) -> None:
    end = time.monotonic() + 10
    while f"earmark_streams {count}.0" not in client.get("/metrics").text:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_silent_client_is_told_and_dropped(client: httpx.Client) -> None:
    with opened(client) as connection:
        assert closed(connection) == ("too_slow", 1008)


def test_a_client_that_does_not_read_is_dropped(toy_model: Path) -> None:
    with serving(in_process([toy_model]), LIMITS, send_buffer=4096) as client:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect((client.base_url.host, client.base_url.port))
        way = opened(client, sock=narrow, max_queue=1, close_timeout=1)
        with way as connection, pytest.raises((ConnectionClosed, OSError)):
            send_for_ever(connection, np.zeros(SAMPLE_RATE * 10, "<f4").tobytes())
        wait_for_streams(client, 0)


def send_for_ever(connection: ClientConnection, block: bytes) -> None:
    for _ in range(400):
        connection.send(block)


def test_no_more_streams_than_allowed(client: httpx.Client) -> None:
    with ExitStack() as several:
        for _ in range(LIMITS.streams):
            connection = several.enter_context(opened(client))
            assert json.loads(connection.recv(timeout=10))["type"] == "ready"
        with opened(client) as connection:
            assert closed(connection) == ("too_many_streams", 1013)
    wait_for_streams(client, 0)


def test_the_end_of_the_server_ends_streams(toy_model: Path) -> None:
    with serving(in_process([toy_model]), LIMITS) as client, opened(client) as connection:
        connection.send(samples(2).tobytes())
        assert json.loads(connection.recv(timeout=10))["type"] == "ready"
        client.server.should_exit = True  # type: ignore[attr-defined]
        [*_, last] = messages(connection)
        assert (last["type"], last["reason"], last["time_s"]) == ("end", "server", 2.0)
        assert connection.protocol.close_code == 1001


def test_pages_of_other_sites_are_refused(client: httpx.Client) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        refused(client)
    with listening(client, origin=str(client.base_url).rstrip("/")):
        pass


def refused(client: httpx.Client) -> None:
    with listening(client, origin="http://evil.example"):
        pass


def test_a_token(toy_model: Path) -> None:
    access = Access("secret", frozenset(LOOPBACK))
    with serving(in_process([toy_model]), access=access) as client:
        for opening in (OPENING, {**OPENING, "token": "wrong"}):
            with opened(client, opening) as connection:
                assert closed(connection) == ("unauthorized", 1008)
        for ways in (
            {"opening": {**OPENING, "token": "secret"}},
            {"subprotocols": ["earmark.token.secret"]},
            {"additional_headers": {"Authorization": "Bearer secret"}},
        ):
            with opened(client, **ways) as connection:
                assert json.loads(connection.recv(timeout=10))["type"] == "ready"
