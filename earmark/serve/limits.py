"""What a server grants: sizes, durations, waiting places, times.

Conventions: times are seconds, sizes MB of 10^6 bytes. The defaults suit a computer at home.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from earmark.errors import DataError

SPOOL_BYTES = 1 << 20
"""Bytes of an upload that are kept in memory; the rest lies in a temporary file without a name."""
LONGEST_FRAME = 1 << 20
"""Bytes of the largest frame of a WebSocket."""


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Args:
        max_mb: Largest body of a request.
        max_duration_s: Longest recording; decoding stops there.
        queue: Requests that may wait for a worker; others are refused with status 429.
        timeout_s: Time for a request: for its body, and again for the answer.
        workers: Requests that are computed at once; None: one per core.
        streams: WebSockets that may be open at once.
        idle_s: Time in which a slow client has to send something, or to take what it is sent.

    Raises:
        DataError: If a limit is out of range.
    """

    max_mb: float = 64.0
    max_duration_s: float = 3600.0
    queue: int = 64
    timeout_s: float = 60.0
    workers: int | None = None
    streams: int = 16
    idle_s: float = 20.0

    def __post_init__(self) -> None:
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and not value >= lowest:
                raise DataError(f"{name} must be at least {lowest:g}, got {value:g}")

    @property
    def max_bytes(self) -> int:
        """Bytes of the largest body."""
        return int(self.max_mb * 1e6)

    @property
    def threads(self) -> int:
        """Requests that are computed at once."""
        return self.workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else _cores())


_LOWEST: dict[str, Any] = {
    "max_mb": 0.001,
    "max_duration_s": 0.1,
    "queue": 0,
    "timeout_s": 0.1,
    "workers": 1,
    "streams": 0,
    "idle_s": 0.1,
}


def _cores() -> range:
    return range(os.cpu_count() or 1)
