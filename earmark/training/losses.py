"""Losses on labels.

Conventions: logits and targets are (batch, class); targets may be soft, and NaN where unknown; every loss is
a mean over the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from earmark.model_file.info import Task
from earmark.training.config.learning import Loss


def label_loss(
    logits: Tensor, targets: Tensor, task: Task, settings: Loss | None = None, weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy (multi_label) or cross-entropy (single_label).

    Source: goldens sp4asc_metrics (cross-entropy, focal), openmic_loss_toy (unknown labels), sound_clf_data
    (class weights: a plain mean of weighted terms), audax transforms_metrics (smoothing).

    Args:
        logits: (batch, class).
        targets: (batch, class) in [0, 1]; NaN adds nothing.
        task: "multi_label" (mean over classes too) or "single_label".
        settings: Smoothing, focal gamma and so on (default: none).
        weights: Class weights, (class,).

    Returns:
        A scalar. Unknown targets are left out of the mean, unless ``settings.unknown`` is "count".
    """
    settings = settings or Loss()
    known = ~targets.isnan()
    if task == "single_label":
        known = known.all(-1, keepdim=True).expand_as(known)
    smoothing = settings.label_smoothing
    smoothed = torch.where(known, targets, 0.0) * (1 - smoothing) + smoothing / targets.shape[-1]
    terms = torch.where(known, _terms(logits, smoothed, task, settings.focal_gamma), 0.0)
    if weights is not None:
        terms = terms * weights.to(terms)
    counted = known if settings.unknown == "skip" else torch.ones_like(known)
    count = counted.sum() if task == "multi_label" else counted[:, 0].sum()
    loss = terms.sum() / count.clamp(min=1)
    if settings.ranking_weight:
        loss = loss + settings.ranking_weight * _ranking_of_known(logits, targets, known.all(-1))
    return loss


def _ranking_of_known(logits: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
    """The ranking loss of selected rows (batch,)."""
    if logits.device.type == "cpu":
        return ranking_loss(logits[rows], targets[rows])
    # Selecting rows would wait for the device; targets of 0 add nothing either.
    whole = ranking_loss(logits, torch.where(rows[:, None], targets, 0.0))
    return whole * len(rows) / rows.sum().clamp(min=1)


def _terms(logits: Tensor, targets: Tensor, task: Task, gamma: float) -> Tensor:
    """The terms of the cross-entropy, (batch, class), with the focal factor if gamma is set.

    Source: Lin et al., arXiv:1708.02002: each -log p is multiplied by (1 - p) ** gamma.
    """
    if task == "single_label":
        log_p = functional.log_softmax(logits, -1)
        return -targets * log_p * (_focus(log_p, gamma) if gamma else 1.0)
    if not gamma:
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    log_p, log_q = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return -targets * log_p * _focus(log_p, gamma) - (1 - targets) * log_q * _focus(log_q, gamma)


def _focus(log_p: Tensor, gamma: float) -> Tensor:
    return (-torch.expm1(log_p)).clamp(min=1e-12) ** gamma


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Softmax cross-entropy against the targets, which ranks a clip's labels above all others.

    Binary cross-entropy treats each class independently and is insensitive to the order of two high scores. A
    clip without labels adds nothing.
    """
    return -(targets * functional.log_softmax(logits, -1)).sum() / max(1, len(logits))


def balanced_weights(counts: Tensor) -> Tensor:
    """Balanced class weights: clips / (classes * clips of the class).

    Source: ``class_weight="balanced"`` of scikit-learn, which takes class indices, not counts.

    Args:
        counts: Clips of each class, (class,); a class without clips has weight 1.

    Returns:
        (class,).
    """
    present = counts.clamp(min=1)
    return torch.where(counts > 0, counts.sum() / (len(counts) * present), 1.0)
