"""Threads that compute answers, and the places in which requests wait for them.

Conventions: a request takes a place before its body is read, and keeps it until its answer is computed, even
if the client has gone: what is running in a thread holds its place until it stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from earmark.serve.errors import RequestError
from earmark.serve.recordings import Deadline

Answer = TypeVar("Answer")

_GRACE_S = 2.0
"""How long a thread has to notice that its time is over, before the client is told."""


class Workers:
    """A pool of threads with a bounded number of requests.

    Args:
        threads: Requests that are computed at once.
        queue: Requests beyond these that may wait.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self.threads, self._places = threads, threads + queue
        self._executor = ThreadPoolExecutor(threads, "earmark-worker")
        self.taken = 0

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return max(0, self.taken - self.threads)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Takes a place for a request.

        Raises:
            RequestError: If all are taken.
        """
        if self.taken >= self._places:
            raise RequestError(
                429,
                f"{self.taken} requests are in progress, and no more may wait: try again later",
                headers={"Retry-After": "1"},
            )
        self.taken += 1
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()

    def close(self) -> None:
        """Ends the threads when they have nothing to do."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def submit(self, function: Callable[[], Answer]) -> Future[Answer]:
        """Runs a function in a thread."""
        return self._executor.submit(function)


class Place:
    """The place of one request; from :meth:`Workers.place`.

    Attributes:
        resources: Is closed when the place is given back: when no thread needs them any more.
    """

    def __init__(self, workers: Workers) -> None:
        self.resources = ExitStack()
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._running: Future[object] | None = None

    async def run(
        self, function: Callable[[], Answer], deadline: Deadline, gone: Callable[[], Awaitable[object]]
    ) -> Answer:
        """Runs a function in a thread, until its time is over or the client has gone.

        Args:
            function: Looks at the deadline from time to time.
            deadline: Of the request.
            gone: Returns when the client has gone.

        Raises:
            RequestError: If the time is over, or what the function raises.
        """
        future = self._workers.submit(function)
        self._running = future  # type: ignore[assignment]
        answer = asyncio.wrap_future(future)
        departure = asyncio.ensure_future(gone())
        try:
            await asyncio.wait(
                (answer, departure), timeout=deadline.left_s + _GRACE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not answer.done():
                raise deadline.error()
            return await answer
        finally:
            deadline.cancel()
            departure.cancel()
            answer.cancel()  # which also takes a function out of the queue

    def leave(self) -> None:
        """Gives the place back, or has the thread do so that still works for it."""
        running = self._running
        if running is None or running.done():
            self._free()
        else:
            running.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._free))

    def _free(self) -> None:
        self._workers.taken -= 1
        self.resources.close()
