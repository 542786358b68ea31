"""How the learning rate moves over a training: factors of the highest rate."""

from __future__ import annotations

import math


def cosine_with_warm_up(step: int, steps: int, warm_up_steps: int, last_factor: float) -> float:
    """Rises linearly, then falls along half a cosine.

    Source: Loshchilov & Hutter, arXiv:1608.03983, without restarts.

    Args:
        step: From 0.
        steps: Of the whole training.
        warm_up_steps: After so many the factor is 1.
        last_factor: What it falls to.

    Returns:
        The factor for this step, in (0, 1].
    """
    if step < warm_up_steps:
        return (step + 1) / (warm_up_steps + 1)
    progress = (step - warm_up_steps) / max(1, steps - warm_up_steps)
    return last_factor + (1 - last_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
