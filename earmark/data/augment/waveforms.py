"""Augmentations of waveforms.

Conventions: as for :mod:`earmark.data.augment`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earmark.data.augment.draws import column


def roll(waveforms: Tensor, max_shift: int, generator: np.random.Generator) -> Tensor:
    """Rolls each waveform by up to ``max_shift`` samples in either direction."""
    shifts = generator.integers(-max_shift, max_shift + 1, len(waveforms))
    return torch.stack([row.roll(int(shift)) for row, shift in zip(waveforms, shifts, strict=True)])


def convolve_ir(
    waveforms: Tensor, impulses: Sequence[Tensor], probability: float, generator: np.random.Generator
) -> Tensor:
    """Convolves some waveforms with the impulse response of another microphone or room.

    Source: device impulse responses as in CP-JKU's scene classifiers (Schmid et al., DCASE 2022, task 1).

    Args:
        waveforms: (batch, time).
        impulses: Impulse responses (time,) at the same rate, one of which is drawn for each item.
        probability: Of an item.
        generator: Source of randomness.

    Returns:
        (batch, time), with the delay of the response and the root mean square of the input.
    """
    chosen = generator.integers(0, len(impulses), len(waveforms))
    convolved = generator.random(len(waveforms)) < probability
    rows = []
    for row, index, selected in zip(waveforms, chosen, convolved, strict=True):
        if selected:
            impulse = impulses[int(index)].to(row)
            size = len(row) + len(impulse) - 1
            spectrum = torch.fft.rfft(row, size) * torch.fft.rfft(impulse, size)
            output = torch.fft.irfft(spectrum, size)[: len(row)]
            row = output * (row.square().mean() / output.square().mean().clamp(min=1e-20)).sqrt()
        rows.append(row)
    return torch.stack(rows)


def crop(waveforms: Tensor, length: int, generator: np.random.Generator, candidates: int = 3) -> Tensor:
    """Crops each waveform, joined end to start, to the loudest of some random pieces.

    A label belongs to the whole clip, most of which may be silent; the loudest of several candidates seldom
    misses its sound.

    Args:
        waveforms: (batch, time).
        length: Of a crop, in samples; at most time.
        generator: Source of randomness.
        candidates: Random pieces of each waveform.

    Returns:
        (batch, length).
    """
    starts = generator.integers(0, waveforms.shape[-1], (len(waveforms), candidates))
    pieces = []
    for row, places in zip(torch.cat([waveforms, waveforms[:, :length]], -1), starts, strict=True):
        cut = torch.stack([row[int(start) : int(start) + length] for start in places])
        pieces.append(cut.index_select(0, cut.square().sum(-1).argmax(keepdim=True)))
    return torch.cat(pieces)


def change_speed(waveforms: Tensor, slowest: float, fastest: float, generator: np.random.Generator) -> Tensor:
    """Changes speed and pitch of each waveform; it is repeated or cut to its length.

    Source: speed perturbation (Ko et al., Interspeech 2015), with factors drawn on a logarithmic scale and
    samples interpolated linearly.
    """
    length = waveforms.shape[-1]
    factors = np.exp(generator.uniform(np.log(slowest), np.log(fastest), len(waveforms)))
    convolved = []
    for row, factor in zip(waveforms, factors, strict=True):
        taken = max(1, round(length * factor))
        source = row.repeat(-(-taken // length))[:taken]
        convolved.append(functional.interpolate(source[None, None], size=length, mode="linear")[0, 0])
    return torch.stack(convolved)


def gain(waveforms: Tensor, low_db: float, high_db: float, generator: np.random.Generator) -> Tensor:
    """Multiplies each waveform by a gain drawn uniformly in decibels."""
    factors = 10 ** (generator.uniform(low_db, high_db, len(waveforms)) / 20)
    return waveforms * column(factors, waveforms)


def add_noise(waveforms: Tensor, snr_db: float, generator: np.random.Generator) -> Tensor:
    """Adds Gaussian white noise, relative to the root mean square of each waveform (batch, time)."""
    noise = torch.from_numpy(generator.standard_normal(tuple(waveforms.shape), np.float32))
    level = waveforms.square().mean(-1, keepdim=True).sqrt() * 10 ** (-snr_db / 20)
    return waveforms + level * noise.to(waveforms.device)
