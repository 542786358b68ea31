"""The shallow networks that rate embeddings."""

import numpy as np
import pytest

from earmark.errors import DataError
from earmark.evaluation import embedding_probe
from earmark.evaluation.embedding_probe import Setting, probe, settings


def clips(
    classes: int, spread: float, folds: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Embeddings around a centre for each class."""
    rng = np.random.default_rng(seed)
    truth = np.tile(np.arange(classes), 8 * folds)
    centres = rng.standard_normal((classes, 6))
    embeddings = (centres[truth] + spread * rng.standard_normal((len(truth), 6))).astype(np.float32)
    return embeddings, np.eye(classes)[truth], np.repeat(np.arange(folds) + 1, 8 * classes).tolist()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_probe, "HIDDEN_UNITS", 32)
    monkeypatch.setattr(embedding_probe, "MAX_EPOCHS", 60)


def test_classes_that_lie_apart_are_told_apart() -> None:
    result = probe(*clips(4, 0.1), "single_label", count=2)
    assert result.metric == "accuracy"
    assert list(result.scores) == [1, 2, 3]
    assert result.mean > 0.95


def test_noise_is_not_told_apart() -> None:
    embeddings, targets, folds = clips(4, 0.1)
    noise = np.random.default_rng(1).standard_normal(embeddings.shape).astype(np.float32)
    assert probe(noise, targets, folds, "single_label", count=2).mean < 0.5


def test_several_labels_are_scored_by_map() -> None:
    embeddings, targets, folds = clips(3, 0.1)
    both = np.maximum(targets, np.roll(targets, 1, axis=1) * (embeddings[:, :1] > 0))
    result = probe(embeddings, both, folds, "multi_label", count=2)
    assert result.metric == "mAP"
    assert result.mean > 0.8


def test_equal_seeds_give_equal_scores() -> None:
    first, second = (probe(*clips(3, 1.5), "single_label", count=2, seed=5) for _ in range(2))
    assert first == second


def test_the_test_fold_is_not_learned_from() -> None:
    embeddings, targets, folds = clips(3, 0.1)
    other = targets.copy()
    other[np.array(folds) == 1] = np.roll(targets[np.array(folds) == 1], 1, axis=1)
    assert probe(embeddings, other, folds, "single_label", count=1).scores[1] < 0.1


def test_the_search_space_is_that_of_hear() -> None:
    every = settings(16)
    assert len(set(every)) == 16
    assert Setting(2, 3.2e-3, "normal") in every
    assert settings(3, seed=1) == settings(16, seed=1)[:3]


def test_unusable_clips() -> None:
    embeddings, targets, _ = clips(3, 0.1)
    with pytest.raises(DataError, match="at least 3 folds"):
        probe(embeddings, targets, [0, 1, 2] * (len(targets) // 3), "single_label")
    embeddings[0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        probe(embeddings, targets, [1, 2, 3] * (len(targets) // 3), "single_label")
