"""Runs both sides of a comparison in processes of their own and measures them.

Conventions: times are in seconds, memory is peak resident memory in bytes. A process that imports this must
stay small: until a new process loads its program it is a copy of its parent, and the kernel counts that into
its peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
REST_S = 0.05  # between measurements, until the threads of the side that just ran are asleep
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


class Usage(NamedTuple):
    """Wall-clock time and peak memory of a process."""

    wall_s: float
    peak_bytes: float


def run(arguments: Sequence[str], threads: int | None = None) -> Usage:
    """Runs Python with these arguments and waits for it to end.

    Args:
        arguments: Arguments of Python.
        threads: Number of threads, for libraries that read it from the environment; None: their default.

    Returns:
        Its time and peak memory.

    Raises:
        SystemExit: If it fails; its standard error is passed on.
    """
    start = time.perf_counter()
    process = _start(arguments, threads, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed with exit code {process.returncode}: python {' '.join(arguments)}")
    time.sleep(REST_S)
    return Usage(wall_s, usage.ru_maxrss * _UNIT)


@dataclass
class Worker:
    """A process that has run its job once and waits to run it again."""

    process: subprocess.Popen[str]
    output: list[float]

    def measure(self, *, processor: bool = False) -> float:
        """Seconds per call, of wall-clock or processor time: the mean over a burst of calls."""
        assert self.process.stdin is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        clock_s, processor_s = json.loads(self._line())
        time.sleep(REST_S)
        return float(processor_s if processor else clock_s)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"failed: {self.process.args!r}")
        return line


@contextmanager
def worker(side: str, job: str, folder: Path, threads: int) -> Iterator[Worker]:
    """Starts one side of a job; see :mod:`benchmarks.worker`."""
    arguments = ("-m", "benchmarks.worker", side, job, str(folder), str(threads))
    process = _start(arguments, threads, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    started = Worker(process, [])
    try:
        started.output = json.loads(started._line())
        yield started
    finally:
        process.communicate()  # it ends when its input ends


def _start(arguments: Sequence[str], threads: int | None, **streams: Any) -> Any:
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.pop(name, None)
        if threads is not None:
            environment[name] = str(threads)
    # Both sides start from bytecode, as installed packages do; the first pair, not counted, writes it.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, **streams)
