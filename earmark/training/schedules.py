"""Learning rate schedules, as factors of the peak rate.

Conventions: positions are in epochs from 0, with fractions; factors are in [0, 1]. The schedulers of
``torch.optim.lr_scheduler`` are stateful; these are functions of the position, so a run resumes without them.
"""

from __future__ import annotations

import math

from earmark.training.config.learning import Schedule


def lr_factor(schedule: Schedule, epoch: float, epochs: float) -> float:
    """The factor at a position of the training.

    Args:
        schedule: Kind and parameters.
        epoch: The position; rounded down for ``interval = "epoch"``.
        epochs: Length of the training.

    Returns:
        In [0, 1].
    """
    position = float(math.floor(epoch)) if schedule.interval == "epoch" else epoch
    warm_up, last = schedule.warmup_epochs, schedule.final_lr_scale
    if schedule.kind == "ramp":
        return ramp(position, warm_up, schedule.ramp_down_start_epoch, schedule.ramp_down_epochs, last)
    if schedule.kind == "steps":
        rise = min(1.0, position / warm_up) if warm_up else 1.0
        return rise * max(schedule.step_factor ** math.floor(position / schedule.step_epochs), last)
    return cosine(position, epochs, warm_up, last)


def cosine(position: float, length: float, warm_up: float, final_lr_scale: float) -> float:
    """Linear warm-up from 0, then half a cosine.

    Source: Loshchilov & Hutter, arXiv:1608.03983, without restarts; golden audax transforms_metrics lr/*.

    Args:
        position: In the training.
        length: Of the training, in the same unit.
        warm_up: End of the linear warm-up.
        final_lr_scale: Final factor.
    """
    if position < warm_up:
        return position / warm_up
    progress = min(1.0, (position - warm_up) / max(length - warm_up, 1e-9))
    return final_lr_scale + (1 - final_lr_scale) * 0.5 * (1 + math.cos(math.pi * progress))


def ramp(position: float, warm_up: float, hold: float, fall: float, final_lr_scale: float) -> float:
    """Exponential warm-up, constant, linear ramp-down, constant.

    Source: EfficientAT's schedule (Schmid et al., arXiv:2211.04772); golden pipeline/lr_schedules.json.

    Args:
        position: Epoch, from 0.
        warm_up: Length of the warm-up, exp(-5 (1 - max(position, 1/2) / warm_up)^2).
        hold: Epoch at which the ramp-down begins.
        fall: Length of the ramp-down.
        final_lr_scale: Final factor.
    """
    rise = math.exp(-5 * (1 - max(position, 0.5) / warm_up) ** 2) if position < warm_up else 1.0
    left = min(1.0, max(0.0, (fall - position + hold) / fall))
    return rise * (final_lr_scale + (1 - final_lr_scale) * left)
