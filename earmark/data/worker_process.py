"""A process that does jobs one after the other, and tells which item it is at in case it dies.

Conventions: processes are not forked: the libraries of this one may have threads. They end when their parent
is killed. The item at hand is a number in shared memory, so it is known however the process ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait as wait_for
from typing import Any

from earmark.data.worker_exits import WorkerExit, worker_exit

MAX_WORKERS = 256
"""Limit of the number of processes."""

_NO_ITEM = -1

Mark = Callable[[int], None]
"""Takes the number of the item that a process begins."""


class WorkerProcess:
    """A process, and the pipe to it.

    Args:
        set_up: Called in the process with a function that marks items; returns what does a job. Both can be
            pickled, and so can jobs and what comes of them.
    """

    def __init__(self, set_up: Callable[[Mark], Callable[[Any], Any]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._item = context.RawValue("q", _NO_ITEM)
        self._process = context.Process(target=_serve, args=(set_up, theirs, self._item), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, job: Any) -> None:
        """Sends a job; more than one may wait."""
        with suppress(OSError):  # a process that has died is found when its answer is asked for
            self.connection.send(job)

    def receive(self) -> Any:
        """What came of the first job that is done.

        Raises:
            EOFError: If the process has died.
            Exception: As raised by the job.
        """
        try:
            found = self.connection.recv()
        except OSError:
            raise EOFError from None
        if isinstance(found, Exception):
            raise found
        return found

    def death(self) -> tuple[int | None, WorkerExit]:
        """The item that a process was at when it died, and how it ended."""
        self._process.join()
        item = self._item.value
        return None if item == _NO_ITEM else item, worker_exit(self._process.exitcode or 0)

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self.connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(set_up: Callable[[Mark], Callable[[Any], Any]], connection: Any, item: Any) -> None:
    """In a worker process: does the jobs that are sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    _end_with_parent()

    def mark(number: int) -> None:
        item.value = number

    try:
        work = set_up(mark)
    except Exception as error:
        connection.send(error)
        return
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            found = work(job)
        except Exception as error:
            found = error
        item.value = _NO_ITEM
        connection.send(found)


def _end_with_parent() -> None:
    """Ends this process when its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
