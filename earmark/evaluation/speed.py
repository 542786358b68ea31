"""How fast a model answers, with each engine, precision and number of threads.

Conventions: times are seconds by the clock. Settings take turns, round after round, so that what else happens
on the machine meets all of them; times are medians over the rounds, ratios are medians of each round's ratio.
A real-time factor is seconds of computing for a second of sound: the smaller, the faster.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from earmark.errors import ModelError
from earmark.inference.engines import PRECISIONS, Engine, Precision, installed_engines
from earmark.inference.load import load
from earmark.inference.tagger import Tagger

CLIP_S = 10.0
CLIP_RATE = 44_100
ROUNDS = 9
BURST_S = 0.05
"""A job is repeated for about so long each time that its turn comes."""
REST_S = 0.02
"""Between turns, until the threads that just ran have gone to sleep."""


@dataclass(frozen=True)
class Setting:
    """A way to run a model file.

    Args:
        model: Its name or path.
        engine: As for :func:`earmark.load`.
        precision: Likewise.
        threads: Of the network.
    """

    model: str
    engine: Engine
    precision: Precision
    threads: int

    @property
    def options(self) -> str:
        """For the command line."""
        return f"--engine {self.engine} --precision {self.precision} --threads {self.threads}"

    def load(self) -> Tagger:
        """The model, ready to tag in this way."""
        return load(self.model, threads=self.threads, engine=self.engine, precision=self.precision)


@dataclass(frozen=True)
class Speed:
    """What a setting takes.

    Args:
        window_s: For one window of samples, front-end and network.
        clip_s: For a file of 10 s or the one that was given, from decoding to tags.
        window_factor: Real-time factor of a window.
        clip_factor: Real-time factor of the file.
        gain: How many times faster than the first setting of the same number of threads, on the file.
    """

    window_s: float
    clip_s: float
    window_factor: float
    clip_factor: float
    gain: float


def thread_counts() -> list[int]:
    """1, 2, 4 ... and as many as there are cores for this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({cores, *(1 << power for power in range(cores.bit_length()))})


def settings_of(
    models: Sequence[str], threads: Sequence[int], engines: Mapping[str, tuple[str, ...]] | None = None
) -> list[Setting]:
    """Every way to run some models here; for each number of threads ONNX Runtime in float32 comes first.

    Args:
        models: Names or paths.
        threads: Numbers of threads.
        engines: Engine -> precisions; by default those that are :func:`~earmark.inference.engines.installed_engines`.
    """
    known = installed_engines() if engines is None else engines
    return [
        Setting(model, engine, precision, number)  # type: ignore[arg-type]
        for number in threads
        for model in models
        for engine in PRECISIONS
        for precision in known.get(engine, ())
    ]


def write_noise(path: Path, seconds: float = CLIP_S) -> None:
    """Writes a recording to measure by: noise, mono, 16 bit, at a rate that most models resample from."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * CLIP_RATE))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, CLIP_RATE, 0, "NONE", ""))
        file.writeframes((noise * 32767).astype("<i2").tobytes())


def measure(
    settings: Sequence[Setting],
    clip: Path,
    rounds: int = ROUNDS,
    before: Callable[[str], object] = lambda text: None,
) -> dict[Setting, Speed]:
    """Measures settings in turns.

    Args:
        settings: Those of one number of threads are compared with the first of them.
        clip: A recording.
        rounds: How often each one's turn comes.
        before: Is told what comes next.

    Raises:
        ModelError: If there are no settings, or a model cannot be loaded so.
        AudioError: If the recording cannot be read.
    """
    if not settings:
        raise ModelError("there is nothing to measure: name a model, an engine and a number of threads")
    jobs = {}
    for setting in settings:
        before(f"load {setting.model} {setting.options}")
        jobs[setting] = _jobs(setting.load(), clip)
    calls = {setting: [_calls(job) for job in own] for setting, own in jobs.items()}
    times: dict[Setting, list[list[float]]] = {setting: [] for setting in settings}
    for number in range(rounds):
        before(f"round {number + 1} of {rounds}")
        for setting in settings if number % 2 else settings[::-1]:  # nobody always follows the same one
            own = zip(jobs[setting], calls[setting], strict=True)
            times[setting].append([_seconds(job, count) for job, count in own])
            time.sleep(REST_S)
    lengths = {setting: [job().duration_s for job in own] for setting, own in jobs.items()}
    first = {setting.threads: setting for setting in reversed(settings)}
    return {
        setting: _speed(own, times[first[setting.threads]], lengths[setting])
        for setting, own in times.items()
    }


def _speed(times: list[list[float]], first: list[list[float]], lengths: list[float]) -> Speed:
    window_s, clip_s = (median(column) for column in zip(*times, strict=True))
    gain = median(one[1] / own[1] for one, own in zip(first, times, strict=True))
    return Speed(window_s, clip_s, window_s / lengths[0], clip_s / lengths[1], gain)


def _jobs(tagger: Tagger, clip: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    rate = tagger.info.front_end.sample_rate
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, round(tagger.info.window_s * rate))
    window = samples.astype(np.float32)
    return lambda: tagger.tag(window, rate), lambda: tagger.tag(clip)


def _calls(job: Callable[[], Any]) -> int:
    """How often a job fits into a burst; its first call, which may compile, does not count."""
    job()
    return max(1, min(50, round(BURST_S / max(_seconds(job, 1), 1e-6))))


def _seconds(job: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        job()
    return (time.perf_counter() - start) / calls


def peak_bytes(setting: Setting, clip: Path) -> int:
    """The most memory that a fresh process holds which loads a model and tags a recording.

    Raises:
        ModelError: If that process fails; the message is its last line.
    """
    program = """
import resource, sys, earmark
model, engine, precision, threads, clip = sys.argv[1:]
earmark.load(model, engine=engine, precision=precision, threads=int(threads)).tag(clip)
try:
    status = open("/proc/self/status").read()  # what the kernel counts for this program alone
    print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""
    given = (setting.model, setting.engine, setting.precision, str(setting.threads), str(clip))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as the command line has it
    done = subprocess.run(
        [sys.executable, "-c", program, *given], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise ModelError(f"{setting.model}: a process of its own could not tag {clip} ({said})")
    return int(done.stdout)


def fastest(speeds: Mapping[Setting, Speed]) -> Setting:
    """The setting that takes least for the recording."""
    return min(speeds, key=lambda setting: speeds[setting].clip_s)
