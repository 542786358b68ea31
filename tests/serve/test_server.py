"""Answers of the server: those of the library and of the command line, whatever the form of the request."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving import WAV, code, in_process, post, serving, wav, waveform
from toy import SAMPLE_RATE

import earmark
from earmark.events.detect import detect
from earmark.events.event import ScoreSeries
from earmark.events.options import EventOptions
from earmark.serve.metrics import ROUTES
from earmark.serve.server import open_socket


@pytest.fixture(scope="module")
def client(toy_model: Path, toy_single_label_model: Path) -> Iterator[httpx.Client]:
    with serving(in_process([toy_model, toy_single_label_model])) as client:
        yield client


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sounds") / "street.wav"
    path.write_bytes(wav(waveform(4.3)))
    return path


def test_models_are_described(client: httpx.Client, toy_model: Path) -> None:
    first, second = client.get("/v1/models").json()["models"]
    info = earmark.load(toy_model).info
    assert first["name"] == info.name
    assert first["labels"] == list(info.labels)
    assert first["num_labels"] == len(info.labels)
    assert first["sample_rate_hz"] == info.front_end.sample_rate
    assert (first["window_s"], first["threshold"], first["licence"]) == (info.window_s, 0.5, "MIT")
    assert first["thresholds"] == [0.5, 0.5]
    assert (first["default"], second["default"]) == (True, False)
    assert (first["task"], second["task"]) == ("multi_label", "single_label")


@pytest.mark.parametrize("model", ["toy", "single"])
def test_tags_are_those_of_the_command(
    client: httpx.Client, run, recording: Path, toy_model: Path, model
) -> None:
    path = toy_model.with_name(f"{model}.onnx")
    exit_code, out, _ = run("tag", recording, "--model", path, "--format", "json", "--windows", "--top", 1)
    assert exit_code == 0
    [wanted] = json.loads(out)
    answer = post(client, f"/v1/tag?model={model}&top=1&windows=true", recording.read_bytes())
    assert answer.status_code == 200
    found = answer.json()
    for key in ("model", "duration_s", "tags", "windows"):
        assert found[key] == wanted[key], key
    assert found["warnings"] == []


def test_events_are_those_of_the_command(client: httpx.Client, run, recording: Path, toy_model: Path) -> None:
    given = ("--threshold", 0.6, "--min-duration", 0.3, "--merge-gap", 0.4, "--label", "tone")
    _, out, _ = run("tag", recording, "--model", toy_model, "--events", "--format", "json", *given)
    [wanted] = json.loads(out)
    assert wanted["events"]
    query = "threshold=0.6&min_duration_s=0.3&merge_gap_s=0.4&label=tone"
    found = post(client, f"/v1/events?{query}", recording.read_bytes()).json()
    assert found["events"] == wanted["events"]
    assert "timeline" not in found


def test_a_timeline_has_the_scores_that_events_come_from(client: httpx.Client, recording: Path) -> None:
    found = post(client, "/v1/events?timeline=true", recording.read_bytes()).json()
    line = found["timeline"]
    scores = np.array(line["scores"], np.float32)
    assert scores.shape[1] == len(line["labels"]) == len(line["thresholds"]) > 0
    assert scores.max(0).min() >= 0.05
    end_s = found["duration_s"]
    assert (len(scores) - 1) * line["hop_s"] < end_s <= len(scores) * line["hop_s"] + 1e-6
    series = ScoreSeries(
        tuple(line["labels"]), scores, line["hop_s"], line["resolution_s"], line["start_s"], end_s
    )
    events = detect(series, EventOptions(line["thresholds"]))
    assert [(one.label, round(one.start_s, 3), round(one.end_s, 3)) for one in events] == [
        (one["label"], one["start_s"], one["end_s"]) for one in found["events"]
    ]


def test_embeddings_are_those_of_the_library(client: httpx.Client, recording: Path, toy_model: Path) -> None:
    wanted = earmark.load(toy_model).embed(str(recording))
    found = post(client, "/v1/embed?windows=true", recording.read_bytes()).json()
    np.testing.assert_allclose(found["embedding"], wanted.clip, rtol=1e-6)
    vectors = [one["embedding"] for one in found["windows"]]
    np.testing.assert_allclose(vectors, wanted.windows, rtol=1e-6)
    assert [one["end_s"] for one in found["windows"]] == pytest.approx(wanted.end_s)


def test_every_form_of_a_body_gives_the_same_answer(client: httpx.Client) -> None:
    samples = (waveform() * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2")
    file = wav(samples)
    wanted = post(client, "/v1/tag", file).json()
    pcm = f"audio/pcm;rate={SAMPLE_RATE}"
    floats = (samples / 2**15).astype("<f4")
    stereo = np.stack([samples, samples], 1)
    others = [
        post(client, "/v1/tag", file, "application/octet-stream"),
        post(client, "/v1/tag", file, None),
        post(client, "/v1/tag", (file[at : at + 999] for at in range(0, len(file), 999))),  # chunked
        client.post("/v1/tag", files={"file": ("../../etc/passwd", file, "text/plain")}),
        post(client, "/v1/tag", samples.tobytes(), pcm),
        post(
            client, "/v1/tag", samples.tobytes(), f'Audio/PCM; Rate={SAMPLE_RATE}; channels="1"; format=S16LE'
        ),
        post(client, "/v1/tag", floats.tobytes(), f"{pcm};format=f32le"),
        post(client, "/v1/tag", stereo.tobytes(), f"{pcm};channels=2"),
    ]
    for answer in others:
        assert answer.status_code == 200, answer.text
        assert answer.json() == wanted


def test_faults_of_a_recording_are_warnings(client: httpx.Client) -> None:
    file = wav(waveform())
    found = post(client, "/v1/tag", file[:-5000]).json()
    assert found["tags"]
    assert "cut off" in found["warnings"][0]


def test_answers_do_not_depend_on_what_else_is_asked(client: httpx.Client) -> None:
    files = [wav(waveform(1 + number / 3)) for number in range(6)]
    alone = [post(client, "/v1/events?timeline=true", file).json() for file in files]
    with ThreadPoolExecutor(6) as threads:
        together = list(
            threads.map(lambda file: post(client, "/v1/events?timeline=true", file).json(), files * 3)
        )
    assert together == alone * 3


def test_health_and_metrics(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    post(client, "/v1/tag", wav(waveform(2)))
    client.get("/no/such/page")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    values = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert float(values['earmark_requests_total{route="/v1/tag",status="200"}']) >= 1
    assert float(values['earmark_requests_total{route="other",status="404"}']) >= 1
    assert float(values['earmark_audio_seconds_total{route="/v1/tag"}']) >= 2
    assert float(values['earmark_request_seconds_count{route="/v1/tag"}']) >= 1
    for name in ("earmark_queue_length", "earmark_requests_in_progress", "earmark_streams"):
        assert float(values[name]) == 0
    if Path("/proc/self").exists():
        assert float(values["process_resident_memory_bytes"]) > 1e6


def test_the_interface_is_described(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    routes = {path for path in ROUTES if path.startswith("/v1/")} - {"/v1/listen"}
    assert set(described["paths"]) == routes | {"/healthz", "/metrics"}
    for name in ("tag", "events", "embed"):
        operation = described["paths"][f"/v1/{name}"]["post"]
        assert {"multipart/form-data", "audio/*"} <= set(operation["requestBody"]["content"])
        assert {"200", "400", "408", "413", "415", "422", "429", "503"} <= set(operation["responses"])
        assert all(parameter["description"] for parameter in operation["parameters"])


def test_the_page_is_served_without_a_path_of_the_server(client: httpx.Client) -> None:
    assert client.get("/config.json").json() == {"backend": "server"}
    for path in ("/static/../models.py", "/static/%2e%2e/models.py", "/static//etc/passwd", "/static/"):
        assert code(client.get(path))[0] == 404
    page = client.get("/")
    if page.status_code == 200:
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"


def test_unknown_paths_and_methods_have_the_form_of_errors(client: httpx.Client) -> None:
    assert code(client.get("/v1/nothing")) == (404, "not_found")
    answer = client.get("/v1/tag")
    assert code(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert client.options("/v1/tag", headers={"Origin": "http://evil.example"}).status_code in (403, 405)


def test_no_headers_of_cors(client: httpx.Client) -> None:
    answer = post(client, "/v1/tag", wav(waveform(1)), WAV)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_answers_are_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY where a connection's protocol is TCP by name; else each answer waits 40 ms."""
    with open_socket("127.0.0.1", 0) as opened, socket.create_connection(opened.getsockname()):
        accepted, _ = opened.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
