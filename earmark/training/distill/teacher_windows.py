"""Waveforms of a batch -> the windows that a teacher takes, and the mean of its outputs over them.

Conventions: waveforms are float32 tensors, shape (batch, time); windows cover a waveform evenly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earmark.audio.resample import resample
from earmark.model_file.info import Padding

BATCH_SIZE = 16
"""Windows in a forward pass of a teacher."""


def even_windows(waveforms: Tensor, length: int, count: int, padding: Padding) -> Tensor:
    """Windows that cover waveforms evenly, the first at the start, the last at the end.

    Args:
        waveforms: (batch, time).
        length: Of a window, in samples.
        count: Number of windows.
        padding: Of waveforms shorter than a window.

    Returns:
        (batch, count, length).
    """
    lacking = length - waveforms.shape[-1]
    if lacking > 0 and padding == "repeat":
        waveforms = waveforms.repeat(1, -(-length // waveforms.shape[-1]))[:, :length]
    elif lacking > 0:
        waveforms = functional.pad(waveforms, (0, lacking))
    starts = np.linspace(0, waveforms.shape[-1] - length, count).round().astype(int)
    return torch.stack([waveforms[:, start : start + length] for start in starts], 1)


def mean_over_windows(logits: Sequence[Tensor], count: int) -> Tensor:
    """The mean over each waveform's ``count`` consecutive windows of batches (window, output)."""
    stacked = torch.cat(list(logits))
    return stacked.reshape(-1, count, stacked.shape[-1]).mean(1)


def at_rate(waveforms: Tensor, sample_rate: int, target_rate: int) -> Tensor:
    """Resamples waveforms (batch, time)."""
    if sample_rate == target_rate:
        return waveforms
    rows = [resample(row, sample_rate, target_rate) for row in waveforms.cpu().numpy()]
    return torch.from_numpy(np.stack(rows)).to(waveforms.device)
