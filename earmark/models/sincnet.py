"""SincNet: a front-end of band-pass filters whose edges are learned with the network.

Source: Ravanelli and Bengio, arXiv:1808.00158; golden tests/golden/audax_models.npz and
audax/features_frontends.npz.

Conventions: a waveform is float32 in [-1, 1], shape (batch, time); features are float32, shape
(batch, mel, frame), one band per filter. All parameters are of shape (filter,), so that weight decay, which
spares one-dimensional parameters, leaves them alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.features.learned import LearnedFrontEnd
from earmark.models.layers import ChannelNorm, pad_same
from earmark.models.log_mel import check_waveform

MIN_LOW_HZ = 50.0
"""Least lower edge of a filter."""
MIN_BANDWIDTH_HZ = 50.0
"""Least bandwidth of a filter."""
MIN_VALUE = 1e-5
"""Lower limit of the values after the pooling."""
SLOPE = 0.2
"""Negative slope of the leaky ReLU."""


class SincNet(nn.Module):
    """Band-pass filters, leaky ReLU, max-pooling and layer norm over the bands.

    Args:
        front_end: Fixed constants, of the kind "sincnet".
    """

    window: Tensor

    def __init__(self, front_end: LearnedFrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        edges_mel = torch.linspace(_mel(front_end.f_min), _mel(front_end.f_max), front_end.n_mels + 1)
        edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
        self.low = nn.Parameter(edges_hz[:-1].clone())
        self.band = nn.Parameter(edges_hz.diff())
        self.norm = ChannelNorm(front_end.n_mels, eps=1e-6)
        window = torch.hamming_window(front_end.win_length, periodic=False)
        self.register_buffer("window", window, persistent=False)

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
        taps, hop = self.front_end.win_length, self.front_end.hop_length
        with torch.autocast(waveform.device.type, enabled=False):
            filters = self.filters().unsqueeze(1)
            filtered = functional.conv1d(waveform.unsqueeze(1), filters, padding=taps // 2)
            filtered = functional.leaky_relu(filtered, SLOPE)  # (batch, filter, time)
            # Zeros of the padding are below MIN_VALUE anyway. In an export max_pool1d would fix the length.
            padded = pad_same(filtered, taps, hop).unsqueeze(2)  # (batch, filter, 1, time)
            pooled = functional.max_pool2d(padded, (1, taps), (1, hop)).squeeze(2)
            features: Tensor = self.norm(pooled.clamp(min=MIN_VALUE))  # (batch, filter, frame)
        return features

    def edges(self) -> tuple[Tensor, Tensor]:
        """Computes lower and upper edge of each filter in Hz, both of shape (filter,)."""
        low = MIN_LOW_HZ + self.low.abs()
        high = low + MIN_BANDWIDTH_HZ + self.band.abs()
        return low, high.clamp(float(MIN_LOW_HZ), self.front_end.sample_rate / 2)

    def filters(self) -> Tensor:
        """Computes the band-pass filters, scaled to a maximum of 1, with a Hamming window: (filter, taps).

        Source: Ravanelli and Bengio, arXiv:1808.00158, equation 4.
        """
        low, high = (edge[:, None] for edge in self.edges())
        taps = self.front_end.win_length
        time = torch.arange(1, taps // 2 + 1, device=low.device) / self.front_end.sample_rate
        angles = 2 * math.pi * time
        right = (torch.sin(high * angles) - torch.sin(low * angles)) / (math.pi * time)
        filters = torch.cat([right.flip(1), 2 * (high - low), right], 1)
        return filters / filters.amax(1, keepdim=True) * self.window


def _mel(frequency_hz: float) -> float:
    return 2595 * math.log10(1 + frequency_hz / 700)
