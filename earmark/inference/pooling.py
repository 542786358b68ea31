"""Pools the scores of a recording's windows into scores of the recording.

Conventions: scores are float32, shape (window, class), in [0, 1]; every room that pools windows does it here.
Every window counts the same, whatever part of it other windows cover too: in a mean, what the last window,
which ends with the recording, shares with the one before it counts twice; a maximum is not affected.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.model_file.info import Task

Floats = NDArray[np.float32]
Pooling = Literal["max", "mean"]
_LOWEST_SCORE, _SCORE_STEP = float(np.finfo(np.float32).tiny), 2.0**-24


def default_pooling(task: Task) -> Pooling:
    """Returns the pooling of a task: "max" for multi-label models, "mean" for single-label models."""
    return "max" if task == "multi_label" else "mean"


def check_pooling(pooling: str | None, task: Task) -> Pooling:
    """Validates a pooling.

    Args:
        pooling: "max" or "mean"; None: the default of the task.
        task: Task of the model.

    Raises:
        ModelError: If there is no such pooling.
    """
    if pooling is None:
        return default_pooling(task)
    if pooling not in get_args(Pooling):
        raise ModelError(f"pooling must be 'max' or 'mean', got {pooling!r}")
    return "max" if pooling == "max" else "mean"


def pool_windows(scores: Floats, pooling: Pooling) -> Floats:
    """Pools scores over windows.

    Args:
        scores: Scores of the windows, shape (window, class), at least one window.
        pooling: "max" or "mean".

    Returns:
        Scores of the recording, shape (class,).
    """
    return pool_blocks([scores], pooling)


def pool_logits(scores: Floats, task: Task) -> Floats:
    """Averages scores over windows as logits: the score of the mean logit.

    Source: audax's evaluation of windows. Logits are computed back from float32 scores, which cannot tell
    those above about 16 apart.

    Args:
        scores: Scores of the windows, shape (window, class), at least one window.
        task: Whether scores are sigmoids ("multi_label") or a softmax ("single_label") of logits.

    Returns:
        Scores of the recording, shape (class,).
    """
    values = np.clip(scores.astype(np.float64), _LOWEST_SCORE, 1 - _SCORE_STEP)
    if task == "multi_label":
        logits = (np.log(values) - np.log1p(-values)).mean(0)
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
    logits = np.log(values).mean(0)
    shares = np.exp(logits - logits.max())
    return np.asarray(shares / shares.sum(), np.float32)


def pool_blocks(blocks: Iterable[Floats], pooling: Pooling) -> Floats:
    """Pools the scores of windows that come in blocks; the result does not depend on the blocks.

    Args:
        blocks: Each of shape (window, class), at least one window.
        pooling: "max" or "mean".

    Returns:
        Scores of the recording, shape (class,).
    """
    pooled: list[Floats] = []
    count = 0
    for block in blocks:
        rows = np.concatenate([*pooled, block])
        pooled = [rows.max(0, keepdims=True) if pooling == "max" else rows.sum(0, keepdims=True)]
        count += len(block)
    return np.asarray(pooled[0][0] if pooling == "max" else pooled[0][0] / np.float32(count))
