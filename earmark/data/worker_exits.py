"""How worker processes ended that read clips: by a crash of a decoder, or killed from outside.

Conventions: exit codes are those of :mod:`multiprocessing`, negative for a signal.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

_CRASHES = {"SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP"}


class WorkerExit(NamedTuple):
    """How a worker process ended.

    Args:
        cause: Name of the signal, or the exit code.
        is_crash: Whether it died of a fault of its own code, not by a kill, an exit or for lack of memory.
    """

    cause: str
    is_crash: bool

    def left_out(self, path: Path) -> str:
        """Why a clip is left out that the process was reading."""
        return f"{path}: left out: the process that read it died ({self.cause})"


def worker_exit(exit_code: int) -> WorkerExit:
    """Describes the exit code of a worker process, which is not 0."""
    if exit_code >= 0:
        return WorkerExit(f"exit code {exit_code}", is_crash=False)
    name = signal.Signals(-exit_code).name
    return WorkerExit(name, name in _CRASHES)
