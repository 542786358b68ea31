"""Items are computed in a thread while the caller works on those before them."""

import threading
from collections.abc import Generator

import pytest

from earmark.errors import AudioError
from earmark.inference import read_ahead as module
from earmark.inference.read_ahead import read_ahead


def numbers(count: int) -> Generator[int, None, None]:
    yield from range(count)


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_items_are_the_same(depth: int) -> None:
    for count in range(6):
        assert list(read_ahead(numbers(count), depth)) == list(range(count))


@pytest.mark.parametrize("depth", [1, 2])
def test_the_next_ones_are_computed_meanwhile_and_no_more(depth: int) -> None:
    computed, threads = [threading.Event() for _ in range(9)], set()

    def items() -> Generator[int, None, None]:
        for index, event in enumerate(computed):
            threads.add(threading.current_thread())
            event.set()
            yield index

    for index in read_ahead(items(), depth):
        if 0 < index < 9 - depth:
            assert computed[index + depth].wait(10)
        assert not any(event.is_set() for event in computed[index + depth + 1 :])
    assert len(threads) == 2


def test_one_item_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ThreadPoolExecutor", None)
    assert list(read_ahead(numbers(1))) == [0]
    with pytest.raises(TypeError):
        list(read_ahead(numbers(3)))


def test_an_error_comes_in_its_place() -> None:
    def items() -> Generator[int, None, None]:
        yield from range(4)
        raise AudioError("damaged")

    ahead = read_ahead(items())
    assert [next(ahead) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(AudioError):
        next(ahead)


@pytest.mark.parametrize("taken", [1, 2, 4])
def test_nothing_is_left_where_the_caller_stops(taken: int) -> None:
    closed = threading.Event()

    def items() -> Generator[int, None, None]:
        try:
            yield from range(100)
        finally:
            closed.set()

    before = threading.active_count()
    ahead = read_ahead(items(), 3)
    for _ in range(taken):
        next(ahead)
    ahead.close()
    assert closed.is_set()
    assert threading.active_count() == before
