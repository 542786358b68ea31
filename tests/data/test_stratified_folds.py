"""Clips are dealt so that every fold has its share of every class."""

from pathlib import Path

import numpy as np
import pytest

from earmark.data.manifest import Clip, targets
from earmark.data.splits import stratified_folds
from earmark.errors import DataError


def clips_of(*labels) -> list[Clip]:
    return [Clip(Path(f"{number}.wav"), names) for number, names in enumerate(labels)]


def counts(clips, labels, folds) -> np.ndarray:
    table = targets(clips, labels)
    return np.stack([table[[clip.fold == fold for clip in clips]].sum(0) for fold in range(1, folds + 1)])


def test_single_labels_are_stratified_exactly():
    random = np.random.default_rng(0)
    names = [("abc"[index],) for index in random.choice(3, 300, p=[0.7, 0.25, 0.05])]
    clips = stratified_folds(clips_of(*names), 5)
    found = counts(clips, "abc", 5)
    assert np.ptp(found, 0).max() <= 1
    assert found.sum() == 300
    assert [clip.labels for clip in clips] == names


def test_several_labels_are_stratified():
    random = np.random.default_rng(1)
    names = [tuple(name for name in "abcdef" if random.random() < 0.2) for _ in range(400)]
    clips = stratified_folds(clips_of(*names), 4)
    assert np.ptp(counts(clips, "abcdef", 4), 0).max() <= 3
    sizes = np.bincount([clip.fold for clip in clips])[1:]
    assert np.ptp(sizes) <= 3


def test_the_same_clips_come_to_the_same_folds():
    clips = clips_of(*[("ab"[i % 2],) for i in range(11)])
    assert stratified_folds(clips, 2) == stratified_folds(clips, 2)
    assert [clip.fold for clip in stratified_folds(clips_of((), (), ()), 3)] == [1, 2, 3]


def test_fewer_clips_than_folds_are_refused():
    with pytest.raises(DataError):
        stratified_folds(clips_of(("a",), ("b",)), 3)
