import json
import pickle
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from earmark.inference import window_store
from earmark.inference.result import Result
from earmark.inference.window_store import Window, WindowStore

LABELS = ("tone", "noise", "hum")


def windows(count: int = 23) -> list[Window]:
    generator = np.random.default_rng(0)
    rows = generator.uniform(0, 1, (count, 3)).round(1).astype(np.float32)  # with ties
    vectors = generator.standard_normal((count, 5)).astype(np.float32)
    return [Window(i / 2, i / 2 + 1, rows[i], vectors[i]) for i in range(count)]


def stored(some: list[Window]) -> Sequence[Window]:
    store = WindowStore()
    for window in some:
        store.append(window)
    return store.windows()


def result(found: Sequence[Window], pooling: str = "max") -> Result:
    return Result(LABELS, found, 12.0, 8000, "toy", pooling, path="a.wav", hop_s=0.5)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_store, "IN_MEMORY", 5)


def test_windows_are_those_that_were_appended() -> None:
    some = windows()
    found = stored(some)
    assert not isinstance(found, tuple)
    assert len(found) == len(some)
    for kept in (found, pickle.loads(pickle.dumps(found))):
        for one, other in zip(kept, some, strict=True):
            assert (one.start_s, one.end_s) == (other.start_s, other.end_s)
            assert np.array_equal(one.scores, other.scores)
            assert np.array_equal(one.embedding, other.embedding)
    for index in (0, 7, -1, 21):
        assert found[index].start_s == some[index].start_s
    assert [one.start_s for one in found[3:20:4]] == [one.start_s for one in some[3:20:4]]
    with pytest.raises(IndexError):
        found[23]


def test_few_windows_are_a_tuple() -> None:
    assert isinstance(stored(windows(4)), tuple)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_results_do_not_depend_on_where_windows_are(pooling: str) -> None:
    some = windows()
    expected, found = result(tuple(some), pooling), result(stored(some), pooling)
    for chosen in ({}, {"labels": ["hum", "tone"]}, {"threshold": 0.6, "top": 2}):
        one, other = expected.filter(**chosen), found.filter(**chosen)
        assert one.to_dict() == other.to_dict()
        assert np.array_equal(one.scores, other.scores)
        assert np.array_equal(one.embedding, other.embedding)


def test_json_is_that_of_the_dict() -> None:
    one = replace(result(stored(windows())), warnings=("a.wav: hört auf",)).filter(top=2)
    assert one.to_json() == json.dumps(one.to_dict(), ensure_ascii=False)


def test_without_a_temporary_file_windows_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(window_store.os, "write", full)
    some = windows()
    assert [one.end_s for one in stored(some)] == [one.end_s for one in some]


def test_many_windows_take_little_more_memory_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real size of blocks
    labels = tuple(map(str, range(527)))

    def peak(count: int) -> int:
        tracemalloc.start()
        store = WindowStore()
        for i in range(count):
            scores, embedding = np.full(527, i / count, np.float32), np.zeros(960, np.float32)
            store.append(Window(i * 5.0, i * 5.0 + 5, scores, embedding))
        whole = Result(labels, store.windows(), count * 5.0, 8000, "toy", "max", hop_s=5.0)
        assert len(whole.tags) == 527
        assert whole.embedding.shape == (960,)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    assert peak(1200) - peak(120) < 3e6
