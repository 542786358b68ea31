"""How the learning rate moves over a training: factors of the highest rate.

Conventions: a place in the training is counted in epochs from 0, fractions included; a factor is in [0, 1].
"""

from __future__ import annotations

import math

from earmark.training.config.learning import Schedule


def rate_factor(schedule: Schedule, epoch: float, epochs: float) -> float:
    """The factor at a place of the training.

    Args:
        schedule: Which curve, and its numbers.
        epoch: The place; a schedule that moves once an epoch looks at its whole part only.
        epochs: Length of the training.

    Returns:
        In [0, 1].
    """
    place = float(math.floor(epoch)) if schedule.interval == "epoch" else epoch
    warm_up, last = schedule.warmup_epochs, schedule.final_lr_scale
    if schedule.kind == "ramp":
        return ramp(place, warm_up, schedule.ramp_down_start_epoch, schedule.ramp_down_epochs, last)
    if schedule.kind == "steps":
        rise = min(1.0, place / warm_up) if warm_up else 1.0
        return rise * max(schedule.step_factor ** math.floor(place / schedule.step_epochs), last)
    return cosine(place, epochs, warm_up, last)


def cosine(place: float, length: float, warm_up: float, final_lr_scale: float) -> float:
    """Rises linearly from 0, then falls along half a cosine.

    Source: Loshchilov & Hutter, arXiv:1608.03983, without restarts; golden audax transforms_metrics lr/*.

    Args:
        place: Where in the training.
        length: Of the whole training, in the same unit.
        warm_up: Where the factor is 1.
        final_lr_scale: What it falls to.
    """
    if place < warm_up:
        return place / warm_up
    progress = min(1.0, (place - warm_up) / max(length - warm_up, 1e-9))
    return final_lr_scale + (1 - final_lr_scale) * 0.5 * (1 + math.cos(math.pi * progress))


def ramp(place: float, warm_up: float, hold: float, fall: float, final_lr_scale: float) -> float:
    """Rises exponentially, holds, falls linearly, and stays.

    Source: EfficientAT's schedule (Schmid et al., arXiv:2211.04772); golden pipeline/lr_schedules.json.

    Args:
        place: Epoch, from 0.
        warm_up: Epochs of the rise, exp(-5 (1 - max(place, 1/2) / warm_up)^2).
        hold: Epoch after which it falls.
        fall: Epochs of the fall.
        final_lr_scale: What it falls to.
    """
    rise = math.exp(-5 * (1 - max(place, 0.5) / warm_up) ** 2) if place < warm_up else 1.0
    left = min(1.0, max(0.0, (fall - place + hold) / fall))
    return rise * (final_lr_scale + (1 - final_lr_scale) * left)
