"""Speed and memory of a model, with each engine, precision and number of threads.

Conventions: times are seconds of wall-clock time. Settings take turns, round after round, so that other load
on the machine affects all of them; times are medians over the rounds, ratios are medians of each round's
ratio. A real-time factor is seconds of computation per second of audio.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from earmark.errors import ModelError
from earmark.evaluation.report import aligned
from earmark.inference.engines import PRECISIONS, Engine, Precision, installed_engines
from earmark.inference.load import load
from earmark.inference.tagger import Tagger
from earmark.version import __version__

_DISTRIBUTIONS = {"onnx": "onnxruntime", "openvino": "openvino"}
CLIP_S = 10.0
CLIP_RATE = 44_100
ROUNDS = 9
BURST_S = 0.05
"""Duration of a turn, for which a job is repeated, in seconds."""
REST_S = 0.02
"""Pause between turns in seconds, until the threads of the last one are idle."""


@dataclass(frozen=True)
class Setting:
    """A way to run a model file.

    Args:
        model: Its name or path.
        engine: As for :func:`earmark.load`.
        precision: Likewise.
        threads: Of the network.
        device: As for :func:`earmark.load`.
    """

    model: str
    engine: Engine
    precision: Precision
    threads: int
    device: str = "cpu"

    @property
    def options(self) -> str:
        """Options of the command line."""
        device = "" if self.device == "cpu" else f"--device {self.device} "
        return f"{device}--engine {self.engine} --precision {self.precision} --threads {self.threads}"

    def load(self) -> Tagger:
        """Opens the model with this setting."""
        return load(
            self.model,
            device=self.device,
            engine=self.engine,
            precision=self.precision,
            threads=self.threads,
        )


@dataclass(frozen=True)
class Speed:
    """Times of a setting.

    Args:
        window_s: For one window of samples, front-end and network, in seconds.
        clip_s: For an audio file, from decoding to tags, in seconds.
        window_factor: Real-time factor of a window.
        clip_factor: Real-time factor of the file.
        speedup: Over the first setting of the same number of threads, on the file.
    """

    window_s: float
    clip_s: float
    window_factor: float
    clip_factor: float
    speedup: float


def thread_counts() -> list[int]:
    """Powers of two below the number of cores of this process, and that number."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({cores, *(1 << power for power in range(cores.bit_length()))})


def all_settings(
    models: Sequence[str],
    threads: Sequence[int],
    engines: Mapping[str, tuple[str, ...]] | None = None,
    device: str = "cpu",
) -> list[Setting]:
    """All settings of some models on this machine; for each number of threads ONNX Runtime in fp32 is first.

    Args:
        models: Names or paths.
        threads: Numbers of threads.
        engines: Engine -> precisions; default: those that are installed.
        device: As for :func:`earmark.load`; OpenVINO runs on the CPU only.
    """
    known = installed_engines() if engines is None else engines
    return [
        Setting(model, engine, precision, number, device)  # type: ignore[arg-type]
        for number in threads
        for model in models
        for engine in (PRECISIONS if device == "cpu" else ("onnx",))
        for precision in known.get(engine, ())
    ]


def write_noise(path: Path, seconds: float = CLIP_S) -> None:
    """Writes a file of noise, mono, 16 bit, at a rate that most models resample."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * CLIP_RATE))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, CLIP_RATE, 0, "NONE", ""))
        file.writeframes((noise * 32767).astype("<i2").tobytes())


def measure(
    settings: Sequence[Setting],
    clip: Path,
    rounds: int = ROUNDS,
    progress: Callable[[str], object] = lambda text: None,
) -> dict[Setting, Speed]:
    """Measures settings in turns.

    Args:
        settings: Those with the same number of threads are compared with the first of them.
        clip: An audio file.
        rounds: Number of turns of each setting.
        progress: Called with a text before each step.

    Raises:
        ModelError: If there are no settings, or a model cannot be opened with one.
        AudioError: If the file cannot be read.
    """
    if not settings:
        raise ModelError("nothing to measure: choose a model, an engine and a number of threads")
    jobs = {}
    for setting in settings:
        progress(f"load {setting.model} {setting.options}")
        jobs[setting] = _jobs(setting.load(), clip)
    calls = {setting: [_calls(job) for job in own] for setting, own in jobs.items()}
    times: dict[Setting, list[list[float]]] = {setting: [] for setting in settings}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for setting in settings if number % 2 else settings[::-1]:  # no setting always follows the same one
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
    speedup = median(one[1] / own[1] for one, own in zip(first, times, strict=True))
    return Speed(window_s, clip_s, window_s / lengths[0], clip_s / lengths[1], speedup)


def _jobs(tagger: Tagger, clip: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    rate = tagger.info.front_end.sample_rate
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, round(tagger.info.window_s * rate))
    window = samples.astype(np.float32)
    return lambda: tagger.tag(window, rate), lambda: tagger.tag(clip)


def _calls(job: Callable[[], Any]) -> int:
    """Repetitions of a job in a turn; its first call, which may compile, is not timed."""
    job()
    return max(1, min(50, round(BURST_S / max(_seconds(job, 1), 1e-6))))


def _seconds(job: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        job()
    return (time.perf_counter() - start) / calls


def peak_bytes(setting: Setting, clip: Path) -> int:
    """Peak memory of a fresh process that opens a model and tags a file, in bytes.

    Raises:
        ModelError: If that process fails; the message ends with its last line.
    """
    program = """
import os, resource, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
import earmark
model, engine, precision, threads, clip = sys.argv[1:]
earmark.load(model, engine=engine, precision=precision, threads=int(threads)).tag(clip)
try:
    status = open("/proc/self/status").read()  # of this program alone
    print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""
    given = (setting.model, setting.engine, setting.precision, str(setting.threads), str(clip))
    # Isolated: a module in the current folder is not imported in place of one that is installed.
    python = (sys.executable, "-P", "-I", "-c", program, os.pathsep.join(filter(None, sys.path)))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as the command line has it
    done = subprocess.run([*python, *given], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ModelError(f"{setting.model}: a process of its own could not tag {clip} ({reason})")
    return int(done.stdout)


def fastest(speeds: Mapping[Setting, Speed]) -> Setting:
    """The setting with the shortest time for the file."""
    return min(speeds, key=lambda setting: speeds[setting].clip_s)


def summary(speeds: Mapping[Setting, Speed], model: str, clip: str) -> str:
    """Table of the settings, and the fastest one, as text.

    Args:
        speeds: Of one model.
        model: Its name.
        clip: Description of the audio file.
    """
    head = ("engine", "precision", "threads", "window, ms", "factor", "clip, ms", "factor", "faster")
    rows = [head]
    for setting, speed in speeds.items():
        window = f"{speed.window_s * 1e3:.1f}", f"{speed.window_factor:.4f}"
        file = f"{speed.clip_s * 1e3:.1f}", f"{speed.clip_factor:.4f}"
        rows.append(
            (
                setting.engine,
                setting.precision,
                str(setting.threads),
                *window,
                *file,
                f"{speed.speedup:.2f} x",
            )
        )
    lines = [f"{model}, clip: {clip}", f"{machine(speeds)}", "", *aligned(rows), "", *_hints(speeds)]
    return "\n".join(lines)


def _hints(speeds: Mapping[Setting, Speed]) -> list[str]:
    best = fastest(speeds)
    lines = [f"fastest here: {best.options}"]
    if best.precision != "fp32":
        exact = fastest({one: speed for one, speed in speeds.items() if one.precision == "fp32"})
        lines.append(f"fastest here in fp32: {exact.options}")
        lines.append(f"accuracy of {best.precision}: earmark report {best.model} --dataset MANIFEST")
    return lines


def to_dict(speeds: Mapping[Setting, Speed], clip: str) -> dict[str, Any]:
    """All numbers, for JSON."""
    best = fastest(speeds)
    return {
        "clip": clip,
        "machine": machine(speeds),
        "earmark": __version__,
        "settings": [{**asdict(setting), **asdict(speed)} for setting, speed in speeds.items()],
        "fastest": asdict(best),
    }


def machine(settings: Mapping[Setting, object]) -> str:
    """Processor, cores and versions, in a line."""
    engines = dict.fromkeys(_DISTRIBUTIONS[setting.engine] for setting in settings)
    versions = ", ".join(f"{name} {version(name)}" for name in engines)
    return f"{_processor()}, {os.cpu_count()} cores, {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
