"""The log-mel transform in PyTorch, as training computes it; the NumPy one is ``earmark.features.log_mel``.

Conventions: a waveform is float32 in [-1, 1], shape (batch, time); a log-mel is float32, shape
(batch, mel, frame). All constants derive from the ``FrontEnd``, so no tensor of this module is stored in a
checkpoint. Variation in training is :meth:`TorchLogMel.forward_jittered`; :meth:`TorchLogMel.forward` is
deterministic.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.errors import AudioError, ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.log_mel import STANDARD_DEVIATION_FLOOR
from earmark.features.mel import analysis_window, mel_filter_bank


class TorchLogMel(nn.Module):
    """Computes the log-mel spectrograms that the networks take, always in float32.

    Source: Schmid et al., arXiv:2211.04772, section 3, for the default front-end; golden
    tests/golden/front_end.npz for all presets.

    Args:
        front_end: All constants of the transform.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        self.register_buffer("window", torch.from_numpy(analysis_window(front_end)).float(), persistent=False)
        self.register_buffer("bank", _bank(front_end), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Computes the log-mel of each waveform, identical in training and evaluation mode.

        Args:
            waveform: float32 in [-1, 1], shape (batch, time), at ``front_end.sample_rate``. It is not
                checked for NaN, which would stall an accelerator: the audio readers do that.

        Returns:
            float32, shape (batch, n_mels, frame).

        Raises:
            AudioError: If the waveform is not float32 of two dimensions, or is shorter than
                ``front_end.min_samples``.
        """
        return self._log_mel(waveform, self.bank)

    def forward_jittered(
        self, waveform: Tensor, f_min_range: int, f_max_range: int, generator: np.random.Generator
    ) -> Tensor:
        """Computes the log-mel with mel bands between randomly drawn edges, as augmentation.

        Source: EfficientAT's training front-end, there with ranges of 10 and 2000.

        Args:
            waveform: As for :meth:`forward`.
            f_min_range: ``f_min`` rises by 0 to ``f_min_range - 1`` Hz; 0 leaves it.
            f_max_range: ``f_max`` rises by ``f_max_range // 2`` less 0 to ``f_max_range - 1`` Hz; 0 leaves
                it.
            generator: Two integers are drawn from it for each call.

        Returns:
            float32, shape (batch, n_mels, frame).

        Raises:
            AudioError: As :meth:`forward`.
            ModelError: If a range is negative, or so wide that a draw could pass half the sample rate or
                leave no band.
        """
        if f_min_range < 0 or f_max_range < 0:
            raise ModelError(
                f"f_min_range and f_max_range must be at least 0, got {f_min_range}, {f_max_range}"
            )
        f_min, f_max = self.front_end.f_min, self.front_end.f_max + f_max_range // 2
        # Validates both extremes, so that too wide a range fails at once and not at some later draw.
        replace(self.front_end, f_max=f_max)
        replace(self.front_end, f_min=f_min + max(f_min_range - 1, 0), f_max=f_max - max(f_max_range - 1, 0))
        f_min += generator.integers(max(f_min_range, 1))
        f_max -= generator.integers(max(f_max_range, 1))
        bank = _bank(replace(self.front_end, f_min=float(f_min), f_max=float(f_max)))
        if waveform.is_cuda:  # copies from pinned memory do not block
            bank = bank.pin_memory().to(waveform.device, non_blocking=True)
        return self._log_mel(waveform, bank)

    def _log_mel(self, waveform: Tensor, bank: Tensor) -> Tensor:
        check_waveform(waveform)
        with torch.autocast(waveform.device.type, enabled=False):
            # (mel, bin) @ (batch, bin, frame) -> (batch, mel, frame)
            log_mel = self._compress(torch.matmul(bank, self._spectrum(waveform).transpose(1, 2)))
            return standardized_log_mel(log_mel) if self.front_end.standardize == "log_mel" else log_mel

    def _spectrum(self, waveform: Tensor) -> Tensor:
        """Computes the power spectrum: (batch, time) -> (batch, frame, bin)."""
        front_end = self.front_end
        num_frames = front_end.num_frames(waveform.shape[1])
        if front_end.standardize is True:
            waveform = standardized(waveform)
        if front_end.preemphasis:
            waveform = waveform[:, 1:] - front_end.preemphasis * waveform[:, :-1]
        padding = front_end.n_fft // 2
        padded = functional.pad(waveform, (padding, padding), mode="reflect")
        frames = padded[:, front_end.window_offset :].unfold(1, front_end.win_length, front_end.hop_length)
        # rfft pads behind the window: its position within n_fft changes only phases.
        spectrum = torch.fft.rfft(frames[:, :num_frames] * self.window, n=front_end.n_fft)
        power: Tensor = spectrum.real.square() + spectrum.imag.square()
        return power if front_end.power == 2.0 else power.pow(front_end.power / 2)

    def _compress(self, energies: Tensor) -> Tensor:
        """Applies floor, ceiling, logarithm, shift and scale: (batch, mel, frame) in and out."""
        front_end = self.front_end
        if front_end.floor_mode == "add":
            energies = energies + front_end.floor
            floor = None
        else:
            floor = front_end.floor
        if floor is not None or front_end.ceiling is not None:
            energies = energies.clamp(floor, front_end.ceiling)
        logarithms = 10 * energies.log10() if front_end.log == "db" else energies.log()
        return (logarithms + front_end.shift) / front_end.scale


def standardized(waveform: Tensor) -> Tensor:
    """Shifts and scales rows, such as waveforms (batch, time), to mean 0 and standard deviation 1."""
    # Both sides of the fraction are multiplied by 1e8: the exporter to ONNX leaves out a sum with 1e-8, and
    # silence would become NaN.
    scaled = (waveform - waveform.mean(1, keepdim=True)) / STANDARD_DEVIATION_FLOOR
    return scaled / (scaled.square().mean(1, keepdim=True).sqrt() + 1)


def standardized_log_mel(log_mel: Tensor) -> Tensor:
    """Shifts and scales log-mels (batch, mel, frame) to mean 0 and standard deviation 1."""
    # Without the first value, equal values become exactly 0, not rounding errors of their mean.
    values = (log_mel - log_mel[:, :1, :1]).flatten(1)
    return standardized(values).reshape(log_mel.shape)


def check_waveform(waveform: Tensor) -> None:
    """Raises AudioError unless a waveform is float32 of shape (batch, time)."""
    if waveform.ndim != 2 or waveform.dtype != torch.float32:
        raise AudioError(
            "the waveform must be float32 of shape (batch, time), "
            f"got {waveform.dtype} of shape {tuple(waveform.shape)}: convert it"
        )


def _bank(front_end: FrontEnd) -> Tensor:
    return torch.from_numpy(mel_filter_bank(front_end)).float()
