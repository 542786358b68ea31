"""Augmentation: pure functions of tensors and a NumPy generator.

Conventions: waveforms are float32 (batch, time), log-mels float32 (batch, mel, frame), targets float32
(batch, class). All that is random is drawn from the generator on the CPU, so a seed gives the same batch on
any device and for any number of loader workers. Nothing is changed in place.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earmark.frontend import FrontEnd, mel_bank

DB_PER_NEPER = 10 / np.log(10)


def roll(waveforms: Tensor, max_shift: int, generator: np.random.Generator) -> Tensor:
    """Shifts each waveform around its end by up to ``max_shift`` samples to either side."""
    shifts = generator.integers(-max_shift, max_shift + 1, len(waveforms))
    return torch.stack([row.roll(int(shift)) for row, shift in zip(waveforms, shifts, strict=True)])


def crop(waveforms: Tensor, length: int, generator: np.random.Generator, candidates: int = 3) -> Tensor:
    """Cuts a piece out of each waveform, joined end to start: the loudest of some random ones.

    A label belongs to the whole clip, of which most may be silent; among several candidates its sound is
    seldom missed.

    Args:
        waveforms: (batch, time).
        length: Of a piece, in samples; at most time.
        generator: Of the draws.
        candidates: How many places are drawn for each waveform.

    Returns:
        (batch, length).
    """
    starts = generator.integers(0, waveforms.shape[-1], (len(waveforms), candidates))
    pieces = []
    for row, places in zip(torch.cat([waveforms, waveforms[:, :length]], -1), starts, strict=True):
        cut = torch.stack([row[int(start) : int(start) + length] for start in places])
        pieces.append(cut[cut.square().sum(-1).argmax()])
    return torch.stack(pieces)


def change_speed(waveforms: Tensor, slowest: float, fastest: float, generator: np.random.Generator) -> Tensor:
    """Plays each waveform faster or slower, pitch and all, around its end; the length stays.

    Source: speed perturbation (Ko et al., Interspeech 2015), here with factors drawn on a logarithmic scale
    and samples interpolated linearly, which is enough for an augmentation.
    """
    length = waveforms.shape[-1]
    factors = np.exp(generator.uniform(np.log(slowest), np.log(fastest), len(waveforms)))
    played = []
    for row, factor in zip(waveforms, factors, strict=True):
        taken = max(1, round(length * factor))
        source = row.repeat(-(-taken // length))[:taken]
        played.append(functional.interpolate(source[None, None], size=length, mode="linear")[0, 0])
    return torch.stack(played)


def gain(waveforms: Tensor, low_db: float, high_db: float, generator: np.random.Generator) -> Tensor:
    """Multiplies each waveform by a gain drawn uniformly in decibels."""
    factors = 10 ** (generator.uniform(low_db, high_db, len(waveforms)) / 20)
    return waveforms * _column(factors, waveforms)


def mix_waveforms(
    waveforms: Tensor, targets: Tensor, alpha: float, probability: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mixes some waveforms, freed of their means, and their targets with those of a random partner.

    Source: the waveform mixing of EfficientAT (Schmid et al., arXiv:2211.04772), there with probability 0.5
    and Beta(2, 2).

    Returns:
        Waveforms and targets; the original's share is the larger one.
    """
    share = _larger_share(alpha, len(waveforms), generator)
    share[generator.random(len(waveforms)) >= probability] = 1
    partner = torch.from_numpy(generator.permutation(len(waveforms))).to(waveforms.device)
    centred = waveforms - waveforms.mean(-1, keepdim=True)
    weight = _column(share, waveforms)
    mixed = weight * centred + (1 - weight) * centred[partner]
    mixed = torch.where(weight == 1, waveforms, mixed - mixed.mean(-1, keepdim=True))
    return mixed, _mixed_targets(targets, partner, share)


def mixup(
    log_mel: Tensor, targets: Tensor, alpha: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mixes each log-mel and its targets with those of a random partner, with a share of its own.

    Source: Zhang et al., arXiv:1710.09412, with the share max(b, 1 - b), b ~ Beta(alpha, alpha), as
    EfficientAT has it.
    """
    share = _larger_share(alpha, len(log_mel), generator)
    partner = torch.from_numpy(generator.permutation(len(log_mel))).to(log_mel.device)
    weight = _column(share, log_mel)
    return weight * log_mel + (1 - weight) * log_mel[partner], _mixed_targets(targets, partner, share)


def mask(
    log_mel: Tensor, mel_width: int, frame_width: int, fill: float, generator: np.random.Generator
) -> Tensor:
    """Overwrites one stripe of mel bands and one of frames in each log-mel (SpecAugment).

    Source: Park et al., arXiv:1904.08779; widths are uniform from 0 up to the given ones, in bands and
    frames.
    """
    keep = torch.ones_like(log_mel, dtype=torch.bool)
    for axis, width in ((1, mel_width), (2, frame_width)):
        if width:
            keep &= _stripe(log_mel, axis, width, generator)
    return torch.where(keep, log_mel, fill)


def _stripe(log_mel: Tensor, axis: int, max_width: int, generator: np.random.Generator) -> Tensor:
    size = log_mel.shape[axis]
    widths = generator.integers(0, min(max_width, size) + 1, (len(log_mel), 1))
    begins = generator.integers(0, size - widths + 1)
    positions = np.arange(size)
    keep = (positions < begins) | (positions >= begins + widths)
    kept = torch.from_numpy(keep).to(log_mel.device)
    return kept[:, :, None] if axis == 1 else kept[:, None, :]


def equalize(log_mel: Tensor, max_db: float, front_end: FrontEnd, generator: np.random.Generator) -> Tensor:
    """Colours each log-mel by a smooth random gain over the bands, as another microphone or room would.

    Source: in the manner of FilterAugment (Nam et al., arXiv:2110.03282), linear type: four to six nodes at
    random bands, gains uniform within ``max_db`` to either side, linear in between. What lies at the floor of
    the front-end stays there.
    """
    bands = np.arange(log_mel.shape[1])
    curves = []
    for _ in range(len(log_mel)):
        inner = np.sort(generator.uniform(0, bands[-1], generator.integers(2, 5)))
        nodes = np.concatenate([[0], inner, [bands[-1]]])
        curves.append(np.interp(bands, nodes, generator.uniform(-max_db, max_db, len(nodes))))
    unit = 1.0 if front_end.log == "db" else 1 / DB_PER_NEPER
    offsets = torch.from_numpy(np.stack(curves) * unit / front_end.scale).to(log_mel)
    floor = front_end.silence
    return torch.where(log_mel > floor + 1e-3, (log_mel + offsets[:, :, None]).clamp(min=floor), log_mel)


def limit_band(
    log_mel: Tensor, probability: float, lowest_hz: float, front_end: FrontEnd, generator: np.random.Generator
) -> Tensor:
    """Empties the upper bands of some log-mels, as a lower sample rate or a lossy codec does.

    Args:
        log_mel: (batch, mel, frame), of a front-end with a floor.
        probability: Share of the items.
        lowest_hz: The cut-off is drawn on a logarithmic scale from here to half the sample rate.
        front_end: Of the log-mels.
        generator: Of the draws.
    """
    centres = mel_bank(front_end).argmax(1) * front_end.sample_rate / front_end.n_fft
    cuts = np.exp(generator.uniform(np.log(lowest_hz), np.log(front_end.sample_rate / 2), len(log_mel)))
    cuts[generator.random(len(log_mel)) >= probability] = np.inf
    emptied = torch.from_numpy(centres[None] > cuts[:, None]).to(log_mel.device)
    return torch.where(emptied[:, :, None], front_end.silence, log_mel)


def _larger_share(alpha: float, size: int, generator: np.random.Generator) -> np.ndarray:
    drawn = generator.beta(alpha, alpha, size)
    return np.maximum(drawn, 1 - drawn)


def _mixed_targets(targets: Tensor, partner: Tensor, share: np.ndarray) -> Tensor:
    weight = _column(share, targets)
    return weight * targets + (1 - weight) * targets[partner]


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    """One number per item of the batch, shaped so that it multiplies the whole item."""
    return torch.from_numpy(values).to(like).reshape(-1, *(1,) * (like.ndim - 1))
