"""Augmentation: pure functions of tensors and a NumPy generator.

Conventions: waveforms are float32 (batch, time), log-mels float32 (batch, mel, frame), targets float32
(batch, class). All that is random is drawn from the generator on the CPU, so a seed gives the same batch on
any device and for any number of loader workers; where several processes hold a batch together, see
:mod:`earmark.data.batch_rng`. No step waits for a device. Nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earmark.data.batch_rng import all_rows, each_row
from earmark.features.front_end import FrontEnd
from earmark.features.mel import mel_filter_bank

DB_PER_NEPER = 10 / np.log(10)

Stripes = Literal["independent", "linked"]
"""How widths and places of masks are drawn, see :func:`mask`."""


def roll(waveforms: Tensor, max_shift: int, generator: np.random.Generator) -> Tensor:
    """Shifts each waveform around its end by up to ``max_shift`` samples to either side."""
    shifts = generator.integers(-max_shift, max_shift + 1, len(waveforms))
    return torch.stack([row.roll(int(shift)) for row, shift in zip(waveforms, shifts, strict=True)])


def shift(waveforms: Tensor, max_shift: int, generator: np.random.Generator) -> Tensor:
    """Moves each waveform by up to ``max_shift`` samples to either side; what is left free is silent."""
    length = waveforms.shape[-1]
    moved = torch.zeros_like(waveforms)
    for row, new, drawn in zip(
        waveforms, moved, generator.integers(-max_shift, max_shift + 1, len(waveforms)), strict=True
    ):
        by = int(np.clip(drawn, -length, length))
        new[max(0, by) : length + min(0, by)] = row[max(0, -by) : length - max(0, by)]
    return moved


def record_again(
    waveforms: Tensor, impulses: Sequence[Tensor], probability: float, generator: np.random.Generator
) -> Tensor:
    """Plays some waveforms through the impulse response of another microphone or room.

    Source: device impulse responses as in CP-JKU's scene classifiers (Schmid et al., DCASE 2022, task 1).

    Args:
        waveforms: (batch, time).
        impulses: Responses (time,) at the same rate, one of which is drawn for each item.
        probability: Share of the items.
        generator: Of the draws.

    Returns:
        (batch, time), delayed by what the response delays, as loud (root mean square) as before.
    """
    chosen = generator.integers(0, len(impulses), len(waveforms))
    played = generator.random(len(waveforms)) < probability
    rows = []
    for row, index, wanted in zip(waveforms, chosen, played, strict=True):
        if wanted:
            impulse = impulses[int(index)].to(row)
            size = len(row) + len(impulse) - 1
            spectrum = torch.fft.rfft(row, size) * torch.fft.rfft(impulse, size)
            heard = torch.fft.irfft(spectrum, size)[: len(row)]
            row = heard * (row.square().mean() / heard.square().mean().clamp(min=1e-20)).sqrt()
        rows.append(row)
    return torch.stack(rows)


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
        pieces.append(cut.index_select(0, cut.square().sum(-1).argmax(keepdim=True)))
    return torch.cat(pieces)


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
    share = _share(alpha, len(waveforms), generator, larger=True)
    share[generator.random(len(waveforms)) >= probability] = 1
    partner = on_device(generator.permutation(len(waveforms)), waveforms.device)
    centred = waveforms - waveforms.mean(-1, keepdim=True)
    weight = _column(share, waveforms)
    mixed = weight * centred + (1 - weight) * all_rows(generator, centred)[partner]
    mixed = torch.where(weight == 1, waveforms, mixed - mixed.mean(-1, keepdim=True))
    return mixed, _mixed_targets(targets, all_rows(generator, targets)[partner], share)


def mixup(
    log_mel: Tensor,
    targets: Tensor,
    alpha: float,
    generator: np.random.Generator,
    *,
    larger: bool = True,
    alike: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mixes each log-mel and its targets with those of a random partner.

    Source: Zhang et al., arXiv:1710.09412, with the share max(b, 1 - b), b ~ Beta(alpha, alpha), of each item
    as EfficientAT has it; goldens pipeline/mixup_toy, audax mixup/*, sp4asc mixup_*.

    Args:
        log_mel: (batch, mel, frame).
        targets: (batch, class).
        alpha: Of the Beta distribution.
        generator: Of the draws.
        larger: The original's share is the larger one; off: it is b itself (audax, SP4ASC).
        alike: One share for the whole batch (SP4ASC) instead of one for each item.

    Returns:
        Log-mels and targets.
    """
    share = _share(alpha, None if alike else len(log_mel), generator, larger)
    share = np.broadcast_to(share, len(log_mel)).copy()
    partner = on_device(generator.permutation(len(log_mel)), log_mel.device)
    weight = _column(share, log_mel)
    mixed = weight * log_mel + (1 - weight) * all_rows(generator, log_mel)[partner]
    return mixed, _mixed_targets(targets, all_rows(generator, targets)[partner], share)


def mix_style(log_mel: Tensor, alpha: float, probability: float, generator: np.random.Generator) -> Tensor:
    """Gives each log-mel a mixture of its own and a partner's mean and spread in every band (Freq-MixStyle).

    Source: Kim et al., arXiv:2206.12513, as EfficientAT uses it against the colour of devices; golden
    pipeline/mixstyle_toy. The share is not the larger one, targets stay.

    Args:
        log_mel: (batch, mel, frame).
        alpha: Of the Beta distribution of the share.
        probability: That it is done, to the whole batch.
        generator: Of the draws.
    """
    done = generator.random() < probability
    share = _column(_share(alpha, len(log_mel), generator, larger=False), log_mel)
    partner = on_device(generator.permutation(len(log_mel)), log_mel.device)
    if not done:
        return log_mel
    mean = log_mel.mean(-1, keepdim=True)
    spread = (log_mel.var(-1, keepdim=True) + 1e-6).sqrt()
    mixed_mean = share * mean + (1 - share) * all_rows(generator, mean)[partner]
    mixed_spread = share * spread + (1 - share) * all_rows(generator, spread)[partner]
    return (log_mel - mean) / spread * mixed_spread + mixed_mean


def resize_crop(
    log_mel: Tensor,
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: np.random.Generator,
    attempts: int = 10,
) -> Tensor:
    """Cuts a random rectangle out of each log-mel and stretches it to the old size.

    Source: "Inception" cropping (Szegedy et al., arXiv:1409.4842) as the tutorial has it for spectrograms:
    share of the area uniform, aspect uniform on a logarithmic scale; bicubic. Golden sound_clf rrc/*.

    Args:
        log_mel: (batch, mel, frame).
        area: Least and largest share of the area.
        aspect: Least and largest number of bands per frame, as a multiple of the log-mel's own.
        generator: Of the draws.
        attempts: Rectangles drawn until one fits inside; none does: the log-mel stays whole.
    """
    mels, frames = log_mel.shape[-2:]

    def rectangle(generator: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(attempts):
            size = mels * frames * generator.uniform(*area)
            ratio = mels / frames * np.exp(generator.uniform(*np.log(aspect)))
            height, width = round((size * ratio) ** 0.5), round((size / ratio) ** 0.5)
            if 0 < height <= mels and 0 < width <= frames:
                top, left = generator.integers(0, [mels - height + 1, frames - width + 1])
                return int(top), int(left), height, width
        return 0, 0, mels, frames

    drawn = each_row(generator, len(log_mel), rectangle)
    return torch.stack([resized(row, place) for row, place in zip(log_mel, drawn, strict=True)])


def resized(log_mel: Tensor, rectangle: tuple[int, int, int, int]) -> Tensor:
    """A rectangle (first band, first frame, bands, frames) of a (mel, frame), stretched to its size."""
    top, left, height, width = rectangle
    piece = log_mel[None, None, top : top + height, left : left + width]
    whole = functional.interpolate(piece, size=log_mel.shape, mode="bicubic", align_corners=True)
    return whole[0, 0]


def mask(
    log_mel: Tensor,
    mel_width: int,
    frame_width: int,
    fill: float,
    generator: np.random.Generator,
    *,
    count: int = 1,
    stripes: Stripes = "independent",
) -> Tensor:
    """Overwrites stripes of mel bands and of frames in each log-mel (SpecAugment).

    Source: Park et al., arXiv:1904.08779.

    Args:
        log_mel: (batch, mel, frame).
        mel_width: Bands that a stripe stays below; 0: none.
        frame_width: Frames that a stripe stays below; 0: none.
        fill: What is written.
        generator: Of the draws.
        count: Stripes along each axis; they may overlap.
        stripes: How they are drawn. "independent": width = floor(u W), begin = floor(v (size - u W)), of
            uniform u and v (EfficientAT, torchaudio); "linked": width u W and begin u (size - u W) of the
            same u, so that wide stripes lie late (audax). SP4ASC's masks are a part of its network.
    """
    keep = torch.ones_like(log_mel, dtype=torch.bool)
    for _ in range(count):
        for axis, width in ((2, frame_width), (1, mel_width)):
            if width:
                begins, ends = _drawn_stripes(len(log_mel), log_mel.shape[axis], width, generator, stripes)
                keep &= ~_inside(log_mel, axis, begins, ends)
    return torch.where(keep, log_mel, fill)


def _drawn_stripes(
    count: int, size: int, width: int, generator: np.random.Generator, stripes: Stripes
) -> tuple[np.ndarray, np.ndarray]:
    """First position of each stripe, and the one after its last, both (count,)."""
    shares = generator.random(count)
    places = shares if stripes == "linked" else generator.random(count)
    return stripe_edges(shares, places, size, min(width, size), whole=stripes == "independent")


def stripe_edges(
    shares: np.ndarray, places: np.ndarray, size: int, widest: int, *, whole: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Where stripes begin and end whose width is a share of the widest, and place one of what is left.

    Args:
        shares: In [0, 1), (count,).
        places: In [0, 1), (count,).
        size: Of the axis.
        widest: Width that a share of 1 would have.
        whole: Begin and width are rounded down; off: positions begin <= position < begin + width are inside.
    """
    widths, begins = shares * widest, places * (size - shares * widest)
    if whole:
        return np.floor(begins), np.floor(begins) + np.floor(widths)
    return begins, begins + widths


def _inside(log_mel: Tensor, axis: int, begins: np.ndarray, ends: np.ndarray) -> Tensor:
    positions = np.arange(log_mel.shape[axis])
    inside = (positions >= begins[:, None]) & (positions < ends[:, None])
    found = on_device(inside, log_mel.device)
    return found[:, :, None] if axis == 1 else found[:, None, :]


def equalize(log_mel: Tensor, max_db: float, front_end: FrontEnd, generator: np.random.Generator) -> Tensor:
    """Colours each log-mel by a smooth random gain over the bands, as another microphone or room would.

    Source: in the manner of FilterAugment (Nam et al., arXiv:2110.03282), linear type: four to six nodes at
    random bands, gains uniform within ``max_db`` to either side, linear in between. What lies at the floor of
    the front-end stays there.
    """
    bands = np.arange(log_mel.shape[1])

    def curve(generator: np.random.Generator) -> np.ndarray:
        inner = np.sort(generator.uniform(0, bands[-1], generator.integers(2, 5)))
        nodes = np.concatenate([[0], inner, [bands[-1]]])
        return np.interp(bands, nodes, generator.uniform(-max_db, max_db, len(nodes)))

    curves = each_row(generator, len(log_mel), curve)
    unit = 1.0 if front_end.log == "db" else 1 / DB_PER_NEPER
    offsets = on_device(np.stack(curves) * unit / front_end.scale, log_mel.device).to(log_mel.dtype)
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
    centres = mel_filter_bank(front_end).argmax(1) * front_end.sample_rate / front_end.n_fft
    cuts = np.exp(generator.uniform(np.log(lowest_hz), np.log(front_end.sample_rate / 2), len(log_mel)))
    cuts[generator.random(len(log_mel)) >= probability] = np.inf
    emptied = on_device(centres[None] > cuts[:, None], log_mel.device)
    return torch.where(emptied[:, :, None], front_end.silence, log_mel)


def on_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Drawn numbers where they are needed, copied from pinned memory, so that nothing waits for the copy."""
    drawn = torch.from_numpy(values)
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def _share(alpha: float, size: int | None, generator: np.random.Generator, larger: bool) -> np.ndarray:
    drawn = np.asarray(generator.beta(alpha, alpha, size))
    return np.maximum(drawn, 1 - drawn) if larger else drawn


def _mixed_targets(targets: Tensor, partners: Tensor, share: np.ndarray) -> Tensor:
    weight = _column(share, targets)
    return weight * targets + (1 - weight) * partners


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    """One number per item of the batch, shaped so that it multiplies the whole item."""
    column = on_device(values, like.device).to(like.dtype)
    return column.reshape(-1, *(1,) * (like.ndim - 1))
