"""Losses of distillation and imitation, and teacher outputs in a form that can be mixed.

Conventions: teacher outputs are (batch, column); a row of NaN is a clip without a prediction, which adds
nothing to any loss or mixture. Every loss is a mean over the clips that have one.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from earmark.model_file.info import Task

Kind = Literal["logits", "scores"]
"""What a teacher's outputs are: values before or after sigmoid or softmax."""

_EPSILON = 1e-6
"""Scores are clipped to [_EPSILON, 1 - _EPSILON] before their logit is taken."""


def as_logits(outputs: Tensor, kind: Kind, task: Task) -> Tensor:
    """Converts outputs of either kind to logits."""
    if kind == "logits":
        return outputs
    return torch.logit(outputs, _EPSILON) if task == "multi_label" else outputs.clamp(min=_EPSILON).log()


def as_scores(logits: Tensor, task: Task) -> Tensor:
    """Applies the sigmoid or softmax of the task."""
    return torch.sigmoid(logits) if task == "multi_label" else torch.softmax(logits, -1)


def mixable_outputs(outputs: Tensor) -> Tensor:
    """Outputs as rows that are mixed linearly, as targets are.

    With k = 1 where a clip has outputs t and 0 where it has none, a row is (k t, k). A mixture of clips i and
    p is then lam k_i t_i + (1 - lam) k_p t_p with the weight lam k_i + (1 - lam) k_p:
    :func:`split_outputs` returns the mean over the clips that have a prediction.

    Args:
        outputs: (batch, column); NaN for clips without a prediction.

    Returns:
        (batch, column + 1), without NaN.
    """
    known = ~outputs.isnan().any(-1, keepdim=True)
    return torch.cat([torch.where(known, outputs, 0.0), known.to(outputs)], -1)


def split_outputs(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (batch, column) and weights (batch,) of rows from :func:`mixable_outputs`, mixed or not."""
    weight = rows[:, -1]
    return rows[:, :-1] / weight.clamp(min=_EPSILON)[:, None], weight


def distillation_loss(logits: Tensor, soft_targets: Tensor, weight: Tensor, task: Task) -> Tensor:
    """Cross-entropy of the student's logits against the teacher's scores.

    Source: EfficientAT (Schmid et al., arXiv:2211.04772); golden efficientat/pipeline/kd_toy.json, except
    that clips without a prediction are left out, also as mixing partners.

    Args:
        logits: Of the student, (batch, class); the temperature applies to the teacher only.
        soft_targets: Scores in [0, 1], (batch, class).
        weight: Of each clip, (batch,); 0: no prediction.
        task: "multi_label": binary cross-entropy, mean over classes; "single_label": over the softmax.
    """
    if task == "single_label":
        error = -(soft_targets * functional.log_softmax(logits, -1)).sum(-1)
    else:
        error = functional.binary_cross_entropy_with_logits(logits, soft_targets, reduction="none").mean(-1)
    return _weighted_mean(error, weight)


def imitation_loss(outputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error to the teacher's outputs, both (batch, output); weights (batch,)."""
    return _weighted_mean((outputs - targets).square().mean(-1), weight)


def _weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    return (weight * error).sum() / weight.sum().clamp(min=_EPSILON)
