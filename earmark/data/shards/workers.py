"""Writes shards in processes; a clip that kills its process is left out, and the process replaced.

Conventions: a process writes one shard at a time; the item that it is at is the row of a clip.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path

from earmark.data.shards.shard_job import ShardJob, write_shard
from earmark.data.worker_process import MAX_WORKERS, Mark, WorkerProcess
from earmark.errors import DataError, first_line

__all__ = ["MAX_WORKERS", "write_shards"]


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
    free = [WorkerProcess(_shard_writer) for _ in range(min(workers, len(jobs)))]
    busy: dict[Connection, tuple[WorkerProcess, ShardJob]] = {}
    try:
        while waiting or busy:
            while waiting and free:
                worker, job = free.pop(), waiting.popleft()
                worker.send(job)
                busy[worker.connection] = worker, job
            for connection in wait_for(list(busy)):
                worker, job = busy[connection]  # type: ignore[index]
                try:
                    yield worker.receive()
                except EOFError:
                    waiting.appendleft(_without_deadly_clip(worker, job))
                    worker.end()
                    worker = WorkerProcess(_shard_writer)
                del busy[connection]  # type: ignore[arg-type]
                free.append(worker)
    finally:
        for worker in (*free, *(worker for worker, _ in busy.values())):
            worker.end()


def _without_deadly_clip(worker: WorkerProcess, job: ShardJob) -> ShardJob:
    """The job of a process that has died, without the clip that killed it.

    Raises:
        DataError: If it was killed from outside.
    """
    row, ended = worker.death()
    if row is None or not ended.is_crash:
        raise DataError(
            f"a worker process was killed ({ended.cause}; out of memory?): run the same command again to "
            "continue, with --workers 1 for the least memory"
        )
    reason = ended.left_out(job.clips[row - job.first].path)
    return replace(job, left_out={**job.left_out, row: reason})


def _shard_writer(mark: Mark) -> Callable[[ShardJob], Path]:
    """In a worker process: writes shards."""

    def write(job: ShardJob) -> Path:
        try:
            return write_shard(job, mark)
        except OSError:
            raise
        except Exception as error:
            raise DataError(f"{job.shard}: {first_line(error)}") from None

    return write
