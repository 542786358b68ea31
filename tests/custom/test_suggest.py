"""Suggestions of windows to listen to, and thresholds from how they were sorted."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

import earmark
from earmark.custom.review import (
    OTHER,
    Review,
    read_review,
    threshold_for,
    with_threshold,
    write_suggestions,
)
from earmark.custom.suggest import BINS, Suggester, Suggestion
from earmark.errors import DataError, ModelError
from earmark.inference.result import Result, Window
from earmark.model_file.onnx_file import read_info

RNG = np.random.default_rng(5)


def result(tagger: earmark.Tagger, path: str, scores: np.ndarray, directions: np.ndarray) -> Result:
    windows = tuple(
        Window(2.0 * number, 2.0 * number + 1, np.array([score, 1 - score], np.float32), vector)
        for number, (score, vector) in enumerate(zip(scores, directions.astype(np.float32), strict=True))
    )
    return Result(tagger.labels, windows, 2.0 * len(windows), 8000, "toy", "max", path=path)


@pytest.fixture
def tagger(toy_model: Path) -> earmark.Tagger:
    return earmark.load(toy_model)


def test_every_tenth_of_the_scores_is_heard_and_stands_for_its_windows(tagger: earmark.Tagger) -> None:
    suggester = Suggester(tagger, tagger.labels[0], top=40)
    scores = np.concatenate([RNG.uniform(0, 0.1, 900), RNG.uniform(0.1, 1, 100)])
    for part in range(10):
        own = scores[part::10]
        suggester.add(result(tagger, f"{part}.wav", own, RNG.normal(size=(len(own), 8))))
    found = suggester.suggestions()
    assert len(found) == len({(one.path, one.start_s) for one in found}) == 40
    counts = Counter(min(int(one.score * BINS), BINS - 1) for one in found)
    assert set(counts.values()) == {4}
    assert sum(one.weight for one in found) == pytest.approx(1000)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_windows_that_sound_alike_are_not_chosen_twice(tagger: earmark.Tagger) -> None:
    suggester = Suggester(tagger, tagger.labels[0], top=3)
    directions = np.repeat(np.eye(3, 8), [30, 5, 1], axis=0)
    suggester.add(result(tagger, "a.wav", np.full(36, 0.55), directions))
    starts = {one.start_s for one in suggester.suggestions()}
    groups = {next(group for group, end in enumerate((60, 70, 72)) if start < end) for start in starts}
    assert groups == {0, 1, 2}


def test_all_windows_are_suggested_if_there_are_few_but_neighbours_once(tagger: earmark.Tagger) -> None:
    suggester = Suggester(tagger, tagger.labels[0], top=50)
    windows = [
        Window(start, start + 1.0, np.array([0.5, 0.5], np.float32), np.ones(4, np.float32))
        for start in (0.0, 0.5, 5.0)
    ]
    suggester.add(Result(tagger.labels, tuple(windows), 6.0, 8000, "toy", "max", path="a.wav"))
    assert sorted(one.start_s for one in suggester.suggestions()) in ([0.0, 5.0], [0.5, 5.0])
    with pytest.raises(ModelError):
        Suggester(tagger, "no such label")


def test_a_threshold_has_the_precision_that_the_weights_say() -> None:
    scores, heard = np.array([0.9, 0.8, 0.6, 0.4, 0.2]), np.array([True, True, False, True, False])
    assert threshold_for(1.0, scores, heard, np.ones(5))[:2] == (pytest.approx(0.7), 1.0)
    assert threshold_for(0.7, scores, heard, np.ones(5)) == (pytest.approx(0.3), 0.75, 1.0)
    # the miss stands for ten windows: only the two sure hits are precise enough, two thirds of all
    assert threshold_for(0.7, scores, heard, [1, 1, 10, 1, 1]) == (
        pytest.approx(0.7),
        1.0,
        pytest.approx(2 / 3),
    )
    tied = threshold_for(0.5, [0.5, 0.5, 0.1], [True, False, True], [1, 1, 1])
    assert tied.precision >= 0.5
    for wrong in (
        lambda: threshold_for(0.9, [0.5], [False], [1]),
        lambda: threshold_for(0.9, [0.9, 0.5], [False, True], [1, 1]),
        lambda: threshold_for(1.5, [0.5], [True], [1]),
    ):
        with pytest.raises(DataError):
            wrong()


def test_estimates_of_the_archive_are_unbiased(tagger: earmark.Tagger) -> None:
    """Against the truth of 20,000 windows of which only 300 are heard."""
    scores = RNG.beta(0.4, 2, 20_000)
    truth = RNG.random(20_000) < scores**1.5
    suggester = Suggester(tagger, tagger.labels[0], top=300)
    suggester.add(result(tagger, "a.wav", scores, RNG.normal(size=(20_000, 4))))
    found = suggester.suggestions()
    heard = np.array([truth[int(one.start_s / 2)] for one in found])
    chosen = threshold_for(0.6, [one.score for one in found], heard, [one.weight for one in found])
    above = scores >= chosen.value
    assert truth[above].mean() == pytest.approx(0.6, abs=0.08)
    assert chosen.recall == pytest.approx(truth[above].sum() / truth.sum(), abs=0.12)


@pytest.fixture
def sorted_folder(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", 0.1 * RNG.standard_normal(80_000), 8000)
    windows = [
        Suggestion(str(tmp_path / "a.wav"), float(start), start + 1.0, score, 3.0)
        for start, score in enumerate((0.9, 0.7, 0.3, 0.2))
    ]
    folder = tmp_path / "review"
    assert write_suggestions(windows, "ping", folder) == []
    clips = sorted(folder.glob("*.flac"))
    assert len(clips) == 4
    assert soundfile.info(clips[0]).frames == 8000
    for clip, name in zip(clips, ("ping", "ping", OTHER), strict=False):
        clip.rename(folder / name / clip.name)
    return folder


def test_sorted_clips_are_read_and_change_one_threshold(
    sorted_folder: Path, toy_model: Path, tmp_path: Path
) -> None:
    review = read_review(sorted_folder)
    assert (review.label, review.scores.tolist(), review.heard.tolist()) == (
        "ping",
        [0.9, 0.7, 0.3],
        [True, True, False],
    )
    assert (review.weights.tolist(), review.num_unsorted) == ([3.0, 3.0, 3.0], 1)
    label = read_info(toy_model).labels[1]
    named = Review(label, review.scores, review.heard, review.weights, 0)
    with_threshold(toy_model, named, named.threshold(0.9), tmp_path / "new.onnx")
    before, after = read_info(toy_model), read_info(tmp_path / "new.onnx")
    assert after.thresholds[1] == pytest.approx(0.5)
    assert after.thresholds[0] == (before.thresholds or (0.5, 0.5))[0]
    assert "precision 1.00" in after.threshold_rule
    assert earmark.load(tmp_path / "new.onnx").labels == before.labels


def test_clips_may_be_moved_to_folders_of_classes(sorted_folder: Path, tmp_path: Path) -> None:
    [left] = sorted_folder.glob("*.flac")
    (tmp_path / "sounds" / "ping").mkdir(parents=True)
    left.rename(tmp_path / "sounds" / "ping" / left.name)
    review = read_review(sorted_folder, [tmp_path / "sounds"])
    assert (review.num_unsorted, review.heard.sum()) == (0, 3)


def test_suggestions_are_not_replaced_and_have_to_be_sorted(sorted_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="already"):
        write_suggestions([], "ping", sorted_folder)
    with pytest.raises(DataError):
        write_suggestions([], "..", tmp_path / "x")
    for clip in sorted_folder.glob("*/*.flac"):
        clip.rename(sorted_folder / clip.name)
    with pytest.raises(DataError, match="sorted"):
        read_review(sorted_folder)
    with pytest.raises(DataError):
        read_review(tmp_path)
