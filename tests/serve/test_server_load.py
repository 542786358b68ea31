"""Slow checks of the server: its description against what it does, bombs, crowds, memory."""

import gc
import io
import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import soundfile
from serving import code, in_process, post, serving, wav, waveform
from test_serve_process import process

from earmark.serve.limits import Limits

pytestmark = pytest.mark.slow


def resident_mb(number: int) -> float:
    return psutil.Process(number).memory_info().rss / 1e6


HOOKS = """
import pathlib
import schemathesis
from hypothesis import strategies as st

bodies = st.one_of(st.just(pathlib.Path({path!r}).read_bytes()), st.binary(max_size=300))
for kind in ("application/octet-stream", "audio/*", "video/*"):
    schemathesis.openapi.media_type(kind, bodies)
"""
CHECKS = ("--checks", "all", "--exclude-checks", "positive_data_acceptance")
"""No schema can say which bytes are a recording."""


def test_the_server_does_what_its_description_says(toy_model: Path, tmp_path: Path) -> None:
    """Schemathesis sends what the description allows, and what it does not."""
    recording, hooks = tmp_path / "short.wav", tmp_path / "serving_hooks.py"
    recording.write_bytes(wav(waveform(1)))
    hooks.write_text(HOOKS.format(path=str(recording)), encoding="utf-8")
    program = Path(sys.executable).with_name("st")
    with serving(in_process([toy_model]), Limits(workers=2, max_mb=1)) as client:
        phases = ("--phases", "examples,coverage,fuzzing", "--max-examples", "40")
        more = ("--generation-database", "none", "--no-color", "--warnings", "off")
        address = f"{str(client.base_url).rstrip('/')}/openapi.json"
        done = subprocess.run(
            [program, "run", address, *CHECKS, *phases, *more],
            env=os.environ | {"SCHEMATHESIS_HOOKS": "serving_hooks", "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-5000:]
        assert "Tested: 6" in done.stdout
        metrics = client.get("/metrics").text
        for route in ("tag", "events", "embed"):
            assert f'earmark_requests_total{{route="/v1/{route}",status="200"}}' in metrics


def bomb(hours: int) -> bytes:
    """A FLAC file of silence at 48 kHz: half a megabyte for an hour."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 48_000, 1, subtype="PCM_16", format="FLAC") as opened:
        for _ in range(60 * hours):
            opened.write(np.zeros(48_000 * 60, np.int16))
    return file.getvalue()


def test_a_bomb_is_bounded_in_memory_and_time(toy_model: Path) -> None:
    content = bomb(2)
    assert len(content) < 1.5e6
    decoded_mb = 2 * 3600 * 48_000 * 4 / 1e6
    with process("--model", toy_model, "--max-duration", 300) as (started, client):
        post(client, "/v1/events", wav(waveform(3)))
        before = resident_mb(started.pid)
        begun = time.monotonic()
        assert code(post(client, "/v1/events?timeline=true", content, "audio/flac")) == (413, "too_long")
        assert time.monotonic() - begun < 60
        grown = resident_mb(started.pid) - before
        assert grown < 60 < decoded_mb / 20
        assert client.get("/healthz").status_code == 200


def with_picture(flac: bytes, side: int) -> bytes:
    """A FLAC file with the picture of a black square."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(side * 3 + 1)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    kind = b"image/png"
    picture = struct.pack(">II", 3, len(kind)) + kind + struct.pack(">IIIII", 0, side, side, 24, 0)
    picture += struct.pack(">I", len(png)) + png
    block = bytes([flac[4] & 0x80 | 6]) + struct.pack(">I", len(picture))[1:] + picture
    return flac[:4] + bytes([flac[4] & 0x7F]) + flac[5:42] + block + flac[42:]


def test_a_picture_of_a_gigabyte_is_not_decoded(toy_model: Path) -> None:
    content = with_picture(wav(waveform(2), kind="FLAC"), 16_000)
    assert len(content) < 5e6
    with process("--model", toy_model) as (started, client):
        post(client, "/v1/tag", wav(waveform(2), kind="FLAC"), "audio/flac")
        status = Path(f"/proc/{started.pid}/status")
        if not status.exists():
            pytest.skip("the peak of a process's memory is read from /proc")
        answer = post(client, "/v1/tag", content, "audio/flac")
        assert answer.status_code == 200
        assert answer.json()["duration_s"] == 2
        peak_kb = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
        assert peak_kb < 400_000


def test_two_hundred_uploads_at_once(toy_model: Path) -> None:
    file = wav(waveform(20))
    with process("--model", toy_model, "--queue", 50, "--workers", 2) as (started, client):
        limits = httpx.Limits(max_connections=200)
        with (
            httpx.Client(base_url=client.base_url, timeout=120, limits=limits, trust_env=False) as many,
            ThreadPoolExecutor(200) as threads,
        ):
            answers = list(threads.map(lambda _: post(many, "/v1/tag", file), range(200)))
        found = Counter(answer.status_code for answer in answers)
        assert set(found) <= {200, 429}
        assert found[200] >= 52
        texts = {answer.text for answer in answers if answer.status_code == 200}
        assert len(texts) == 1
        for answer in answers:
            if answer.status_code == 429:
                assert code(answer) == (429, "queue_full")
                assert answer.headers["retry-after"]
        assert post(client, "/v1/tag", file).status_code == 200
        assert resident_mb(started.pid) < 600


def test_memory_stays_the_same(toy_model: Path) -> None:
    """Many requests of all kinds, some of them wrong."""
    good, wrong = wav(waveform(2)), os.urandom(3000)
    large = wav(waveform(100))  # lies in a temporary file
    with process("--model", toy_model) as (started, client):

        def some(count: int) -> None:
            for number in range(count):
                route = ("tag?windows=true", "events?timeline=true", "embed")[number % 3]
                assert post(client, f"/v1/{route}", good).status_code == 200
                if number % 5 == 0:
                    assert post(client, f"/v1/{route}", wrong).status_code == 415
                if number % 10 == 0:
                    assert post(client, f"/v1/{route}", large).status_code == 200

        some(60)
        before = resident_mb(started.pid)
        opened = psutil.Process(started.pid).num_fds() if hasattr(psutil.Process, "num_fds") else 0
        some(200)
        gc.collect()
        assert resident_mb(started.pid) - before < 40
        if opened:
            assert psutil.Process(started.pid).num_fds() <= opened + 3
