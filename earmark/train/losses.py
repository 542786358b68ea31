"""What a training minimises.

Conventions: logits and targets are (batch, class); targets may be soft; every loss is a mean over the batch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from earmark.record import Task


def label_loss(
    logits: Tensor, targets: Tensor, task: Task, smoothing: float = 0.0, ranking_weight: float = 0.0
) -> Tensor:
    """Binary cross-entropy where labels may co-occur, cross-entropy where classes exclude each other.

    Args:
        logits: (batch, class).
        targets: (batch, class) in [0, 1], mixed targets included.
        task: "multi_label" (mean over classes too) or "single_label".
        smoothing: Share of each target that is spread: over both answers of a class, or over the classes.
        ranking_weight: Of a second term for "multi_label", see :func:`ranking_loss`.
    """
    if task == "single_label":
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    loss = functional.binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)
    return loss + ranking_weight * ranking_loss(logits, targets) if ranking_weight else loss


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the softmax against the targets: labels that are set stand above all others.

    Binary cross-entropy alone learns each class by itself and hardly minds which of two high scores is the
    higher one. A clip without labels has nothing to rank and adds nothing.
    """
    return -(targets * functional.log_softmax(logits, -1)).sum(-1).mean()


def imitation_loss(answers: Tensor, taught: Tensor) -> Tensor:
    """Mean squared difference from a teacher's answers, both (batch, output)."""
    return functional.mse_loss(answers, taught)
