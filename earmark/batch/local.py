"""Processes on this machine that work through many paths, each with its own copy of the model.

Conventions: a path is one job; what it raises is its own error. A process that dies is replaced: if by a
crash, the path that it was at fails; if it was killed, for want of memory perhaps, that path is tried once
more. Paths are taken from their iterator as they are needed.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait as wait_for
from typing import Any, Generic, TypeVar, cast

from earmark.data.worker_process import MAX_WORKERS, Mark, WorkerProcess
from earmark.errors import DataError, EarmarkError, contained

Answer = TypeVar("Answer")
Item = str | EarmarkError

AHEAD = 1024
"""Paths that may be done before an earlier one, if answers keep the order of the paths."""
FALSE_STARTS = 3
"""Processes that may die before they have done anything."""
QUICK_S = 1.0
"""A process that takes no longer for a path has the next one waiting, so that it never does."""


@dataclass
class _Worker(Generic[Answer]):
    """A process and the jobs that it has not answered, by number."""

    process: WorkerProcess
    jobs: dict[int, str] = field(default_factory=dict)
    is_quick: bool = False
    has_answered: bool = False
    began_s: float = 0.0

    def take(self, number: int, path: str) -> None:
        if not self.jobs:
            self.began_s = time.monotonic()
        self.jobs[number] = path
        self.process.send((number, path))

    def answer(self) -> tuple[int, Answer | EarmarkError]:
        number, found = cast(tuple[int, Answer | EarmarkError], self.process.receive())
        now = time.monotonic()
        self.is_quick, self.began_s = now - self.began_s < QUICK_S, now
        self.has_answered = True
        return number, found

    @property
    def takes_more(self) -> bool:
        return len(self.jobs) < (2 if self.is_quick else 1)


def work_through(
    work: Callable[[str], Answer], paths: Iterable[Item], *, workers: int, ordered: bool = True
) -> Iterator[tuple[Item, Answer | EarmarkError]]:
    """Does the same with each of many paths, in processes.

    Args:
        work: Can be pickled; called with a path.
        paths: Read as they are needed; errors among them are passed on.
        workers: Number of processes, 1 to ``MAX_WORKERS``.
        ordered: Whether answers keep the order of the paths; else they come as they are ready.

    Yields:
        Each path, and what came of it.

    Raises:
        DataError: If the number of processes is out of range, or they die as they start.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise DataError(f"workers must be between 1 and {MAX_WORKERS}, got {workers}")
    return _Pool(work, iter(paths), workers, ordered).answers()


class _Pool(Generic[Answer]):
    """The processes, and the state of the work."""

    def __init__(
        self, work: Callable[[str], Answer], paths: Iterator[Item], workers: int, ordered: bool
    ) -> None:
        self._set_up = partial(_path_worker, pickle.dumps(work))
        self._paths, self._ordered = paths, ordered
        self._is_drained = False
        self._again: deque[tuple[int, str]] = deque()
        self._killed: set[int] = set()
        self._false_starts = 0
        self._number = self._next = 0
        self._ready: dict[int, tuple[Item, Answer | EarmarkError]] = {}
        self._size = workers
        self._workers: list[_Worker[Answer]] = []

    def answers(self) -> Iterator[tuple[Item, Answer | EarmarkError]]:
        try:
            while True:
                self._dispatch()
                yield from self._answered()
                busy = {worker.process.connection: worker for worker in self._workers if worker.jobs}
                if not busy:
                    if self._is_drained and not self._again:
                        return
                    continue
                for connection in wait_for(list(busy)):
                    self._receive(busy[connection])  # type: ignore[index]
        finally:
            for worker in self._workers:
                worker.process.end()

    def _dispatch(self) -> None:
        """Gives each process what it takes, starting processes as long as there are paths for them."""
        for _ in range(2):
            for worker in sorted(self._workers, key=lambda worker: len(worker.jobs)):
                if worker.takes_more and not self._give(worker):
                    return
            while len(self._workers) < self._size:
                job = self._next_job()
                if job is None:
                    return
                self._workers.append(self._started())
                self._workers[-1].take(*job)

    def _give(self, worker: _Worker[Answer]) -> bool:
        job = self._next_job()
        if job is not None:
            worker.take(*job)
        return job is not None

    def _next_job(self) -> tuple[int, str] | None:
        if self._again:
            return self._again.popleft()
        while not self._is_drained and self._number - self._next < AHEAD:
            path = next(self._paths, None)
            if path is None:
                self._is_drained = True
                return None
            number, self._number = self._number, self._number + 1
            if not isinstance(path, EarmarkError):
                return number, path
            self._ready[number] = path, path
        return None

    def _answered(self) -> Iterator[tuple[Item, Answer | EarmarkError]]:
        """What is ready, in order if that is asked for."""
        if not self._ordered:
            self._next += len(self._ready)
            while self._ready:
                yield self._ready.popitem()[1]
        while self._next in self._ready:
            self._next += 1
            yield self._ready.pop(self._next - 1)

    def _receive(self, worker: _Worker[Answer]) -> None:
        try:
            number, found = worker.answer()
        except EOFError:
            self._replace(worker)
            return
        self._ready[number] = worker.jobs.pop(number), found

    def _replace(self, worker: _Worker[Answer]) -> None:
        """Replaces a process that has died; its paths but the one it was at go to others."""
        number, ended = worker.process.death()
        worker.process.end()
        self._workers.remove(worker)
        if number in worker.jobs and (ended.is_crash or number in self._killed):
            path = worker.jobs.pop(number)
            hint = "" if ended.is_crash else "; out of memory?"
            error = EarmarkError(f"{path}: the process that read it died ({ended.cause}{hint})")
            self._ready[number] = path, error
        elif number in worker.jobs:
            self._killed.add(number)
        elif not worker.has_answered:
            self._false_starts += 1
        if self._false_starts > FALSE_STARTS:
            raise DataError(
                f"worker processes die as they start ({ended.cause}; out of memory?): use fewer workers"
            )
        self._again.extendleft(reversed(worker.jobs.items()))

    def _started(self) -> _Worker[Answer]:
        with _one_matrix_thread():
            return _Worker(WorkerProcess(self._set_up))


def _path_worker(work: bytes, mark: Mark) -> Callable[[tuple[int, str]], tuple[int, Any]]:
    """In a worker process: opens the model, and works on paths."""
    on_path: Callable[[str], Any] = pickle.loads(work)

    def do(job: tuple[int, str]) -> tuple[int, Any]:
        number, path = job
        mark(number)
        try:
            return number, on_path(path)
        except Exception as error:
            return number, contained(error, path)

    return do


@contextmanager
def _one_matrix_thread() -> Iterator[None]:
    """Processes that start within have one thread for NumPy's matrix library, unless the user set another."""
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
