"""A training batch: waveforms -> what the network sees and what it is to answer.

Conventions: all that is random comes from one generator, in a fixed order of steps: waveforms (crop or roll,
speed, gain, mixing), the teacher's answers to them, log-mels (colouring, band limit, masks, mixup).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from earmark.data import augment
from earmark.frontend import FrontEnd
from earmark.models.log_mel import LogMel
from earmark.train.recipe import Recipe
from earmark.train.teacher import Teacher


def augmented(
    recipe: Recipe,
    front_end: nn.Module,
    waveforms: Tensor,
    wanted: Tensor,
    generator: np.random.Generator,
    epoch: int = 0,
    teacher: Teacher | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A training batch as the network sees it.

    Args:
        recipe: Its ``augment`` section says what is done.
        front_end: The front-end, a log-mel or one that learns.
        waveforms: (batch, time).
        wanted: Targets, (batch, class).
        generator: Of all draws.
        epoch: Counted from 0; decides whether pieces or whole windows are seen.
        teacher: Hears the waveforms as they are when all that is done to waveforms is done.

    Returns:
        Features (batch, mel, frame), targets (batch, class) and the teacher's answers (batch, output), of no
        columns without a teacher; where log-mels are mixed, so are both.
    """
    waveforms, wanted = _waveforms(recipe, waveforms, wanted, generator, epoch)
    answers = waveforms.new_zeros(len(waveforms), 0) if teacher is None else teacher(waveforms)
    features = _features(recipe, front_end, waveforms, generator)
    if recipe.augment.mixup_alpha:
        both = torch.cat([wanted, answers], -1)
        features, both = augment.mixup(features, both, recipe.augment.mixup_alpha, generator)
        classes = wanted.shape[-1]
        wanted, answers = both[:, :classes], both[:, classes:]
    return features, wanted, answers


def _waveforms(
    recipe: Recipe, waveforms: Tensor, wanted: Tensor, generator: np.random.Generator, epoch: int
) -> tuple[Tensor, Tensor]:
    settings, sample_rate = recipe.augment, recipe.front_end.sample_rate
    if settings.crop_s and epoch < settings.crop_share * recipe.optimizer.epochs:
        waveforms = augment.crop(waveforms, round(settings.crop_s * sample_rate), generator)
    elif settings.roll_s:
        waveforms = augment.roll(waveforms, round(settings.roll_s * sample_rate), generator)
    if settings.speed != (1, 1):
        waveforms = augment.change_speed(waveforms, *settings.speed, generator)
    if settings.gain_db != (0, 0):
        waveforms = augment.gain(waveforms, *settings.gain_db, generator)
    if settings.mix_probability:
        waveforms, wanted = augment.mix_waveforms(
            waveforms, wanted, settings.mix_alpha, settings.mix_probability, generator
        )
    return waveforms, wanted


def _features(
    recipe: Recipe, front_end: nn.Module, waveforms: Tensor, generator: np.random.Generator
) -> Tensor:
    settings, fixed = recipe.augment, recipe.front_end
    if isinstance(front_end, LogMel) and (settings.f_min_range or settings.f_max_range):
        features = front_end.forward_jittered(
            waveforms, settings.f_min_range, settings.f_max_range, generator
        )
    else:
        features = front_end(waveforms)
    if isinstance(fixed, FrontEnd) and settings.equalize_db:
        features = augment.equalize(features, settings.equalize_db, fixed, generator)
    if isinstance(fixed, FrontEnd) and settings.limit_probability:
        features = augment.limit_band(
            features, settings.limit_probability, settings.limit_lowest_hz, fixed, generator
        )
    if settings.mask_mels or settings.mask_s:
        frames = round(settings.mask_s * fixed.sample_rate / fixed.hop_length)
        features = augment.mask(features, settings.mask_mels, frames, fixed.neutral, generator)
    return features
