"""Loads the batches of an epoch, in processes that are replaced where a clip kills one.

Conventions: PyTorch's ``DataLoader`` loads; it ends with the first process that dies. Here the clip that the
process was reading is left out, and a new loader goes on with the batch that was due; since a batch depends
on its keys alone, the others stay the same.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from earmark.data.manifest import Clip
from earmark.data.worker_exits import worker_exit
from earmark.training.runtime.devices import Keys

Clips = tuple[Tensor, Tensor]
"""Waveforms or features (batch, ...), and targets (batch, class)."""

_NO_CLIP = -1
_NOTICE_S = 0.5
"""How long after its connection has ended a process may still be found alive."""


class ClipData(Protocol):
    """The part of a dataset that is needed here."""

    clips: list[Clip]

    def __getitem__(self, key: tuple[int, int]) -> Clips:
        """Input and targets of a clip."""

    def unreadable(self, index: int) -> Clips:
        """NaN in place of a clip that cannot be read."""

    def reason(self, index: int) -> str:
        """Why a clip cannot be read."""


class BatchLoader:
    """Loads batches of clips.

    Args:
        data: Returns NaN for clips that cannot be read.
        workers: Number of processes; 0: this one.
        pin_memory: Whether batches are loaded into pinned memory.
    """

    def __init__(self, data: ClipData, workers: int, pin_memory: bool) -> None:
        self.data, self._workers, self._pin_memory = data, workers, pin_memory
        self._deadly: dict[int, str] = {}
        self._reading = torch.full((max(1, workers),), _NO_CLIP)
        self._reading.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.data.clips)

    def reason(self, index: int) -> str:
        """Why a clip cannot be read; one that has killed a process is not read again."""
        return self._deadly.get(index) or self.data.reason(index)

    def load(self, batches: Sequence[Keys]) -> Iterator[Clips]:
        """Loads batches.

        Args:
            batches: Keys of the clips of each.

        Returns:
            The batches, in order; NaN stands for clips that cannot be read.

        Raises:
            RuntimeError: If a process is killed from outside, as :class:`~torch.utils.data.DataLoader`.
        """
        # No generator function: the loader draws from PyTorch's generator as soon as it is iterated.
        return self._load(batches, self._start(batches, None))

    def _load(self, batches: Sequence[Keys], loading: Any) -> Iterator[Clips]:
        done = 0
        while done < len(batches):
            # PyTorch's handler would raise anywhere, also in a destructor. Without it, the loader looks every
            # five seconds whether its processes are alive.
            with _own_handler(signal.SIG_DFL):
                try:
                    batch = next(loading)
                except Exception as error:  # of many kinds where a process dies while it hands over a batch
                    self._leave_out(loading, error)
                    loading = None  # ends its processes
                    loading = self._start(batches[done:], torch.Generator())
                    continue
            done += 1
            yield batch

    def _start(self, batches: Sequence[Keys], generator: torch.Generator | None) -> Any:
        """A loader at work; with a generator, PyTorch's own is not drawn from."""
        self._reading.fill_(_NO_CLIP)
        loader = DataLoader(
            _Watched(self.data, self._reading, frozenset(self._deadly)),
            batch_sampler=batches,
            num_workers=self._workers,
            pin_memory=self._pin_memory,
            generator=generator,
        )
        with _own_handler(signal.SIG_DFL):  # PyTorch's would raise wherever the main thread is, within a step
            return iter(loader)

    def _leave_out(self, loading: Any, error: Exception) -> None:
        """Notes the clips that killed a process; raises the error if there are none."""
        died = _dead(loading)
        if not died and isinstance(error, (EOFError, OSError)):
            time.sleep(_NOTICE_S)
            died = _dead(loading)
        for number, process in died:
            ended, index = worker_exit(process.exitcode), int(self._reading[number])
            if not ended.is_crash or index == _NO_CLIP:
                raise RuntimeError(f"DataLoader worker (pid {process.pid}) died ({ended.cause})") from None
            self._deadly[index] = ended.left_out(self.data.clips[index].path)
        if not died:
            raise error


class _Watched(Dataset[Clips]):
    """A dataset that tells which clip each process reads, and reads none of those that have killed one."""

    def __init__(self, data: ClipData, reading: Tensor, deadly: frozenset[int]) -> None:
        self._data, self._reading, self._deadly = data, reading, deadly

    def __getitem__(self, key: tuple[int, int]) -> Clips:
        if key[0] in self._deadly:
            return self._data.unreadable(key[0])
        worker = get_worker_info()
        if worker is None:
            return self._data[key]
        self._reading[worker.id] = key[0]
        item = self._data[key]
        self._reading[worker.id] = _NO_CLIP
        return item


def _dead(loading: Any) -> list[tuple[int, Any]]:
    """Number and process of the workers of a loader that have died."""
    workers = enumerate(getattr(loading, "_workers", ()))
    return [(number, process) for number, process in workers if process.exitcode]


@contextmanager
def _own_handler(handler: Any) -> Iterator[None]:
    """Handles the ends of child processes within the block; only the main thread can."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.signal(signal.SIGCHLD, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
