"""What a student loses by answering otherwise than its teachers, and how their answers are mixed.

Conventions: a teacher's answers are (batch, column); a row of NaN is a clip that it was not asked about,
which adds nothing to any loss, nor to what it is mixed with. Every loss is a mean over what is taught.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from earmark.model_file.info import Task

Kind = Literal["logits", "scores"]
"""What the numbers of an answer are: before, or after, sigmoid or softmax."""

_CLEAR = 1e-6
"""As near to 0 and 1 as a score is taken for one."""


def as_logits(answers: Tensor, kind: Kind, task: Task) -> Tensor:
    """Answers before sigmoid or softmax, whichever they were stored as."""
    if kind == "logits":
        return answers
    return torch.logit(answers, _CLEAR) if task == "multi_label" else answers.clamp(min=_CLEAR).log()


def as_scores(logits: Tensor, task: Task) -> Tensor:
    """Answers after the sigmoid or softmax of the task."""
    return torch.sigmoid(logits) if task == "multi_label" else torch.softmax(logits, -1)


def weighted(answers: Tensor) -> Tensor:
    """Answers in a form that is mixed by adding shares of rows, as targets are.

    With k = 1 where a clip has an answer t and 0 where it has none, a row is (k t, k). A mixture of a share
    lam of clip i and the rest of clip p is then lam k_i t_i + (1 - lam) k_p t_p, with the weight
    lam k_i + (1 - lam) k_p: what :func:`answers_of` gives back is taught by those that know.

    Args:
        answers: (batch, column); NaN where nobody was asked.

    Returns:
        (batch, column + 1), without NaN.
    """
    known = ~answers.isnan().any(-1, keepdim=True)
    return torch.cat([torch.where(known, answers, 0.0), known.to(answers)], -1)


def answers_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Answers (batch, column) and weights (batch,) of rows as :func:`weighted` makes them, mixed or not."""
    weight = rows[:, -1]
    return rows[:, :-1] / weight.clamp(min=_CLEAR)[:, None], weight


def distillation_loss(logits: Tensor, soft: Tensor, weight: Tensor, task: Task) -> Tensor:
    """Cross-entropy of a student's logits against a teacher's scores.

    Source: EfficientAT (Schmid et al., arXiv:2211.04772); golden efficientat/pipeline/kd_toy.json, but that
    clips without a teacher count neither here nor as a partner.

    Args:
        logits: The student's, (batch, class); the temperature is the teacher's alone.
        soft: Scores in [0, 1], (batch, class).
        weight: Of each clip, (batch,); 0: nobody knows.
        task: "multi_label": binary, mean over classes; "single_label": over the softmax.
    """
    if task == "single_label":
        error = -(soft * functional.log_softmax(logits, -1)).sum(-1)
    else:
        error = functional.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(-1)
    return _mean(error, weight)


def imitation_loss(answers: Tensor, taught: Tensor, weight: Tensor) -> Tensor:
    """Mean squared difference from a teacher's answers, both (batch, output); weights (batch,)."""
    return _mean((answers - taught).square().mean(-1), weight)


def _mean(error: Tensor, weight: Tensor) -> Tensor:
    return (weight * error).sum() / weight.sum().clamp(min=_CLEAR)
