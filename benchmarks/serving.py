"""Measures the server over loopback: times and throughput, batches, memory.

    python -m benchmarks.serving load [--model MODEL] [--clients 1 8 64] [--seconds 10] [--rounds 3]
    python -m benchmarks.serving batches [--model MODEL] [--sizes 1 2 4 8] [--rounds 7]
    python -m benchmarks.serving memory [--model MODEL] [--requests 10000]

``load`` sends one clip of 5 s, an uncompressed file, again and again from a number of clients, each with a
connection of its own, and compares with the bare network on the same clip: its log-mel is computed once, and
as many threads as there are cores run it. ``batches`` runs the network on several windows at once. ``memory``
sends all kinds of requests, some of them wrong, and prints the resident memory of the server.

Conventions: server, clients and network share the cores of one machine, so that the clients' own work counts
against the server. Rounds of what is compared take turns; the median counts.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import soundfile

import earmark
from earmark.features.log_mel import LogMel

CLIP_S = 5.0
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Server:
    """A server in a process of its own."""

    process: psutil.Process
    port: int

    @property
    def resident_mb(self) -> float:
        """Resident memory in MB."""
        return float(self.process.memory_info().rss) / 1e6

    def connect(self) -> http.client.HTTPConnection:
        """A connection that stays open."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)


@contextmanager
def server(model: str | None, *options: str) -> Iterator[Server]:
    """Starts a server on a free port."""
    chosen = ["--model", model] if model else []
    command = [sys.executable, "-m", "earmark", "serve", "--port", "0", *chosen, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as started:
        try:
            line = started.stderr.readline() if started.stderr else ""
            found = re.search(r":(\d+)/", line)
            if not found:
                raise SystemExit(f"the server did not start: {line}")
            yield Server(psutil.Process(started.pid), int(found[1]))
        finally:
            started.terminate()


def clip(sample_rate: int, seconds: float = CLIP_S) -> bytes:
    """Noise, as a file of 16 bits."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * sample_rate))
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> int:
    """Sends a recording; returns the status."""
    connection.request("POST", path, body, {"Content-Type": "audio/wav"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def asked(started: Server, clients: int, seconds: float, body: bytes) -> tuple[list[float], float]:
    """Times of the answers to a number of clients, in seconds, and answers per second."""
    end = time.perf_counter() + seconds

    def client(_: int) -> list[float]:
        connection, times = started.connect(), []
        while (begun := time.perf_counter()) < end:
            if ask(connection, "/v1/tag", body) != 200:
                raise SystemExit("a request failed")
            times.append(time.perf_counter() - begun)
        connection.close()
        return times

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        times = [one for each in threads.map(client, range(clients)) for one in each]
    return times, len(times) / (time.perf_counter() - begun)


def network(tagger: earmark.Tagger) -> Callable[[int], object]:
    """Runs the network on a number of windows."""
    info = tagger.info
    samples = 0.1 * np.random.default_rng(0).standard_normal(info.num_samples(CLIP_S))
    waveform = samples.astype(np.float32)
    inputs = waveform if info.graph_input == "waveform" else LogMel(info.front_end)(waveform)  # type: ignore[arg-type]

    def run(windows: int = 1) -> object:
        batch = np.repeat(inputs[None], windows, 0)
        return tagger.session.run(["logits", "embedding"], {info.graph_input: batch})

    return run


def bare(run: Callable[[int], object], seconds: float) -> tuple[list[float], float]:
    """Times of the network, in seconds, and windows per second of as many threads as cores."""
    end = time.perf_counter() + seconds

    def one(_: int) -> list[float]:
        times = []
        while (begun := time.perf_counter()) < end:
            run(1)
            times.append(time.perf_counter() - begun)
        return times

    begun = time.perf_counter()
    with ThreadPoolExecutor(CORES) as threads:
        times = [each for found in threads.map(one, range(CORES)) for each in found]
    return times, len(times) / (time.perf_counter() - begun)


def load(model: str | None, clients: list[int], seconds: float, rounds: int) -> None:
    """Prints a row for the bare network, and one for each number of clients."""
    tagger = earmark.load(model, threads=1)
    run, body = network(tagger), clip(tagger.sample_rate)
    found: dict[int, list[tuple[float, float, float]]] = {count: [] for count in [0, *clients]}
    with server(model) as started:
        asked(started, 4, 1, body)  # warms up
        for _ in range(rounds):
            for count, rows in found.items():
                times, rate = asked(started, count, seconds, body) if count else bare(run, seconds)
                p50, p99 = np.percentile(times, [50, 99]) * 1000
                rows.append((p50, p99, rate))
        resident = started.resident_mb
    medians = {
        count: [statistics.median(each) for each in zip(*rows, strict=True)] for count, rows in found.items()
    }
    print("| clients | p50, ms | p99, ms | clips per second | of the bare network |")
    print("| --- | --: | --: | --: | --: |")
    for count, (p50, p99, rate) in medians.items():
        name = str(count) if count else f"bare network, {CORES} threads"
        print(f"| {name} | {p50:.1f} | {p99:.1f} | {rate:.0f} | {rate / medians[0][2]:.0%} |")
    print(f"\n{tagger.info.name}, clips of {CLIP_S:g} s, {CORES} cores; memory: {resident:.0f} MB.")


def batches(model: str | None, sizes: list[int], rounds: int) -> None:
    """Prints the time for a window in batches, with one thread."""
    tagger = earmark.load(model, threads=1)
    run = network(tagger)
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size, times in found.items():
            begun, count = time.process_time(), max(1, 40 // size)
            for _ in range(count):
                run(size)
            times.append((time.process_time() - begun) / count / size * 1000)
    first = statistics.median(found[sizes[0]])
    print("| windows at once | processor time for a window, ms | relative |\n| --: | --: | --: |")
    for size, times in found.items():
        print(f"| {size} | {statistics.median(times):.2f} | {statistics.median(times) / first:.2f} |")


def memory(model: str | None, requests: int) -> None:
    """Prints the resident memory of a server after more and more requests."""
    tagger = earmark.load(model, threads=1)
    good, long, wrong = clip(tagger.sample_rate), clip(tagger.sample_rate, 60), os.urandom(3000)
    paths = ("/v1/tag?windows=true", "/v1/events?timeline=true", "/v1/embed?windows=true")
    done, lock = 0, threading.Lock()
    print("| requests | resident memory, MB |\n| --: | --: |")
    with server(model) as started:

        def client(number: int) -> None:
            nonlocal done
            connection = started.connect()
            for count in range(requests // 4):
                body = wrong if count % 10 == 9 else long if count % 100 == 50 else good
                wanted = 415 if body is wrong else 200
                if ask(connection, paths[(count + number) % 3], body) != wanted:
                    raise SystemExit("a request had another status than it should")
                with lock:
                    done += 1
                    if done % max(1, requests // 10) == 0:
                        print(f"| {done} | {started.resident_mb:.1f} |", flush=True)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(client, range(4)))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parts = parser.add_subparsers(dest="part", required=True)
    one, two, three = (parts.add_parser(name) for name in ("load", "batches", "memory"))
    for part in (one, two, three):
        part.add_argument("--model")
    one.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    one.add_argument("--seconds", type=float, default=10)
    one.add_argument("--rounds", type=int, default=3)
    two.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    two.add_argument("--rounds", type=int, default=7)
    three.add_argument("--requests", type=int, default=10_000)
    arguments = vars(parser.parse_args())
    {"load": load, "batches": batches, "memory": memory}[arguments.pop("part")](**arguments)


if __name__ == "__main__":
    main()
