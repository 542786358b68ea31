"""What all requests of a server share.

Conventions: one state per application; it is changed in the event loop only.
"""

from __future__ import annotations

import asyncio

from earmark.serve.access import Access
from earmark.serve.limits import Limits
from earmark.serve.metrics import Metrics
from earmark.serve.models import Models
from earmark.serve.workers import Workers


class ServerState:
    """The state of a server.

    Args:
        models: The models.
        limits: The limits.
        access: Who may ask.

    Attributes:
        workers: Threads for requests.
        live_workers: Threads for live streams, which must not wait for requests.
        streams: Live streams that are open.
    """

    def __init__(self, models: Models, limits: Limits, access: Access) -> None:
        self.models, self.limits, self.access = models, limits, access
        self.metrics = Metrics()
        self.workers = Workers(limits.threads, limits.queue)
        self.live_workers = Workers(limits.threads, 0)
        self.streams = 0
        self._stopping: asyncio.Event | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether new work is refused."""
        return self.stopping.is_set()

    @property
    def stopping(self) -> asyncio.Event:
        """Is set when the server stops; belongs to the event loop that asks first."""
        if self._stopping is None:
            self._stopping = asyncio.Event()
        return self._stopping

    def close(self) -> None:
        """Ends the threads."""
        self.workers.close()
        self.live_workers.close()
