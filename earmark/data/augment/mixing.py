"""Augmentations that mix the items of a batch: waveforms, log-mels, or their statistics.

Conventions: as for :mod:`earmark.data.augment`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from earmark.data.augment.draws import column, mix_targets, mixing_weights, on_device
from earmark.data.batch_rng import all_rows


def mix_waveforms(
    waveforms: Tensor, targets: Tensor, alpha: float, probability: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mixes some waveforms, without their means, and their targets with those of a random partner.

    Source: the waveform mixing of EfficientAT (Schmid et al., arXiv:2211.04772), there with probability 0.5
    and Beta(2, 2).

    Returns:
        Waveforms and targets; the original's share is the larger one.
    """
    share = mixing_weights(alpha, len(waveforms), generator, larger=True)
    share[generator.random(len(waveforms)) >= probability] = 1
    partner = on_device(generator.permutation(len(waveforms)), waveforms.device)
    centred = waveforms - waveforms.mean(-1, keepdim=True)
    weight = column(share, waveforms)
    mixed = weight * centred + (1 - weight) * all_rows(generator, centred)[partner]
    mixed = torch.where(weight == 1, waveforms, mixed - mixed.mean(-1, keepdim=True))
    return mixed, mix_targets(targets, all_rows(generator, targets)[partner], share)


def mixup(
    log_mel: Tensor,
    targets: Tensor,
    alpha: float,
    generator: np.random.Generator,
    *,
    larger: bool = True,
    per_batch: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mixes each log-mel and its targets with those of a random partner.

    Source: Zhang et al., arXiv:1710.09412, with the share max(b, 1 - b), b ~ Beta(alpha, alpha), of each item
    as EfficientAT has it; goldens pipeline/mixup_toy, audax mixup/*, sp4asc mixup_*.

    Args:
        log_mel: (batch, mel, frame).
        targets: (batch, class).
        alpha: Of the Beta distribution.
        generator: Source of randomness.
        larger: The item's own share is max(b, 1 - b); off: it is b (audax, SP4ASC).
        per_batch: One share for the whole batch (SP4ASC) instead of one for each item.

    Returns:
        Log-mels and targets.
    """
    share = mixing_weights(alpha, None if per_batch else len(log_mel), generator, larger)
    share = np.broadcast_to(share, len(log_mel)).copy()
    partner = on_device(generator.permutation(len(log_mel)), log_mel.device)
    weight = column(share, log_mel)
    mixed = weight * log_mel + (1 - weight) * all_rows(generator, log_mel)[partner]
    return mixed, mix_targets(targets, all_rows(generator, targets)[partner], share)


def freq_mixstyle(
    log_mel: Tensor, alpha: float, probability: float, generator: np.random.Generator
) -> Tensor:
    """Mixes mean and standard deviation of every mel band with a partner's (Freq-MixStyle).

    Source: Kim et al., arXiv:2206.12513, as EfficientAT has it; golden pipeline/mixstyle_toy. Targets stay.

    Args:
        log_mel: (batch, mel, frame).
        alpha: Of the Beta distribution of the share.
        probability: That the whole batch is augmented.
        generator: Source of randomness.
    """
    apply = generator.random() < probability
    share = column(mixing_weights(alpha, len(log_mel), generator, larger=False), log_mel)
    partner = on_device(generator.permutation(len(log_mel)), log_mel.device)
    if not apply:
        return log_mel
    mean = log_mel.mean(-1, keepdim=True)
    std = (log_mel.var(-1, keepdim=True) + 1e-6).sqrt()
    mixed_mean = share * mean + (1 - share) * all_rows(generator, mean)[partner]
    mixed_std = share * std + (1 - share) * all_rows(generator, std)[partner]
    return (log_mel - mean) / std * mixed_std + mixed_mean
