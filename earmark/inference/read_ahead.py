"""Computes the next items of an iterator in a thread while the caller works on the present one.

Conventions: items keep their order; at most ``depth`` of them wait; one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

_END = object()


def read_ahead(items: Generator[Item, None, None], depth: int = 1) -> Generator[Item, None, None]:
    """Yields the items of a generator, each computed while the caller works on those before it.

    The first two are computed without a thread, so that short recordings do not start one. When the caller
    stops early, or the generator raises, the thread ends and the generator is closed.

    Args:
        items: Runs in the thread from the third item on.
        depth: Maximum number of items computed ahead, at least 1.
    """
    try:
        first, second = next(items, _END), next(items, _END)
        if first is not _END:
            yield first  # type: ignore[misc]
        if second is not _END:
            yield from _in_thread(second, items, depth)
    finally:
        items.close()


def _in_thread(item: object, items: Iterator[Item], depth: int) -> Iterator[Item]:
    """Yields an item, and those that follow it."""
    waiting: deque[Future[object]] = deque()
    with ThreadPoolExecutor(1, "earmark-read-ahead") as thread:
        try:
            waiting.extend(thread.submit(next, items, _END) for _ in range(depth))
            while item is not _END:
                yield item  # type: ignore[misc]
                item = waiting.popleft().result()
                waiting.append(thread.submit(next, items, _END))
        finally:
            for future in waiting:
                future.cancel()
