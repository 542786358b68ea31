"""Augmentations of log-mels: masks, crops, and changes of their spectrum.

Conventions: as for :mod:`earmark.data.augment`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earmark.data.augment.draws import on_device
from earmark.data.batch_rng import each_row
from earmark.features.front_end import FrontEnd
from earmark.features.mel import mel_filter_bank

DB_PER_NEPER = 10 / np.log(10)

Stripes = Literal["independent", "linked"]
"""How widths and places of masks are drawn, see :func:`spec_augment`."""


def spec_augment(
    log_mel: Tensor,
    mel_width: int,
    frame_width: int,
    fill: float,
    generator: np.random.Generator,
    *,
    count: int = 1,
    stripes: Stripes = "independent",
) -> Tensor:
    """Masks stripes of mel bands and of frames in each log-mel (SpecAugment).

    Source: Park et al., arXiv:1904.08779.

    Args:
        log_mel: (batch, mel, frame).
        mel_width: Exclusive upper limit of a stripe's mel bands; 0: none.
        frame_width: Exclusive upper limit of a stripe's frames; 0: none.
        fill: Value of masked positions.
        generator: Source of randomness.
        count: Stripes along each axis; they may overlap.
        stripes: How they are drawn. "independent": width = floor(u W), begin = floor(v (size - u W)), of
            uniform u and v (EfficientAT, torchaudio); "linked": width u W and begin u (size - u W) of the
            same u, so that wide stripes lie late (audax). SP4ASC masks within its network.
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
    """Begins and ends of stripes, both (count,).

    Args:
        shares: Widths as shares of ``widest``, in [0, 1), (count,).
        places: Begins as shares of the rest of the axis, in [0, 1), (count,).
        size: Of the axis.
        widest: Upper limit of the width.
        whole: Round begin and width down; off: positions with begin <= position < begin + width are inside.
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


def random_resized_crop(
    log_mel: Tensor,
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: np.random.Generator,
    attempts: int = 10,
) -> Tensor:
    """Crops a random rectangle of each log-mel and resizes it to the original size.

    Source: "Inception" cropping (Szegedy et al., arXiv:1409.4842) as sound-clf-pytorch has it for
    spectrograms: area uniform, aspect ratio log-uniform; bicubic. Golden sound_clf rrc/*.

    Args:
        log_mel: (batch, mel, frame).
        area: Range of the share of the area.
        aspect: Range of the number of bands per frame, as a multiple of the log-mel's own.
        generator: Source of randomness.
        attempts: Rectangles drawn until one fits inside; if none does, the log-mel stays whole.
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
    """Resizes a rectangle (first band, first frame, bands, frames) of a (mel, frame) to the whole size."""
    top, left, height, width = rectangle
    piece = log_mel[None, None, top : top + height, left : left + width]
    whole = functional.interpolate(piece, size=log_mel.shape, mode="bicubic", align_corners=True)
    return whole[0, 0]


def filter_augment(
    log_mel: Tensor, max_db: float, front_end: FrontEnd, generator: np.random.Generator
) -> Tensor:
    """Applies a smooth random gain over the mel bands to each log-mel, as another microphone or room would.

    Source: FilterAugment (Nam et al., arXiv:2110.03282), linear type: four to six nodes at random bands,
    gains uniform in [-max_db, max_db], linear in between. Values at the floor of the front-end stay there.
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


def low_pass(
    log_mel: Tensor, probability: float, min_hz: float, front_end: FrontEnd, generator: np.random.Generator
) -> Tensor:
    """Silences the upper bands of some log-mels, as a lower sample rate or a lossy codec does.

    Args:
        log_mel: (batch, mel, frame), of a front-end with a floor.
        probability: Of an item.
        min_hz: Lower limit of the cut-off, which is log-uniform up to half the sample rate.
        front_end: Of the log-mels.
        generator: Source of randomness.
    """
    centres = mel_filter_bank(front_end).argmax(1) * front_end.sample_rate / front_end.n_fft
    cuts = np.exp(generator.uniform(np.log(min_hz), np.log(front_end.sample_rate / 2), len(log_mel)))
    cuts[generator.random(len(log_mel)) >= probability] = np.inf
    silenced = on_device(centres[None] > cuts[:, None], log_mel.device)
    return torch.where(silenced[:, :, None], front_end.silence, log_mel)
