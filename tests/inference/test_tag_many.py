"""Many files: results in order, an error in the place of a file that cannot be tagged."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

import earmark
from earmark.errors import AudioError, EarmarkError, ModelError
from earmark.inference.recording import Recording
from earmark.inference.tagger import WINDOWS_AHEAD

RATE = 8000


@pytest.fixture(scope="module")
def tagger(toy_model: Path) -> earmark.Tagger:
    return earmark.load(toy_model, threads=1)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of 1 to 4 windows."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    found = []
    for number, seconds in enumerate((0.3, 1.9, 0.5, 1.2, 0.7)):
        found.append(folder / f"{number}.wav")
        soundfile.write(found[-1], 0.1 * generator.standard_normal(round(seconds * RATE)), RATE)
    return found


def test_results_are_those_of_single_files_in_order(tagger: earmark.Tagger, paths: list[Path]) -> None:
    options = {"window_s": 0.4, "hop_s": 0.3, "pooling": "mean"}
    results = list(tagger.tag_many(paths, **options))
    assert [result.path for result in results] == list(map(str, paths))
    for path, result in zip(paths, results, strict=True):
        alone = tagger.tag(path, **options)
        np.testing.assert_array_equal(result.scores, alone.scores)
        np.testing.assert_array_equal(result.embedding, alone.embedding)
        assert (result.duration_s, result.pooling) == (alone.duration_s, "mean")
        assert len(result.windows) == len(alone.windows)


def test_errors_stand_in_the_place_of_results(
    tagger: earmark.Tagger, paths: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    cut = tmp_path / "cut.wav"
    cut.write_bytes(paths[1].read_bytes()[:-4001])
    passed_on = AudioError("a folder without recordings")
    mixed = [tmp_path / "none.wav", paths[0], passed_on, tmp_path / "text.wav", cut, tmp_path]
    results = list(tagger.tag_many(mixed))
    kinds = [type(result) for result in results]
    assert kinds == [AudioError, earmark.Result, AudioError, AudioError, earmark.Result, AudioError]
    assert results[2] is passed_on
    assert "none.wav" in str(results[0])
    assert len(results[4].warnings) == 1
    assert list(tagger.tag_many([])) == []


def test_options_are_checked_at_once(tagger: earmark.Tagger) -> None:
    with pytest.raises(ModelError):
        tagger.tag_many([], hop_s=0)


def test_files_are_read_ahead_within_bounds(tagger: earmark.Tagger, paths: list[Path]) -> None:
    asked = []

    def listed():
        for number in range(50):
            asked.append(number)
            yield paths[0]

    for number, _ in enumerate(tagger.tag_many(listed())):
        assert len(asked) <= number + WINDOWS_AHEAD + 2


def test_nothing_is_left_where_the_caller_stops(tagger: earmark.Tagger, paths: list[Path]) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("this system does not list open files")
    before = threading.active_count(), len(os.listdir(folder))
    results = tagger.tag_many(paths * 20)
    next(results)
    results.close()
    assert (threading.active_count(), len(os.listdir(folder))) == before


def test_any_exception_ends_the_work_on_its_file_only(
    tagger: earmark.Tagger, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, runs = tagger.session, []

    class Failing:
        def run(self, names, inputs):
            runs.append(names)
            if len(runs) == 2:  # in the second file, of several windows
                raise RuntimeError("out of order\nmore")
            return real.run(names, inputs)

    read = Recording.windows

    def windows(self, *arguments):
        if self.path == str(paths[3]):
            raise ZeroDivisionError
        if self.path == str(paths[4]):
            raise OSError(5, "Input/output error")
        return read(self, *arguments)

    monkeypatch.setattr(Recording, "windows", windows)
    results = list(tagger.with_session(Failing()).tag_many(paths))
    assert [str(item) for item in results if isinstance(item, EarmarkError)] == [
        f"{paths[1]}: cannot be processed (RuntimeError: out of order)",
        f"{paths[3]}: cannot be processed (ZeroDivisionError)",
        f"{paths[4]}: Input/output error",
    ]
    for number in (0, 2):
        np.testing.assert_array_equal(results[number].scores, tagger.tag(paths[number]).scores)


def test_progress_names_the_end_of_each_window(tagger: earmark.Tagger, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(20_000), 8000)
    seen: list[tuple] = []
    list(tagger.tag_many([path], window_s=1.0, progress=lambda *facts: seen.append(facts)))
    assert seen == [(str(path), 1.0, 2.5), (str(path), 2.0, 2.5), (str(path), 2.5, 2.5)]
