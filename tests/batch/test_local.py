from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import Unopenable, shout

from earmark.batch import local
from earmark.batch.local import work_through
from earmark.errors import AudioError, DataError, EarmarkError, ModelError


def test_answers_keep_the_order_of_the_paths_or_come_as_they_are_ready() -> None:
    paths = ["slow", *(f"p{number}" for number in range(6))]
    expected = [path.upper() for path in paths]
    ordered = list(work_through(shout, paths, workers=2))
    assert [path for path, _ in ordered] == paths
    assert [answer[0] for _, answer in ordered] == expected
    assert len({answer[1] for _, answer in ordered}) == 2
    unordered = [path for path, _ in work_through(shout, paths, workers=2, ordered=False)]
    assert sorted(unordered) == sorted(paths)
    assert unordered != paths


def test_errors_and_deaths_are_those_of_their_paths(tmp_path: Path) -> None:
    missing, once = AudioError("x: no recordings"), str(tmp_path / "once")
    paths = ["a", "bad.wav", "SIGSEGV", missing, once, "SIGKILL", "b", "c"]
    answers = dict(work_through(shout, paths, workers=2))
    assert list(answers) == paths
    assert answers[missing] is missing
    reasons = {path: str(answers[path]) for path in ("bad.wav", "SIGSEGV", "SIGKILL")}
    assert all(isinstance(answers[path], EarmarkError) for path in reasons)
    assert reasons["bad.wav"] == "bad.wav: cannot be processed (ValueError: no sound in it)"
    assert reasons["SIGSEGV"] == "SIGSEGV: the process that read it died (SIGSEGV)"
    assert reasons["SIGKILL"] == "SIGKILL: the process that read it died (SIGKILL; out of memory?)"
    assert [answers[path][0] for path in ("a", once, "b", "c")] == ["A", once.upper(), "B", "C"]


def test_paths_are_read_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "AHEAD", 5)
    taken: list[int] = []

    def endless() -> Iterator[str]:
        while True:
            taken.append(1)
            yield f"p{len(taken)}"

    answers = work_through(shout, endless(), workers=1)
    assert next(answers)[0] == "p1"
    assert len(taken) <= 5
    answers.close()  # type: ignore[attr-defined]


def test_a_model_that_cannot_be_opened_ends_the_work() -> None:
    with pytest.raises(ModelError, match="the model has changed"):
        list(work_through(Unopenable(), ["a"], workers=1))


@pytest.mark.parametrize("workers", [0, 257])
def test_numbers_of_processes(workers: int) -> None:
    with pytest.raises(DataError, match=f"workers must be between 1 and 256, got {workers}"):
        work_through(shout, [], workers=workers)
