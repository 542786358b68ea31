"""A training batch: waveforms -> what the network sees and what it is to answer.

Conventions: all that is random comes from one generator, in a fixed order of steps: waveforms (crop, roll
or shift, speed, gain, impulse responses, mixing), the teacher's answers to them, log-mels (filter jitter,
colouring, band limit, crop, style, masks, mixup).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from earmark.audio import load_audio
from earmark.audio.find import find_recordings
from earmark.data import augment
from earmark.errors import EarmarkError, RecipeError
from earmark.frontend import FrontEnd
from earmark.models.log_mel import LogMel
from earmark.train.recipe import Recipe
from earmark.train.teacher import Teacher


class Augmentation:
    """What a recipe's ``augment`` section says, ready to be done.

    Args:
        recipe: Of the training.
        front_end: The front-end in PyTorch, a log-mel or one that learns.

    Raises:
        RecipeError: If the folder of impulse responses holds none.
    """

    def __init__(self, recipe: Recipe, front_end: nn.Module) -> None:
        self.recipe, self.front_end = recipe, front_end
        self.impulses = _impulses(recipe)

    def __call__(
        self,
        waveforms: Tensor,
        wanted: Tensor,
        generator: np.random.Generator,
        epoch: int = 0,
        teacher: Teacher | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A training batch as the network sees it.

        Args:
            waveforms: (batch, time).
            wanted: Targets, (batch, class).
            generator: Of all draws.
            epoch: Counted from 0; decides whether pieces or whole windows are seen.
            teacher: Hears the waveforms as they are when all that is done to waveforms is done.

        Returns:
            Features (batch, mel, frame), targets (batch, class) and the teacher's answers (batch, output), of
            no columns without a teacher; where log-mels are mixed, so are both.
        """
        settings = self.recipe.augment
        waveforms, wanted = self._waveforms(waveforms, wanted, generator, epoch)
        answers = waveforms.new_zeros(len(waveforms), 0) if teacher is None else teacher(waveforms)
        features = self._log_mels(waveforms, generator)
        features = self._mask(features, generator)
        if settings.mixup_alpha and epoch < settings.mixup_share * self.recipe.optimizer.epochs:
            both = torch.cat([wanted, answers], -1)
            features, both = augment.mixup(
                features,
                both,
                settings.mixup_alpha,
                generator,
                larger=settings.mixup_larger,
                alike=settings.mixup_alike,
            )
            wanted, answers = both[:, : wanted.shape[-1]], both[:, wanted.shape[-1] :]
        return features, wanted, answers

    def _waveforms(
        self, waveforms: Tensor, wanted: Tensor, generator: np.random.Generator, epoch: int
    ) -> tuple[Tensor, Tensor]:
        settings, sample_rate = self.recipe.augment, self.recipe.front_end.sample_rate
        if settings.crop_s and epoch < settings.crop_share * self.recipe.optimizer.epochs:
            waveforms = augment.crop(waveforms, round(settings.crop_s * sample_rate), generator)
        elif settings.roll_s:
            waveforms = augment.roll(waveforms, round(settings.roll_s * sample_rate), generator)
        if settings.shift_s:
            waveforms = augment.shift(waveforms, round(settings.shift_s * sample_rate), generator)
        if settings.speed != (1, 1):
            waveforms = augment.change_speed(waveforms, *settings.speed, generator)
        if settings.gain_db != (0, 0):
            waveforms = augment.gain(waveforms, *settings.gain_db, generator)
        if self.impulses:
            waveforms = augment.record_again(
                waveforms, self.impulses, settings.impulse_probability, generator
            )
        if settings.mix_probability:
            waveforms, wanted = augment.mix_waveforms(
                waveforms, wanted, settings.mix_alpha, settings.mix_probability, generator
            )
        return waveforms, wanted

    def _log_mels(self, waveforms: Tensor, generator: np.random.Generator) -> Tensor:
        settings, fixed = self.recipe.augment, self.recipe.front_end
        if isinstance(self.front_end, LogMel) and (settings.f_min_range or settings.f_max_range):
            features = self.front_end.forward_jittered(
                waveforms, settings.f_min_range, settings.f_max_range, generator
            )
        else:
            features = self.front_end(waveforms)
        if isinstance(fixed, FrontEnd) and settings.equalize_db:
            features = augment.equalize(features, settings.equalize_db, fixed, generator)
        if isinstance(fixed, FrontEnd) and settings.limit_probability:
            features = augment.limit_band(
                features, settings.limit_probability, settings.limit_lowest_hz, fixed, generator
            )
        if settings.crop_area:
            features = augment.resize_crop(features, settings.crop_area, settings.crop_aspect, generator)
        if settings.style_probability:
            features = augment.mix_style(
                features, settings.style_alpha, settings.style_probability, generator
            )
        return features

    def _mask(self, features: Tensor, generator: np.random.Generator) -> Tensor:
        settings, front_end = self.recipe.augment, self.recipe.front_end
        if not settings.mask_mels and not settings.mask_s:
            return features
        return augment.mask(
            features,
            settings.mask_mels,
            round(settings.mask_s * front_end.sample_rate / front_end.hop_length),
            front_end.neutral,
            generator,
            count=settings.mask_count,
            stripes=settings.mask_stripes,
        )


def _impulses(recipe: Recipe) -> list[Tensor]:
    """The impulse responses of the recipe's folder, at the front-end's rate."""
    folder = recipe.augment.impulses
    if folder is None:
        return []
    impulses = []
    for path in find_recordings([folder], recursive=True):
        if isinstance(path, EarmarkError):
            raise RecipeError(f"augment.impulses: {path}")
        impulses.append(torch.from_numpy(load_audio(path, recipe.front_end.sample_rate)[0]))
    return impulses
