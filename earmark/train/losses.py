"""What a training minimises.

Conventions: logits and targets are (batch, class); targets may be soft; every loss is a mean over the batch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from earmark.record import Task


def label_loss(logits: Tensor, targets: Tensor, task: Task, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy where labels may co-occur, cross-entropy where classes exclude each other.

    Args:
        logits: (batch, class).
        targets: (batch, class) in [0, 1], mixed targets included.
        task: "multi_label" (mean over classes too) or "single_label".
        smoothing: Share of each target that is spread: over both answers of a class, or over the classes.
    """
    if task == "multi_label":
        return functional.binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)
    return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
