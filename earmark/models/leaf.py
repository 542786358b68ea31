"""LEAF: a front-end whose filters, low-pass and compression are learned with the network.

Source: Zeghidour et al., arXiv:2101.08596; golden audax/features_frontends.npz.

Conventions: a waveform is float32 in [-1, 1], shape (batch, time); features are float32, shape
(batch, mel, frame), a band for each filter. All parameters are one number a filter, so that none is decayed
in training.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.features.front_end import FrontEnd
from earmark.features.learned import LearnedFrontEnd
from earmark.features.mel import mel_filter_bank
from earmark.models.layers import pad_same
from earmark.models.log_mel import check_waveform

N_FFT = 512
"""Of the mel filters that the starting filters imitate, so that their widths come in whole bins."""
LEAST_ENERGY = 1e-5
"""Energies below this, behind the low-pass, are raised to it."""
FLOOR = 1e-12
"""What keeps the gain of the compression finite."""
DOUBLINGS = 17
"""Steps of the running average where the number of frames is open: they reach 2 ** 17 frames back."""
_WIDTH = math.sqrt(2 * math.log(2)) / math.pi
"""Standard deviation of a bell in samples, times the width of its spectrum at half the maximum, as a share of
the sample rate."""


class Leaf(nn.Module):
    """Turns waveforms into features by Gabor filters, Gaussian low-passes and learned compression.

    Args:
        front_end: Its fixed choices, of the kind "leaf".
    """

    def __init__(self, front_end: LearnedFrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        bands = front_end.n_mels
        centre, width = starting_filters(front_end)
        self.centre = nn.Parameter(centre)
        self.width = nn.Parameter(width)
        self.lowpass = nn.Parameter(torch.full((bands,), 0.4))
        self.alpha = nn.Parameter(torch.full((bands,), 0.96))
        self.delta = nn.Parameter(torch.full((bands,), 2.0))
        self.root = nn.Parameter(torch.full((bands,), 2.0))
        self.smooth = nn.Parameter(torch.full((bands,), 0.04))

    def forward(self, waveform: Tensor) -> Tensor:
        """The features of each waveform.

        Args:
            waveform: float32 in [-1, 1], shape (batch, time), at ``front_end.sample_rate``.

        Returns:
            float32, shape (batch, n_mels, frame), ``ceil(time / hop_length)`` frames.

        Raises:
            AudioError: If the waveform is not float32 of two dimensions.
        """
        check_waveform(waveform)
        with torch.autocast(waveform.device.type, enabled=False):
            return self._compress(self._smoothed(self._power(waveform)))

    def _power(self, waveform: Tensor) -> Tensor:
        """The squared magnitude of each filter's answer: (batch, time) -> (batch, filter, time)."""
        taps = self.front_end.win_length
        # No filter is wider than a quarter of the sample rate, nor narrower than its taps can be.
        width = self.width.clamp(4 * _WIDTH, taps * _WIDTH)
        filters = gabor_filters(self.centre.clamp(0.0, math.pi), width, taps).flatten(0, 1).unsqueeze(1)
        answers = functional.conv1d(waveform.unsqueeze(1), filters, padding=taps // 2)
        real, imaginary = answers.chunk(2, 1)
        return real.square() + imaginary.square()

    def _smoothed(self, power: Tensor) -> Tensor:
        """The power in each frame: (batch, filter, time) -> (batch, filter, frame)."""
        taps, hop = self.front_end.win_length, self.front_end.hop_length
        kernels = gaussian_kernels(self.lowpass, taps).unsqueeze(1)
        energies = functional.conv1d(pad_same(power, taps, hop), kernels, stride=hop, groups=len(kernels))
        return energies.clamp(min=LEAST_ENERGY)

    def _compress(self, energies: Tensor) -> Tensor:
        """Divides by the running average and takes a root: (batch, filter, frame) in and out.

        Source: Wang et al., arXiv:1607.05666, equation 1 (PCEN).
        """
        average = running_average(energies, self.smooth.clamp(0.0, 1.0))
        exponent, delta = 1 / self.root.clamp(min=1.0)[:, None], self.delta[:, None]
        gained = energies / (FLOOR + average) ** self.alpha.clamp(max=1.0)[:, None]
        return (gained + delta) ** exponent - delta**exponent


def starting_filters(front_end: LearnedFrontEnd) -> tuple[Tensor, Tensor]:
    """Finds the Gabor filters that are most like mel filters.

    Source: Zeghidour et al., arXiv:2101.08596, section 3.1.

    Args:
        front_end: Number and range of the filters.

    Returns:
        Centre (radians a sample) and standard deviation (samples) of each filter, both of shape (filter,).
    """
    bank = mel_filter_bank(
        FrontEnd(
            sample_rate=front_end.sample_rate,
            n_fft=N_FFT,
            win_length=N_FFT,
            n_mels=front_end.n_mels,
            f_min=front_end.f_min,
            f_max=front_end.f_max,
            mel_scale="htk",
        )
    )
    magnitudes = np.sqrt(bank)
    bins = (magnitudes >= magnitudes.max(1, keepdims=True) / 2).sum(1)  # full width at half the maximum
    centre = magnitudes.argmax(1) * 2 * math.pi / N_FFT
    return torch.from_numpy(centre).float(), torch.from_numpy(N_FFT * _WIDTH / bins).float()


def gabor_filters(centre: Tensor, width: Tensor, taps: int) -> Tensor:
    """Sine waves under Gaussian bells of unit area.

    Source: Zeghidour et al., arXiv:2101.08596, equation 1; golden leaf_stage/gabor_filters_*.

    Args:
        centre: Frequency of each filter in radians a sample, shape (filter,).
        width: Standard deviation of each bell in samples, shape (filter,).
        taps: Length of the filters, odd.

    Returns:
        Real and imaginary parts, shape (2, filter, taps).
    """
    time = torch.arange(taps, dtype=centre.dtype, device=centre.device) - taps // 2
    bells = torch.exp(-(time**2) / (2 * width[:, None] ** 2)) / (math.sqrt(2 * math.pi) * width[:, None])
    angles = centre[:, None] * time
    return bells * torch.stack([angles.cos(), angles.sin()])


def gaussian_kernels(width: Tensor, taps: int) -> Tensor:
    """Bells of height 1, by which the power is smoothed.

    Source: Zeghidour et al., arXiv:2101.08596, section 3.2; golden leaf_stage/lowpass_0.4.

    Args:
        width: Standard deviation of each bell as a share of half the taps, shape (filter,).
        taps: Length of the kernels, odd.

    Returns:
        Shape (filter, taps).
    """
    half = (taps - 1) / 2
    time = torch.arange(taps, dtype=width.dtype, device=width.device) - half
    return torch.exp(-0.5 * (time / (width.clamp(2 / taps, 0.5)[:, None] * half)) ** 2)


def running_average(energies: Tensor, share: Tensor) -> Tensor:
    """The average y[0] = x[0], y[t] = s x[t] + (1 - s) y[t - 1].

    It is found by doubling how far each frame looks back, so in a logarithm of the frames' number of steps.

    Args:
        energies: x, shape (batch, filter, frame).
        share: s of each filter, in [0, 1], shape (filter,).

    Returns:
        y, shape (batch, filter, frame).
    """
    frames, decay = energies.shape[2], 1 - share[:, None]
    average = torch.cat([energies[:, :, :1], share[:, None] * energies[:, :, 1:]], 2)
    for doubling in range(DOUBLINGS):
        if isinstance(frames, int) and frames <= 1 << doubling:  # in an export the number is open
            break
        back = torch.sym_min(1 << doubling, frames)  # type: ignore[no-untyped-call]
        average = average + decay * functional.pad(average, (back, 0))[:, :, :frames]
        decay = decay * decay
    return average
