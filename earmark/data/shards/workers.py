"""Processes that write shards; a clip that kills its process is left out, and the process replaced.

Conventions: a process writes one shard at a time, and tells by shared memory which clip it is at. Processes
are not forked: the libraries of this one may have threads. They end when their parent is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from earmark.data.shards.shard_job import ShardJob, write_shard
from earmark.data.worker_exits import worker_exit
from earmark.errors import DataError, first_line

MAX_WORKERS = 256
"""Limit of the number of processes."""

_NO_CLIP = -1


def write_shards(jobs: Sequence[ShardJob], workers: int) -> Iterator[Path]:
    """Writes shards in processes.

    Args:
        jobs: The shards.
        workers: Number of processes, 1 to ``MAX_WORKERS``.

    Yields:
        The path of each shard, as it becomes ready.

    Raises:
        DataError: If a process is killed from outside.
        OSError: If a shard cannot be written.
    """
    waiting = deque(jobs)
    free = [_Worker() for _ in range(min(workers, len(jobs)))]
    busy: dict[Connection, _Worker] = {}
    try:
        while waiting or busy:
            while waiting and free:
                worker = free.pop()
                worker.begin(waiting.popleft())
                busy[worker.connection] = worker
            for connection in wait_for(list(busy)):
                worker = busy.pop(connection)  # type: ignore[call-overload]
                written = worker.result()
                if written is None:
                    waiting.appendleft(worker.job_without_deadly_clip())
                    worker.end()
                    worker = _Worker()
                else:
                    yield written
                free.append(worker)
    finally:
        for worker in (*free, *busy.values()):
            worker.end()


class _Worker:
    """A process, and the job that it works on."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._row = context.RawValue("q", _NO_CLIP)
        self._process = context.Process(target=_serve, args=(theirs, self._row), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, job: ShardJob) -> None:
        """Sends a job."""
        self._job = job
        with suppress(OSError):  # a process that has died is found when its result is asked for
            self.connection.send(job)

    def result(self) -> Path | None:
        """The shard that was written; None if the process has died.

        Raises:
            Exception: As raised in the process.
        """
        try:
            found = self.connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(found, Exception):
            raise found
        return Path(found)

    def job_without_deadly_clip(self) -> ShardJob:
        """The job of a process that has died, without the clip that killed it.

        Raises:
            DataError: If it was killed from outside.
        """
        self._process.join()
        job, row, ended = self._job, self._row.value, worker_exit(self._process.exitcode or 0)
        if row == _NO_CLIP or not ended.is_crash:
            raise DataError(
                f"a worker process was killed ({ended.cause}; out of memory?): run the same command again to "
                "continue, with --workers 1 for the least memory"
            )
        reason = ended.left_out(job.clips[row - job.first].path)
        return replace(job, left_out={**job.left_out, row: reason})

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self.connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(connection: Connection, row: Any) -> None:
    """In a worker process: writes the shards that are asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    _end_with_parent()

    def before(number: int) -> None:
        row.value = number

    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            found: Any = write_shard(job, before)
        except Exception as error:
            found = error if isinstance(error, OSError) else DataError(f"{job.shard}: {first_line(error)}")
        row.value = _NO_CLIP
        connection.send(found)


def _end_with_parent() -> None:
    """Ends this process when its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
