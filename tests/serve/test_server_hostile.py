"""Requests that are wrong, too much or malicious: an error to act on, and the server goes on."""

import ctypes
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving import WAV, code, in_process, post, serving, wav, waveform
from toy import SAMPLE_RATE
from toy_model import INFO

import earmark
from earmark.errors import DataError, ModelError
from earmark.serve.access import Access
from earmark.serve.limits import Limits
from earmark.serve.models import Models

SMALL = Limits(max_mb=0.5, max_duration_s=20, queue=4, timeout_s=5, workers=2, idle_s=1)
PCM = f"audio/pcm;rate={SAMPLE_RATE}"
FLOATS = f"{PCM};format=f32le"
OCTETS = "application/octet-stream"


@pytest.fixture(scope="module")
def client(toy_model: Path) -> Iterator[httpx.Client]:
    with serving(in_process([toy_model]), SMALL) as client:
        yield client
        goes_on(client)


def goes_on(client: httpx.Client) -> None:
    """The server answers as before, and has no request in progress."""
    answer = post(client, "/v1/tag", wav(waveform(1)))
    assert answer.status_code == 200, answer.text
    deadline = time.monotonic() + 10
    while "earmark_requests_in_progress 0.0" not in client.get("/metrics").text:
        assert time.monotonic() < deadline, "a place was never given back"
        time.sleep(0.05)


NAN = np.full(4000, np.nan, "<f4").tobytes()
BODIES = {
    "empty": (b"", WAV, 400, "empty_body"),
    "empty raw samples": (b"", PCM, 400, "empty_body"),
    "text": (b"hello\n" * 100, WAV, 415, "unsupported_audio"),
    "zip": (b"PK\3\4" + bytes(1000), OCTETS, 415, "unsupported_audio"),
    "one byte": (b"R", WAV, 415, "unsupported_audio"),
    "head of a WAV": (wav(waveform(1))[:44], WAV, 422, "unreadable_audio"),
    "damaged FLAC": (wav(waveform(1), kind="FLAC")[:60], "audio/flac", 415, "unsupported_audio"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(500), "video/mp4", 415, "unsupported_audio"),
    "JSON": (b'{"file": "/etc/passwd"}', "application/json", 415, "unsupported_content_type"),
    "curl's default": (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported_content_type"),
    "NaN": (NAN, FLOATS, 422, "unreadable_audio"),
    "infinite": (np.full(4000, np.inf, "<f4").tobytes(), FLOATS, 422, "unreadable_audio"),
    "not floats": (os.urandom(4000).replace(b"\0", b"\x7f"), FLOATS, 422, "unreadable_audio"),
    "half a sample": (bytes(4001), PCM, 400, "partial_sample"),
    "half a frame": (bytes(4002), f"{PCM};channels=2", 400, "partial_sample"),
    "no rate": (bytes(4000), "audio/pcm", 415, "unsupported_audio"),
    "rate in words": (bytes(4000), "audio/pcm;rate=fast", 415, "unsupported_audio"),
    "rate 0": (bytes(4000), "audio/pcm;rate=0", 415, "unsupported_audio"),
    "huge rate": (bytes(4000), "audio/pcm;rate=999999999", 415, "unsupported_audio"),
    "no channels": (bytes(4000), f"{PCM};channels=0", 415, "unsupported_audio"),
    "many channels": (bytes(4000), f"{PCM};channels=1000", 415, "unsupported_audio"),
    "unknown samples": (bytes(4000), f"{PCM};format=u4", 415, "unsupported_audio"),
    "too large": (bytes(600_000), PCM, 413, "too_large"),
    "too long": (bytes(2 * SAMPLE_RATE * 21), PCM, 413, "too_long"),
    "form without a boundary": (b"x", "multipart/form-data", 400, "bad_form"),
    "form that breaks off": (b"--b\r\nContent-Disp", "multipart/form-data; boundary=b", 400, "bad_form"),
    "form of bytes": (os.urandom(2000), "multipart/form-data; boundary=b", 400, "bad_form"),
    "odd content type": (b"x", "/;;=,", 415, "unsupported_content_type"),
    "long content type": (b"x", "a" * 5000, 415, "unsupported_content_type"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(client: httpx.Client, name: str) -> None:
    body, kind, status, error = BODIES[name]
    for route in ("tag", "events", "embed"):
        assert code(post(client, f"/v1/{route}", body, kind)) == (status, error)
    goes_on(client)


@pytest.mark.parametrize(
    "query",
    [
        "top=0",
        "top=-1",
        "top=1e9",
        "top=many",
        "threshold=2",
        "threshold=-0.1",
        "threshold=nan",
        "threshold=low",
        "windows=perhaps",
    ],
)
def test_parameters_of_tags(client: httpx.Client, query: str) -> None:
    answer = post(client, f"/v1/tag?{query}", wav(waveform(1)))
    assert code(answer) == (422, "invalid_parameter")
    assert query.partition("=")[0] in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "query", ["label=meow", "min_duration_s=-1", "merge_gap_s=inf", "threshold=1.01", "label="]
)
def test_parameters_of_events(client: httpx.Client, query: str) -> None:
    assert code(post(client, f"/v1/events?{query}", wav(waveform(1)))) == (422, "invalid_parameter")


def test_a_model_is_one_of_those_that_were_loaded(client: httpx.Client, toy_single_label_model: Path) -> None:
    for name in (str(toy_single_label_model), "mn05_open", "../toy.onnx", "x" * 3000):
        assert code(post(client, "/v1/tag", wav(waveform(1)), params={"model": name})) == (
            404,
            "unknown_model",
        )


def test_forms(client: httpx.Client) -> None:
    file = wav(waveform(1))
    for form in ({"file": (None, "/etc/passwd")}, {"other": file}):
        assert code(client.post("/v1/tag", files=form)) == (400, "bad_form")
    two = [("file", ("a.wav", file)), ("file", ("b.wav", file))]
    assert code(client.post("/v1/tag", files=two)) == (400, "bad_form")
    large = client.post("/v1/tag", files={"file": bytes(700_000)})
    assert code(large) == (413, "too_large")


def test_a_body_without_a_length_is_counted(client: httpx.Client) -> None:
    pieces = (bytes(50_000) for _ in range(40))
    assert code(post(client, "/v1/tag", pieces, PCM)) == (413, "too_large")


def test_a_long_recording_is_cut_off_while_it_is_decoded(client: httpx.Client) -> None:
    silence = np.zeros(SAMPLE_RATE * 1800, np.float32)
    file = wav(silence, kind="FLAC")
    assert len(file) < 500_000
    answer = post(client, "/v1/tag", file)
    assert code(answer) == (413, "too_long")
    assert "20 s" in answer.json()["error"]["message"]


class SlowSession:
    """A network that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.runs = seconds, 0

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.runs += 1
        time.sleep(self.seconds)
        return [np.zeros((1, 2), np.float32), np.zeros((1, 96), np.float32)]


def test_a_full_queue_and_a_time_limit() -> None:
    session = SlowSession(0.2)
    limits = Limits(workers=1, queue=2, timeout_s=0.5)
    with serving([earmark.Tagger(session, INFO)], limits) as client:
        file = wav(waveform(10))  # 20 windows, 4 s
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: post(client, "/v1/tag", file), range(8)))
        found = sorted(code(answer) for answer in answers)
        assert found == [(429, "queue_full")] * 5 + [(503, "timeout")] * 3
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        runs = session.runs
        time.sleep(1)
        assert session.runs <= runs + 1, "what nobody waits for is not computed"
        assert post(client, "/v1/tag", wav(waveform(0.5))).status_code == 200


def test_who_has_gone_is_not_computed_for() -> None:
    session = SlowSession(0.1)
    with serving([earmark.Tagger(session, INFO)], Limits(workers=1)) as client:
        with pytest.raises(httpx.ReadTimeout):
            post(client, "/v1/tag", wav(waveform(30)), timeout=0.5)
        time.sleep(0.5)
        assert session.runs < 20
        goes_on(client)


def connected(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)


def request_of(length: int, extra: str = "") -> bytes:
    head = (
        f"POST /v1/tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\nContent-Length: {length}\r\n"
    )
    return (head + extra + "\r\n").encode()


def read_all(opened: socket.socket) -> bytes:
    content = b""
    try:
        while piece := opened.recv(65536):
            content += piece
    except ConnectionError:
        pass
    return content


@pytest.mark.parametrize("part", [b"", b"POST /v1/tag HTTP/1.1\r\nHost: local"])
def test_a_client_that_sends_no_head_is_dropped(client: httpx.Client, part: bytes) -> None:
    with connected(client) as opened:
        opened.sendall(part)
        started = time.monotonic()
        assert read_all(opened) == b""
        assert time.monotonic() - started < 10


def test_a_client_that_stops_in_mid_body_is_told_and_dropped(client: httpx.Client) -> None:
    with connected(client) as opened:
        opened.sendall(request_of(1000) + b"RIFF")
        assert b" 408 " in read_all(opened).splitlines()[0]
    goes_on(client)


def test_a_client_that_drips_is_told_and_dropped(client: httpx.Client) -> None:
    with connected(client) as opened:
        opened.sendall(request_of(100_000))
        answered = threading.Event()

        def drip() -> None:
            while not answered.wait(0.3):
                try:
                    opened.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert b" 408 " in read_all(opened).splitlines()[0]
        finally:
            answered.set()
            thread.join()
    goes_on(client)


def test_a_client_that_leaves_in_mid_body(client: httpx.Client) -> None:
    for _ in range(8):  # more than there are places
        with connected(client) as opened:
            opened.sendall(request_of(1000) + b"RIFF")
    goes_on(client)


def test_a_client_that_does_not_read_is_dropped(toy_model: Path) -> None:
    limits = Limits(workers=2, idle_s=1)
    with serving(in_process([toy_model]), limits) as client:
        file = wav(waveform(0.5))
        request = request_of(len(file)).replace(b"/v1/tag", b"/v1/embed") + file
        with connected(client) as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            opened.settimeout(0.5)
            dropped = False
            for _ in range(20_000):
                try:
                    opened.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
                except TimeoutError:
                    continue
                except ConnectionError:
                    dropped = True
                    break
            assert dropped
        assert request
        goes_on(client)


def test_bytes_that_are_no_requests(client: httpx.Client) -> None:
    for content in (os.urandom(300), b"\x16\x03\x01" + bytes(200), b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000):
        with connected(client) as opened:
            opened.sendall(content + b"\r\n\r\n")
            assert b" 200 " not in read_all(opened)[:20]
    goes_on(client)


def test_names_and_origins(client: httpx.Client) -> None:
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::1", ""):
        assert code(client.get("/v1/models", headers={"Host": host})) == (400, "bad_host")
    for host in ("localhost:1", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200
    for origin in ("http://evil.example", "null", "http://localhost:1"):
        answer = post(client, "/v1/tag", wav(waveform(1)), headers={"Origin": origin})
        assert code(answer) == (403, "foreign_origin")
    own = str(client.base_url).rstrip("/")
    assert client.get("/v1/models", headers={"Origin": own}).status_code == 200


def test_a_token(toy_model: Path) -> None:
    with serving(in_process([toy_model]), access=Access("secret")) as client:
        for given in (
            None,
            "Bearer wrong",
            "Bearer",
            "Basic secret",
            "secret",
            "Bearer secre\u0301t".encode(),
        ):
            headers = {} if given is None else {"Authorization": given}
            for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
                answer = client.get(path, headers=headers)
                assert code(answer) == (401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == 200
        assert client.get("/config.json").status_code == 200
        for given in ("Bearer secret", "bearer  secret"):
            assert client.get("/v1/models", headers={"Authorization": given}).status_code == 200
        assert "secret" not in client.get("/metrics", headers={"Authorization": "Bearer secret"}).text


IN_ACCESS, IN_OPEN = 0x1, 0x20


def playlists(folder: Path, port: int) -> dict[str, bytes]:
    """Files that make FFmpeg open others, if it is let to."""
    file, url = folder / "secret.wav", f"http://127.0.0.1:{port}/secret.wav"
    found = {}
    for kind, target in (("file", str(file)), ("url", url), ("scheme", f"file://{file}")):
        text = {
            "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n",
            "m3u": f"#EXTM3U\n{target}\n",
            "concat": f"ffconcat version 1.0\nfile '{target}'\n",
            "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
            f'<AdaptationSet mimeType="audio/wav"><Representation id="1"><BaseURL>{target}</BaseURL>'
            "</Representation></AdaptationSet></Period></MPD>",
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            f"m=audio {port} RTP/AVP 0\n"
            f"a=control:{target}\n",
            "imf": f'<?xml version="1.0"?><CompositionPlaylist><Asset>{target}</Asset></CompositionPlaylist>',
            "asx": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
            "pls": f"[playlist]\nFile1={target}\nNumberOfEntries=1\n",
            "ram": f"{target}\n",
            "ffmetadata": f";FFMETADATA1\ntitle={target}\n",
        }
        found |= {f"{name} {kind}": content.encode() for name, content in text.items()}
        found[f"mov {kind}"] = external_reference(target.encode())
    return found


def external_reference(target: bytes) -> bytes:
    """A QuickTime file whose sound lies in another file."""

    def box(name: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I", len(content) + 8) + name + content

    alias = (
        bytes(6) + struct.pack(">HH", 150 + 8, 2) + bytes(146) + struct.pack(">HH", 2, len(target)) + target
    )
    reference = box(b"dref", bytes(4), struct.pack(">I", 1), box(b"alis", bytes(4), alias + b"\xff\xff\0\0"))
    entry = struct.pack(">HHI", 1, 16, 0) + bytes(8) + struct.pack(">I", 8000 << 16)
    description = box(
        b"stsd", bytes(4), struct.pack(">I", 1), box(b"sowt", bytes(6), b"\0\1", bytes(8), entry[:12])
    )
    tables = box(
        b"stbl",
        description,
        box(b"stts", bytes(4), struct.pack(">III", 1, 4000, 1)),
        box(b"stsc", bytes(4), struct.pack(">IIII", 1, 1, 4000, 1)),
        box(b"stsz", bytes(4), struct.pack(">II", 2, 4000)),
        box(b"stco", bytes(4), struct.pack(">II", 1, 44)),
    )
    media = box(
        b"mdia",
        box(b"mdhd", bytes(12), struct.pack(">IIHH", 8000, 4000, 0, 0)),
        box(b"hdlr", bytes(8), b"soun", bytes(13)),
        box(b"minf", box(b"smhd", bytes(8)), box(b"dinf", reference), tables),
    )
    track = box(b"trak", box(b"tkhd", bytes(84)), media)
    header = box(b"mvhd", bytes(12), struct.pack(">II", 8000, 4000), bytes(80))
    return box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", header, track)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify tells what is opened, on Linux only")
def test_no_file_and_no_address_is_opened(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(wav(waveform(2)))
    library = ctypes.CDLL(None, use_errno=True)
    watch = library.inotify_init1(os.O_NONBLOCK)
    assert library.inotify_add_watch(watch, os.fsencode(tmp_path), IN_OPEN | IN_ACCESS) >= 0

    def was_opened() -> bool:
        try:
            return bool(os.read(watch, 4096))
        except BlockingIOError:
            return False

    try:
        with socket.socket() as web, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            web.bind(("127.0.0.1", 0))
            web.listen()
            web.setblocking(False)
            port = web.getsockname()[1]
            datagrams.bind(("127.0.0.1", port))
            datagrams.setblocking(False)
            for name, content in playlists(tmp_path, port).items():
                for kind in (OCTETS, "audio/mpegurl", "application/ogg"):
                    answer = post(client, "/v1/tag", content, kind)
                    assert answer.status_code in (415, 422), name
                form = client.post("/v1/tag", files={"file": (str(tmp_path / "secret.wav"), content)})
                assert form.status_code in (415, 422), name
                assert "secret" not in form.text
                assert not was_opened(), name
                with pytest.raises(BlockingIOError):
                    web.accept()
                with pytest.raises(BlockingIOError):
                    datagrams.recv(1)
        assert (tmp_path / "secret.wav").read_bytes()
        assert was_opened(), "the watch works"
    finally:
        os.close(watch)


def test_an_unexpected_error_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            raise RuntimeError("/secret/path")

    with serving([earmark.Tagger(Broken(), INFO)]) as client:
        answer = post(client, "/v1/tag", wav(waveform(1)))
        assert code(answer) == (500, "internal_error")
        assert "secret" not in answer.text
        assert "/secret/path" in caplog.text
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [{"max_mb": 0}, {"max_duration_s": float("nan")}, {"queue": -1}, {"timeout_s": 0}, {"workers": 0}],
)
def test_impossible_limits(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="must be at least"):
        Limits(**wrong)


def test_models_need_names_of_their_own(toy_model: Path) -> None:
    with pytest.raises(ModelError, match="two models have the name toy"):
        Models(in_process([toy_model, toy_model]))
    with pytest.raises(ModelError):
        Models([])
