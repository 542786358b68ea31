"""SincNet: a front-end of band-pass filters whose edges are learned with the network.

Source: Ravanelli and Bengio, arXiv:1808.00158; golden audax/features_frontends.npz.

Conventions: a waveform is float32 in [-1, 1], shape (batch, time); features are float32, shape
(batch, mel, frame), a band for each filter. All parameters are one number a filter, so that none is decayed
in training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.features.learned import LearnedFrontEnd
from earmark.models.layers import ChannelNorm, pad_same
from earmark.models.log_mel import check_waveform

LOWEST_HZ = 50.0
"""No filter begins lower."""
NARROWEST_HZ = 50.0
"""No filter is narrower."""
LEAST = 1e-5
"""Values below this, behind the pooling, are raised to it."""
SLOPE = 0.2
"""What negative answers of a filter are multiplied by."""


class SincNet(nn.Module):
    """Turns waveforms into features by band-pass filters, pooling by the maximum and a norm over the bands.

    Args:
        front_end: Its fixed choices, of the kind "sincnet".
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
        """The features of each waveform.

        Args:
            waveform: float32 in [-1, 1], shape (batch, time), at ``front_end.sample_rate``.

        Returns:
            float32, shape (batch, n_mels, frame), ``ceil(time / hop_length)`` frames.

        Raises:
            AudioError: If the waveform is not float32 of two dimensions.
        """
        check_waveform(waveform)
        taps, hop = self.front_end.win_length, self.front_end.hop_length
        with torch.autocast(waveform.device.type, enabled=False):
            filters = self.filters().unsqueeze(1)
            answers = functional.conv1d(waveform.unsqueeze(1), filters, padding=taps // 2)
            answers = functional.leaky_relu(answers, SLOPE)  # (batch, filter, time)
            # The zeros of the padding count as little as what is below LEAST. An export of max_pool1d would
            # fix the length.
            padded = pad_same(answers, taps, hop).unsqueeze(2)
            pooled = functional.max_pool2d(padded, (1, taps), (1, hop)).squeeze(2)
            features: Tensor = self.norm(pooled.clamp(min=LEAST))  # (batch, filter, frame)
        return features

    def edges(self) -> tuple[Tensor, Tensor]:
        """Where each filter begins and ends, in Hz: two of shape (filter,)."""
        low = LOWEST_HZ + self.low.abs()
        high = low + NARROWEST_HZ + self.band.abs()
        return low, high.clamp(float(LOWEST_HZ), self.front_end.sample_rate / 2)

    def filters(self) -> Tensor:
        """The band-pass filters, with a maximum of 1 under a Hamming window: shape (filter, taps).

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
