"""LEAF: a front-end whose filters, low-pass and compression are learned with the network.

Source: Zeghidour et al., arXiv:2101.08596; golden tests/golden/audax_models.npz and
audax/features_frontends.npz.

Conventions: a waveform is float32 in [-1, 1], shape (batch, time); features are float32, shape
(batch, mel, frame), one band per filter. All parameters are of shape (filter,), so that weight decay, which
spares one-dimensional parameters, leaves them alone.
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
from earmark.models.weight_init import draw_fan_in

N_FFT = 512
"""Of the mel filters that the initial filters approximate, in whole bins."""
MIN_ENERGY = 1e-5
"""Lower limit of the energies after the low-pass."""
FLOOR = 1e-12
"""Added to the running average, so that the gain of the compression stays finite."""
DOUBLINGS = 17
"""Doublings of the running average for a dynamic number of frames: it reaches 2 ** 17 frames back."""
_WIDTH = math.sqrt(2 * math.log(2)) / math.pi
"""Standard deviation of a Gaussian in samples, times the full width at half maximum of its spectrum as a
fraction of the sample rate."""


class Leaf(nn.Module):
    """Gabor filters, Gaussian low-pass filters and learned compression (PCEN).

    Args:
        front_end: Fixed constants, of the kind "leaf".
    """

    def __init__(self, front_end: LearnedFrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        bands = front_end.n_mels
        is_random = front_end.initial_filters != "mel"
        centre, width = random_filters(front_end) if is_random else initial_filters(front_end)
        self.centre = nn.Parameter(centre)
        self.width = nn.Parameter(width)
        self.lowpass = nn.Parameter(torch.full((bands,), 0.4))
        self.alpha = nn.Parameter(torch.full((bands,), 0.96))
        self.delta = nn.Parameter(torch.full((bands,), 2.0))
        self.root = nn.Parameter(torch.full((bands,), 2.0))
        self.smooth = nn.Parameter(torch.full((bands,), 0.04))

    def forward(self, waveform: Tensor) -> Tensor:
        """Computes the features of each waveform.

        Args:
            waveform: float32 in [-1, 1], shape (batch, time), at ``front_end.sample_rate``.

        Returns:
            float32, shape (batch, n_mels, frame), ``ceil(time / hop_length)`` frames.

        Raises:
            AudioError: If the waveform is not two-dimensional float32.
        """
        check_waveform(waveform)
        with torch.autocast(waveform.device.type, enabled=False):
            return self._compress(self._low_pass(self._power(waveform)))

    def _power(self, waveform: Tensor) -> Tensor:
        """Computes the squared magnitude of each filter's output: (batch, time) -> (batch, filter, time)."""
        taps = self.front_end.win_length
        # No filter is wider than a quarter of the sample rate, nor narrower than its length allows.
        width = self.width.clamp(4 * _WIDTH, taps * _WIDTH)
        filters = gabor_filters(self.centre.clamp(0.0, math.pi), width, taps).flatten(0, 1).unsqueeze(1)
        filtered = functional.conv1d(waveform.unsqueeze(1), filters, padding=taps // 2)
        real, imaginary = filtered.chunk(2, 1)  # each (batch, filter, time)
        return real.square() + imaginary.square()

    def _low_pass(self, power: Tensor) -> Tensor:
        """Averages the power in each frame: (batch, filter, time) -> (batch, filter, frame)."""
        taps, hop = self.front_end.win_length, self.front_end.hop_length
        kernels = gaussian_kernels(self.lowpass, taps).unsqueeze(1)
        energies = functional.conv1d(pad_same(power, taps, hop), kernels, stride=hop, groups=len(kernels))
        return energies.clamp(min=MIN_ENERGY)

    def _compress(self, energies: Tensor) -> Tensor:
        """Divides by the running average, then takes a root: (batch, filter, frame) in and out.

        Source: Wang et al., arXiv:1607.05666, equation 1 (PCEN).
        """
        average = running_average(energies, self.smooth.clamp(0.0, 1.0))
        exponent, delta = 1 / self.root.clamp(min=1.0)[:, None], self.delta[:, None]
        gained = energies / (FLOOR + average) ** self.alpha.clamp(max=1.0)[:, None]
        return (gained + delta) ** exponent - delta**exponent


def initial_filters(front_end: LearnedFrontEnd) -> tuple[Tensor, Tensor]:
    """Computes the Gabor filters that approximate mel filters.

    Source: Zeghidour et al., arXiv:2101.08596, section 3.1.

    Args:
        front_end: Number and range of the filters.

    Returns:
        Centre (radians per sample) and standard deviation (samples) of each filter, both of shape (filter,).
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


def random_filters(front_end: LearnedFrontEnd) -> tuple[Tensor, Tensor]:
    """Draws Gabor filters at random.

    Source: audax's ``complex_conv_init``, one of flax's initialisers for a kernel of shape (filter, 2), whose
    fan in is the number of filters.

    Args:
        front_end: Number of the filters, and the rule in ``initial_filters``.

    Returns:
        Centre (radians per sample) and standard deviation (samples) of each filter, both of shape (filter,).
    """
    drawn = torch.empty(front_end.n_mels, 2)
    if front_end.initial_filters == "randn":
        nn.init.normal_(drawn, std=0.01)
    else:
        gain = 2.0 if front_end.initial_filters == "kaiming_normal" else 1.0
        draw_fan_in(drawn, front_end.n_mels, gain)
    centre, width = drawn.unbind(1)
    return centre.clone(), width.clone()


def gabor_filters(centre: Tensor, width: Tensor, taps: int) -> Tensor:
    """Computes complex sine waves with Gaussian envelopes of unit area.

    Source: Zeghidour et al., arXiv:2101.08596, equation 1; golden leaf_stage/gabor_filters_*.

    Args:
        centre: Frequency of each filter in radians per sample, shape (filter,).
        width: Standard deviation of each envelope in samples, shape (filter,).
        taps: Length of the filters, odd.

    Returns:
        Real and imaginary parts, shape (2, filter, taps).
    """
    time = torch.arange(taps, dtype=centre.dtype, device=centre.device) - taps // 2
    envelopes = torch.exp(-(time**2) / (2 * width[:, None] ** 2)) / (math.sqrt(2 * math.pi) * width[:, None])
    angles = centre[:, None] * time
    return envelopes * torch.stack([angles.cos(), angles.sin()])


def gaussian_kernels(width: Tensor, taps: int) -> Tensor:
    """Computes the Gaussian kernels of the low-pass, with a maximum of 1.

    Source: Zeghidour et al., arXiv:2101.08596, section 3.2; golden leaf_stage/lowpass_0.4.

    Args:
        width: Standard deviation of each kernel as a fraction of half the taps, shape (filter,).
        taps: Length of the kernels, odd.

    Returns:
        Shape (filter, taps).
    """
    half = (taps - 1) / 2
    time = torch.arange(taps, dtype=width.dtype, device=width.device) - half
    return torch.exp(-0.5 * (time / (width.clamp(2 / taps, 0.5)[:, None] * half)) ** 2)


def running_average(energies: Tensor, smoothing: Tensor) -> Tensor:
    """Computes the exponential average y[0] = x[0], y[t] = s x[t] + (1 - s) y[t - 1].

    The distance that each frame reaches back doubles from step to step, so that the number of steps is
    logarithmic in the number of frames.

    Args:
        energies: x, shape (batch, filter, frame).
        smoothing: s of each filter, in [0, 1], shape (filter,).

    Returns:
        y, shape (batch, filter, frame).
    """
    frames, decay = energies.shape[2], 1 - smoothing[:, None]
    average = torch.cat([energies[:, :, :1], smoothing[:, None] * energies[:, :, 1:]], 2)
    for doubling in range(DOUBLINGS):
        if isinstance(frames, int) and frames <= 1 << doubling:  # dynamic in an export
            break
        back = torch.sym_min(1 << doubling, frames)  # type: ignore[no-untyped-call]
        average = average + decay * functional.pad(average, (back, 0))[:, :, :frames]
        decay = decay * decay
    return average
