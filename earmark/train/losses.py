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
        targets: (batch, class) in [0, 1], mixed targets included; NaN where nobody knows, which adds nothing.
        task: "multi_label" (mean over classes too) or "single_label".
        smoothing: Share of each target that is spread: over both answers of a class, or over the classes.
        ranking_weight: Of a second term for "multi_label", see :func:`ranking_loss`.
    """
    known = ~targets.isnan()
    rows = known.all(-1)
    if task == "single_label":
        total = functional.cross_entropy(
            logits[rows], targets[rows], label_smoothing=smoothing, reduction="sum"
        )
        return total / max(1, int(rows.sum()))
    smooth = targets[known] * (1 - smoothing) + smoothing / 2
    total = functional.binary_cross_entropy_with_logits(logits[known], smooth, reduction="sum")
    loss = total / max(1, int(known.sum()))
    return loss + ranking_weight * ranking_loss(logits[rows], targets[rows]) if ranking_weight else loss


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the softmax against the targets: labels that are set stand above all others.

    Binary cross-entropy alone learns each class by itself and hardly minds which of two high scores is the
    higher one. A clip without labels has nothing to rank and adds nothing.
    """
    return -(targets * functional.log_softmax(logits, -1)).sum() / max(1, len(logits))
