"""Losses against their formulas in float64, and the numbers of audax."""

from pathlib import Path

import numpy as np
import pytest
import torch

from earmark.train.losses import label_loss, ranking_loss

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def batch():
    """Logits, targets that are mixed as mixup leaves them, and shares of one."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(8, 5, generator=generator, dtype=torch.float64)
    targets = torch.rand(8, 5, generator=generator, dtype=torch.float64)
    return logits, targets, targets / targets.sum(1, keepdim=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_multi_label_is_binary_cross_entropy(batch, smoothing):
    logits, targets, _ = batch
    score = 1 / (1 + np.exp(-logits.numpy()))
    wanted = (1 - smoothing) * targets.numpy() + smoothing * 0.5
    expected = -np.mean(wanted * np.log(score) + (1 - wanted) * np.log(1 - score))
    assert label_loss(logits, targets, "multi_label", smoothing).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_single_label_is_cross_entropy(batch, smoothing):
    logits, _, shares = batch
    wanted = (1 - smoothing) * shares.numpy() + smoothing / 5
    expected = -np.mean((wanted * log_softmax(logits.numpy())).sum(1))
    assert label_loss(logits, shares, "single_label", smoothing).item() == pytest.approx(expected, abs=1e-12)


def test_ranking_is_cross_entropy_that_a_clip_without_labels_adds_nothing_to(batch):
    logits, targets, _ = batch
    targets[3] = 0
    expected = -(targets.numpy() * log_softmax(logits.numpy())).sum() / 8
    assert ranking_loss(logits, targets).item() == pytest.approx(expected, abs=1e-12)


def test_ranking_does_not_mind_the_level(batch):
    logits, targets, _ = batch
    assert ranking_loss(logits + 7, targets).item() == pytest.approx(ranking_loss(logits, targets).item())


def test_ranking_is_added_by_its_weight_where_labels_may_co_occur(batch):
    logits, targets, shares = batch
    plain = label_loss(logits, targets, "multi_label")
    both = label_loss(logits, targets, "multi_label", ranking_weight=0.3)
    torch.testing.assert_close(both, plain + 0.3 * ranking_loss(logits, targets))
    single = [label_loss(logits, shares, "single_label", ranking_weight=weight) for weight in (0.0, 0.3)]
    assert single[0] == single[1]


def test_what_nobody_knows_adds_nothing(batch):
    logits, targets, shares = batch
    unknown, unknown_shares = targets.clone(), shares.clone()
    unknown[2:4] = unknown_shares[2:4] = torch.nan
    known = [0, 1, 4, 5, 6, 7]
    for task, some, all_known in (
        ("multi_label", unknown, targets[known]),
        ("single_label", unknown_shares, shares[known]),
    ):
        ranking = 0.3 if task == "multi_label" else 0.0
        found = label_loss(logits, some, task, 0.1, ranking)
        torch.testing.assert_close(found, label_loss(logits[known], all_known, task, 0.1, ranking))
        leaf = logits.clone().requires_grad_()
        label_loss(leaf, some, task, 0.1, ranking).backward()
        assert leaf.grad.isfinite().all()
        assert not leaf.grad[2:4].any()
        assert label_loss(logits, torch.full_like(targets, torch.nan), task, 0.1, ranking) == 0


def test_one_class_of_a_clip_may_be_unknown(batch):
    logits, targets, _ = batch
    targets[1, 2] = torch.nan
    score = torch.sigmoid(logits)
    terms = -(targets * score.log() + (1 - targets) * (1 - score).log())
    torch.testing.assert_close(label_loss(logits, targets, "multi_label"), terms.nanmean())


def test_large_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4]])
    for task in ("multi_label", "single_label"):
        assert label_loss(logits, torch.tensor([[1.0, 0.0]]), task).item() == 0.0
        assert label_loss(logits, torch.tensor([[0.0, 1.0]]), task).isfinite()


def test_the_numbers_of_audax_are_ours():
    """But for its smoothing of binary targets, which spreads over the classes, ours over the two answers."""
    golden = np.load(GOLDEN / "audax_toy.npz")
    logits, targets = (torch.from_numpy(golden[f"metrics/{name}"][:8]) for name in ("scores", "target"))
    shares = torch.from_numpy(golden["loss/ce_onehot"])
    found = {
        "bce": label_loss(logits, targets, "multi_label"),
        "ce": label_loss(logits, shares, "single_label"),
        "ce_smooth0.1": label_loss(logits, shares, "single_label", 0.1),
    }
    for name, loss in found.items():
        assert loss.item() == pytest.approx(float(golden[f"loss/{name}"]), abs=1e-5), name
