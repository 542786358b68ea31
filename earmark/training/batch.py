"""Augmentation of a training batch: waveforms and labels -> features and targets.

Conventions: one generator, and a fixed order of steps: waveforms (crop or roll, speed, gain, noise,
impulse responses, mixing), the teachers' predictions, log-mels (filter jitter, equaliser, low-pass, resized
crop, Freq-MixStyle, masks, mixup).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from earmark.audio import load_audio
from earmark.audio.find import find_recordings
from earmark.data import augment
from earmark.errors import EarmarkError, RecipeError, contained
from earmark.features.front_end import FrontEnd
from earmark.models.log_mel import TorchLogMel
from earmark.training.config.recipe import Recipe
from earmark.training.distill.teacher_targets import WaveformTargets


class Augmentation:
    """The augmentation of a recipe.

    Args:
        recipe: Of the training.
        front_end: The front-end in PyTorch, a log-mel or a learned one.
        device: Of the waveforms.

    Raises:
        RecipeError: If the folder of impulse responses is empty.
    """

    def __init__(self, recipe: Recipe, front_end: nn.Module, device: torch.device | str = "cpu") -> None:
        self.recipe, self.front_end = recipe, front_end
        self.impulses = [impulse.to(device) for impulse in _impulses(recipe)]

    def __call__(
        self,
        waveforms: Tensor,
        labels: Tensor,
        generator: np.random.Generator,
        epoch: int = 0,
        stored: Tensor | None = None,
        teacher: WaveformTargets | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augments a batch.

        Args:
            waveforms: (batch, time).
            labels: Targets, (batch, class); NaN: unknown.
            generator: Of all draws.
            epoch: From 0; decides between crops and whole windows.
            stored: Further targets of the clips, (batch, column), which are mixed as the labels are.
            teacher: Computes targets from the waveforms, after all waveform augmentation.

        Returns:
            Features (batch, mel, frame), targets (batch, class), and the stored and computed targets of the
            teachers (batch, column).
        """
        settings, classes = self.recipe.augment, labels.shape[-1]
        stored = waveforms.new_zeros(len(waveforms), 0) if stored is None else stored
        rows = torch.cat([mixable_labels(labels), stored], -1)
        waveforms, rows = self._waveforms(waveforms, rows, generator, epoch)
        if teacher is not None:
            rows = torch.cat([rows, teacher(waveforms)], -1)
        features = self._mask(self._log_mels(waveforms, generator), generator)
        if settings.mixup_alpha and epoch < settings.mixup_epoch_fraction * self.recipe.optimizer.epochs:
            features, rows = augment.mixup(
                features,
                rows,
                settings.mixup_alpha,
                generator,
                larger=settings.mixup_larger,
                per_batch=settings.mixup_per_batch,
            )
        own = 2 * classes + 1
        return features, mixed_labels(rows[:, :own]), rows[:, own:]

    def _waveforms(
        self, waveforms: Tensor, rows: Tensor, generator: np.random.Generator, epoch: int
    ) -> tuple[Tensor, Tensor]:
        settings, sample_rate = self.recipe.augment, self.recipe.front_end.sample_rate
        if settings.crop_s and epoch < settings.crop_epoch_fraction * self.recipe.optimizer.epochs:
            waveforms = augment.crop(waveforms, round(settings.crop_s * sample_rate), generator)
        elif settings.roll_s:
            waveforms = augment.roll(waveforms, round(settings.roll_s * sample_rate), generator)
        if settings.speed != (1, 1):
            waveforms = augment.change_speed(waveforms, *settings.speed, generator)
        if settings.gain_db != (0, 0):
            waveforms = augment.gain(waveforms, *settings.gain_db, generator)
        if settings.noise_snr_db is not None:
            waveforms = augment.add_noise(waveforms, settings.noise_snr_db, generator)
        if self.impulses:
            waveforms = augment.convolve_ir(waveforms, self.impulses, settings.impulse_probability, generator)
        if settings.waveform_mix_probability:
            waveforms, rows = augment.mix_waveforms(
                waveforms, rows, settings.waveform_mix_alpha, settings.waveform_mix_probability, generator
            )
        return waveforms, rows

    def _log_mels(self, waveforms: Tensor, generator: np.random.Generator) -> Tensor:
        settings, fixed = self.recipe.augment, self.recipe.front_end
        if isinstance(self.front_end, TorchLogMel) and (settings.f_min_range or settings.f_max_range):
            features = self.front_end.forward_jittered(
                waveforms, settings.f_min_range, settings.f_max_range, generator
            )
        else:
            features = self.front_end(waveforms)
        if isinstance(fixed, FrontEnd) and settings.equalize_db:
            features = augment.filter_augment(features, settings.equalize_db, fixed, generator)
        if isinstance(fixed, FrontEnd) and settings.low_pass_probability:
            features = augment.low_pass(
                features, settings.low_pass_probability, settings.low_pass_min_hz, fixed, generator
            )
        if settings.resized_crop_scale:
            features = augment.random_resized_crop(
                features, settings.resized_crop_scale, settings.resized_crop_ratio, generator
            )
        if settings.mixstyle_probability:
            features = augment.freq_mixstyle(
                features, settings.mixstyle_alpha, settings.mixstyle_probability, generator
            )
        return features

    def _mask(self, features: Tensor, generator: np.random.Generator) -> Tensor:
        settings, front_end = self.recipe.augment, self.recipe.front_end
        if not settings.mask_mels and not settings.mask_s:
            return features
        return augment.spec_augment(
            features,
            settings.mask_mels,
            round(settings.mask_s * front_end.sample_rate / front_end.hop_length),
            front_end.mask_value,
            generator,
            count=settings.mask_count,
            stripes=settings.mask_stripes,
        )


def mixable_labels(targets: Tensor) -> Tensor:
    """Targets as rows that are mixed linearly.

    An unknown label of a labelled clip counts as absent when the clip is mixed with one whose label is known,
    as EfficientAT mixes OpenMIC's clips, whose labels are mostly unknown. A mixture with an unlabelled clip
    has no labels.

    Args:
        targets: (batch, class); NaN: unknown.

    Returns:
        (batch, 2 class + 1), without NaN: targets, whether each is known, and whether none is.
    """
    known = ~targets.isnan()
    nothing = ~known.any(-1, keepdim=True)
    return torch.cat([targets.nan_to_num(), known.to(targets), nothing.to(targets)], -1)


def mixed_labels(rows: Tensor) -> Tensor:
    """Targets (batch, class) of rows from :func:`mixable_labels`, mixed or not."""
    classes = rows.shape[-1] // 2
    values, known, nothing = torch.split(rows, [classes, classes, 1], -1)
    return torch.where((known > 0) & (nothing == 0), values, torch.nan)


def _impulses(recipe: Recipe) -> list[Tensor]:
    """The impulse responses of a recipe, at the front-end's rate."""
    folder = recipe.augment.impulse_responses
    if folder is None:
        return []
    impulses = []
    for path in find_recordings([folder], recursive=True):
        try:
            if isinstance(path, EarmarkError):
                raise path
            impulses.append(torch.from_numpy(load_audio(path, recipe.front_end.sample_rate)[0]))
        except Exception as error:  # a resource of the recipe, not a clip: found before the first step
            raise RecipeError(f"augment.impulse_responses: {contained(error, str(path))}") from None
    return impulses
