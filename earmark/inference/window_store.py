"""The windows of a recording: in memory as long as they are few, the others in a temporary file.

Conventions: windows are in order of time, and all have as many scores and channels as the first. The file has
no name, and is gone when the windows are.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import overload

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_reading = Lock()
IN_MEMORY = 128
"""Windows that are kept in memory, and that are read from a file at once."""


@dataclass(frozen=True)
class Window:
    """The output for one window: span in seconds, scores (class,), embedding (channel,)."""

    start_s: float
    end_s: float
    scores: Floats
    embedding: Floats


class WindowStore(Sequence[Window]):
    """Windows that are appended one after the other, then read; pickled as a tuple.

    Where no temporary file can be written, all stay in memory.
    """

    def __init__(self) -> None:
        self._held: list[Window] = []
        self._stored = 0
        self._file = -1
        self._record = np.dtype([])
        self._full_at = IN_MEMORY

    def append(self, window: Window) -> None:
        """Adds the next window."""
        self._held.append(window)
        if len(self._held) == self._full_at:
            try:
                self._store()
            except OSError:
                self._full_at = -1

    def windows(self) -> Sequence[Window]:
        """The windows, as a tuple if they are in memory."""
        return self if self._stored else tuple(self._held)

    def __len__(self) -> int:
        return self._stored + len(self._held)

    def __iter__(self) -> Iterator[Window]:
        for first in range(0, self._stored, IN_MEMORY):
            yield from self._read(first, IN_MEMORY)
        yield from self._held

    @overload
    def __getitem__(self, index: int) -> Window: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Window]: ...

    def __getitem__(self, index: int | slice) -> Window | Sequence[Window]:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return tuple(self[position] for position in positions)
        if positions >= self._stored:
            return self._held[positions - self._stored]
        return next(self._read(positions, 1))

    def __reduce__(self) -> tuple[type[tuple[Window, ...]], tuple[list[Window]]]:
        return tuple, (list(self),)

    def _store(self) -> None:
        """Moves the windows that are held to the file."""
        first = self._held[0]
        if self._file < 0:
            floats = [("scores", "f4", first.scores.shape), ("embedding", "f4", first.embedding.shape)]
            self._record = np.dtype([("start_s", "f8"), ("end_s", "f8"), *floats])
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._file)
        rows = np.array(
            [(one.start_s, one.end_s, one.scores, one.embedding) for one in self._held], self._record
        )
        left = memoryview(rows.tobytes())
        os.lseek(self._file, 0, os.SEEK_END)
        while left:
            left = left[os.write(self._file, left) :]
        self._stored += len(self._held)
        self._held = []

    def _read(self, first: int, count: int) -> Iterator[Window]:
        size = self._record.itemsize
        with _reading:
            os.lseek(self._file, first * size, os.SEEK_SET)
            content = os.read(self._file, min(count, self._stored - first) * size)
        for row in np.frombuffer(content, self._record):
            yield Window(float(row["start_s"]), float(row["end_s"]), row["scores"], row["embedding"])


class ViewedWindows(Sequence[Window]):
    """The same windows with other scores, computed when they are read.

    Args:
        windows: The windows.
        view: Scores (class,) -> scores.
    """

    def __init__(self, windows: Sequence[Window], view: Callable[[Floats], Floats]) -> None:
        self._windows, self._view = windows, view

    def __len__(self) -> int:
        return len(self._windows)

    def __iter__(self) -> Iterator[Window]:
        return map(self._viewed, self._windows)

    @overload
    def __getitem__(self, index: int) -> Window: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Window]: ...

    def __getitem__(self, index: int | slice) -> Window | Sequence[Window]:
        if isinstance(index, slice):
            return tuple(map(self._viewed, self._windows[index]))
        return self._viewed(self._windows[index])

    def __reduce__(self) -> tuple[type[tuple[Window, ...]], tuple[list[Window]]]:
        return tuple, (list(self),)

    def _viewed(self, window: Window) -> Window:
        return replace(window, scores=self._view(window.scores))


def viewed(windows: Sequence[Window], view: Callable[[Floats], Floats]) -> Sequence[Window]:
    """Returns windows with other scores, computed at once unless there are many.

    Args:
        windows: The windows.
        view: Scores (class,) -> scores.
    """
    found = ViewedWindows(windows, view)
    return tuple(found) if len(windows) <= IN_MEMORY else found


def in_blocks(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Yields the windows in lists of at most ``IN_MEMORY``."""
    block = []
    for window in windows:
        block.append(window)
        if len(block) == IN_MEMORY:
            yield block
            block = []
    if block:
        yield block
