"""What a training minimises.

Conventions: logits and targets are (batch, class); targets may be soft, and NaN where nobody knows; every
loss is a mean over the batch.
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
    """Binary cross-entropy where labels may co-occur, cross-entropy where classes exclude each other.

    Source: goldens sp4asc_metrics (cross-entropy, focal), openmic_loss_toy (unknown labels), sound_clf_data
    (class weights: a plain mean of weighted terms), audax transforms_metrics (smoothing).

    Args:
        logits: (batch, class).
        targets: (batch, class) in [0, 1], mixed targets included; what is NaN adds nothing.
        task: "multi_label" (mean over classes too) or "single_label".
        settings: Smoothing, focus and the like; by default none of it.
        weights: Of the classes, (class,).

    Returns:
        A number. What is unknown is left out of the mean, unless ``settings.unknown`` is "count".
    """
    settings = settings or Loss()
    known = ~targets.isnan()
    if task == "single_label":
        known = known.all(-1, keepdim=True).expand_as(known)
    smoothing = settings.label_smoothing
    wanted = torch.where(known, targets, 0.0) * (1 - smoothing) + smoothing / targets.shape[-1]
    terms = torch.where(known, _terms(logits, wanted, task, settings.focal_gamma), 0.0)
    if weights is not None:
        terms = terms * weights.to(terms)
    counted = known if settings.unknown == "skip" else torch.ones_like(known)
    count = counted.sum() if task == "multi_label" else counted[:, 0].sum()
    loss = terms.sum() / count.clamp(min=1)
    if settings.ranking_weight:
        loss = loss + settings.ranking_weight * _ranking_of_known(logits, targets, known.all(-1))
    return loss


def _ranking_of_known(logits: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
    """The ranking loss of some rows (batch,) only."""
    if logits.device.type == "cpu":
        return ranking_loss(logits[rows], targets[rows])
    # Choosing rows would wait for the device; targets of 0 add nothing either.
    whole = ranking_loss(logits, torch.where(rows[:, None], targets, 0.0))
    return whole * len(rows) / rows.sum().clamp(min=1)


def _terms(logits: Tensor, wanted: Tensor, task: Task, gamma: float) -> Tensor:
    """The addends of the cross-entropy, (batch, class); with gamma, easy ones weigh less (focal loss).

    Source: Lin et al., arXiv:1708.02002: each -log p is multiplied by (1 - p) ** gamma.
    """
    if task == "single_label":
        chances = functional.log_softmax(logits, -1)
        return -wanted * chances * (_focus(chances, gamma) if gamma else 1.0)
    if not gamma:
        return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    heard, unheard = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return -wanted * heard * _focus(heard, gamma) - (1 - wanted) * unheard * _focus(unheard, gamma)


def _focus(log_chance: Tensor, gamma: float) -> Tensor:
    return (-torch.expm1(log_chance)).clamp(min=1e-12) ** gamma


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the softmax against the targets: labels that are set stand above all others.

    Binary cross-entropy alone learns each class by itself and hardly minds which of two high scores is the
    higher one. A clip without labels has nothing to rank and adds nothing.
    """
    return -(targets * functional.log_softmax(logits, -1)).sum() / max(1, len(logits))


def balanced_weights(counts: Tensor) -> Tensor:
    """A weight for each class, the higher the rarer: clips / (classes * clips of the class).

    Source: scikit-learn's "balanced" class weights, as the tutorial uses them.

    Args:
        counts: Clips of each class, (class,); a class without clips weighs 1.

    Returns:
        (class,).
    """
    present = counts.clamp(min=1)
    return torch.where(counts > 0, counts.sum() / (len(counts) * present), 1.0)
