"""Losses against their formulas in float64, and the numbers of audax."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from earmark.training.config.learning import Loss
from earmark.training.losses import balanced_weights, label_loss, ranking_loss

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
    wanted = (1 - smoothing) * targets.numpy() + smoothing / 5
    expected = -np.mean(wanted * np.log(score) + (1 - wanted) * np.log(1 - score))
    assert label_loss(
        logits, targets, "multi_label", Loss(label_smoothing=smoothing)
    ).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_single_label_is_cross_entropy(batch, smoothing):
    logits, _, shares = batch
    wanted = (1 - smoothing) * shares.numpy() + smoothing / 5
    expected = -np.mean((wanted * log_softmax(logits.numpy())).sum(1))
    assert label_loss(
        logits, shares, "single_label", Loss(label_smoothing=smoothing)
    ).item() == pytest.approx(expected, abs=1e-12)


def test_ranking_is_cross_entropy_that_a_clip_without_labels_adds_nothing_to(batch):
    logits, targets, _ = batch
    targets[3] = 0
    expected = -(targets.numpy() * log_softmax(logits.numpy())).sum() / 8
    assert ranking_loss(logits, targets).item() == pytest.approx(expected, abs=1e-12)


def test_ranking_does_not_mind_the_level(batch):
    logits, targets, _ = batch
    assert ranking_loss(logits + 7, targets).item() == pytest.approx(ranking_loss(logits, targets).item())


def test_ranking_is_added_by_its_weight_where_labels_may_co_occur(batch):
    logits, targets, _ = batch
    plain = label_loss(logits, targets, "multi_label")
    both = label_loss(logits, targets, "multi_label", Loss(ranking_weight=0.3))
    torch.testing.assert_close(both, plain + 0.3 * ranking_loss(logits, targets))


def test_unknown_targets_add_nothing(batch):
    logits, targets, shares = batch
    unknown, unknown_shares = targets.clone(), shares.clone()
    unknown[2:4] = unknown_shares[2:4] = torch.nan
    known = [0, 1, 4, 5, 6, 7]
    for task, some, all_known in (
        ("multi_label", unknown, targets[known]),
        ("single_label", unknown_shares, shares[known]),
    ):
        settings = Loss(label_smoothing=0.1, ranking_weight=0.3 if task == "multi_label" else 0.0)
        found = label_loss(logits, some, task, settings)
        torch.testing.assert_close(found, label_loss(logits[known], all_known, task, settings))
        leaf = logits.clone().requires_grad_()
        label_loss(leaf, some, task, settings).backward()
        assert leaf.grad.isfinite().all()
        assert not leaf.grad[2:4].any()
        assert label_loss(logits, torch.full_like(targets, torch.nan), task, settings) == 0


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
    golden = np.load(GOLDEN / "audax_toy.npz")
    logits, targets = (torch.from_numpy(golden[f"metrics/{name}"][:8]) for name in ("scores", "target"))
    shares = torch.from_numpy(golden["loss/ce_onehot"])
    smooth = Loss(label_smoothing=0.1)
    found = {
        "bce": label_loss(logits, targets, "multi_label"),
        "bce_smooth0.1": label_loss(logits, targets, "multi_label", smooth),
        "ce": label_loss(logits, shares, "single_label"),
        "ce_smooth0.1": label_loss(logits, shares, "single_label", smooth),
    }
    for name, loss in found.items():
        assert loss.item() == pytest.approx(float(golden[f"loss/{name}"]), abs=1e-5), name


def test_the_numbers_of_sp4asc_are_ours(shared):
    """Its focal loss looks at the largest target only: for one class a clip that is the same."""
    golden = np.load(shared / "golden/sp4asc/sp4asc_metrics.npz")
    logits, hard = torch.from_numpy(golden["logits"][:32]), torch.from_numpy(np.eye(10)[golden["y"][:32]])
    soft = torch.from_numpy(golden["soft_target"])
    focal = Loss(focal_gamma=1.0)
    found = {
        "ce_onehot": label_loss(logits, hard, "single_label"),
        "ce_soft": label_loss(logits, soft, "single_label"),
        "focal_onehot": label_loss(logits, hard, "single_label", focal),
        "focal_soft": label_loss(logits, torch.eye(10)[soft.argmax(1)], "single_label", focal),
    }
    for name, loss in found.items():
        assert loss.item() == pytest.approx(float(golden[name]), abs=1e-6), name


def test_unknown_labels_may_count_as_in_efficientats_openmic(shared):
    golden = np.load(shared / "golden/efficientat/pipeline/openmic_loss_toy.npz")
    chance, known = np.split(golden["target40"], 2, axis=1)
    targets = torch.from_numpy(np.where(known > 0, chance > 0.5, np.nan).astype(np.float32))
    found = label_loss(torch.from_numpy(golden["y_hat"]), targets, "multi_label", Loss(unknown="count"))
    assert found.item() == pytest.approx(float(golden["loss"]), abs=1e-6)


def test_class_weights_are_a_plain_mean_as_in_the_tutorial(shared):
    """Under mixup it multiplies each clip's loss with every clip's share: as if all had their mean."""
    golden = np.load(shared / "golden/sound_clf/sound_clf_data.npz")
    logits, weights = (torch.from_numpy(golden[f"mixup/{name}"]) for name in ("logits", "class_weight"))
    first, second = (torch.eye(5)[torch.from_numpy(golden[f"mixup/{name}"])] for name in ("y", "y2"))
    share = torch.from_numpy(golden["mixup/lam"]).float().mean()
    for name, mixed in (("train", share * first + (1 - share) * second), ("eval", first)):
        found = label_loss(logits, mixed, "single_label", weights=weights)
        assert found.item() == pytest.approx(float(golden[f"mixup/loss_{name}"]), abs=1e-5), name


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.array([0] * 7 + [1] * 2 + [3])
    weights = balanced_weights(torch.from_numpy(np.bincount(labels, minlength=4)).float())
    oracle = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(weights[[0, 1, 3]], oracle * 3 / 4)  # it does not know of class 2
    assert weights[2] == 1


def test_focal_loss_weighs_easy_clips_less(batch):
    logits, targets, shares = batch
    score = torch.sigmoid(logits)
    received = targets * (1 - score) ** 2 * score.log()
    negative_term = (1 - targets) * score**2 * (1 - score).log()
    found = label_loss(logits, targets, "multi_label", Loss(focal_gamma=2.0))
    torch.testing.assert_close(found, -(received + negative_term).mean())
    for task, wanted in (("multi_label", targets), ("single_label", shares)):
        leaf = (20 * logits).requires_grad_()
        label_loss(leaf, wanted, task, Loss(focal_gamma=0.5)).backward()
        assert leaf.grad.isfinite().all()
