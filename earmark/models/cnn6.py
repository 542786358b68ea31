"""Cnn6_60k, SP4ASC's small network for acoustic scenes, built of separable convolutions.

Source: valeoai/SP4ASC (Apache-2.0), DCASE 2021 task 1a; golden sp4asc/sp4asc.npz.

Conventions: inside the network maps are (batch, channel, frame, mel), as the published kernels need them;
inputs and ``feature_maps`` are (..., mel, frame) as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import conv2d

from earmark.errors import ModelError
from earmark.models.layers import repeat_to_length
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register
from earmark.models.spec_augment import SpecAugment

CHANNELS = (1, 64, 128, 128, 128)
MIN_SIZE = 2 ** (len(CHANNELS) - 1)
"""Least mel bands and frames for the four poolings."""


@dataclass(frozen=True, kw_only=True)
class Cnn6Config(NetworkConfig):
    """Configuration of a Cnn6_60k.

    Attributes:
        num_classes: Length of the logits, at least 1.
        n_mels: Mel bands of the spectrograms, each with its own norm; at least 16.
        dropout: Dropout rate of the head, from 0 to below 1.
        spec_augment: SpecAugment after the norm of the mel bands, in training: limit of the width of a stripe
            of frames, number of such stripes, the same two for mel bands. The published networks were trained
            with (128, 2, 32, 2) or, with mixup, (128, 2, 16, 2).
    """

    n_mels: int = 256
    dropout: float = 0.2
    spec_augment: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require("n_mels", self.n_mels, self.n_mels >= MIN_SIZE, f"at least {MIN_SIZE}")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "from 0 to below 1")
        mask = self.spec_augment
        holds = isinstance(mask, list | tuple) and len(mask) == 4
        holds = holds and all(type(value) is int and value >= 0 for value in mask)
        require("spec_augment", mask, holds, "four integers, none below 0")
        object.__setattr__(self, "spec_augment", tuple(mask))  # TOML and JSON have lists only


class SeparableConv(nn.Module):
    """Pointwise convolution, sum of depthwise convolutions along frames and along mel, norm, mean pooling.

    Args:
        channels: Input and output channels.
    """

    norms: ClassVar = {"bn": ("sp_conv1", "sp_conv2")}

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        width = channels[1]
        self.ch_conv1 = nn.Conv2d(*channels, 1, bias=False)
        self.sp_conv1 = nn.Conv2d(
            width, width, (3, 1), padding=(2, 0), dilation=(2, 1), groups=width, bias=False
        )
        self.sp_conv2 = nn.Conv2d(
            width, width, (1, 3), padding=(0, 2), dilation=(1, 2), groups=width, bias=False
        )
        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.AvgPool2d(2)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, channel, frame, mel) to (batch, channel, frame // 2, mel // 2)."""
        pooled: Tensor = self.pool(self.bn(self._convolve(features)).relu())
        return pooled

    def _convolve(self, features: Tensor) -> Tensor:
        """Sums both depthwise convolutions; of one channel, training merges the kernels: half the time."""
        depthwise = (self.sp_conv1, self.sp_conv2)
        if not self.training or features.shape[1] > 1:
            mixed = self.ch_conv1(features)
            along_frame, along_mel = (conv(mixed) for conv in depthwise)
        else:
            kernels = [self.ch_conv1.weight * conv.weight for conv in depthwise]
            along_frame, along_mel = (
                conv2d(features, kernel, conv.bias, padding=conv.padding, dilation=conv.dilation)
                for kernel, conv in zip(kernels, depthwise, strict=True)
            )
        summed: Tensor = along_frame + along_mel
        return summed


@register(Cnn6Config, {"cnn6_60k": {}})
class Cnn6(Network):
    """Cnn6_60k from log-mel to logits.

    The embedding is the input of the head: the map averaged over mel, then its maximum over frames plus its
    mean over frames.

    Args:
        config: None for the published defaults.
    """

    config: Cnn6Config

    def __init__(self, config: Cnn6Config | None = None) -> None:
        config = config or Cnn6Config()
        super().__init__(config)
        limit, count, mel_limit, mel_count = config.spec_augment
        width = CHANNELS[-1]
        self.bn0 = nn.BatchNorm2d(config.n_mels)
        self.spec_augmenter = SpecAugment((limit, count), (mel_limit, mel_count))
        self.conv1, self.conv2, self.conv3, self.conv4 = map(SeparableConv, pairwise(CHANNELS))
        self.dropout = nn.Dropout(config.dropout)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, config.num_classes)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32 in decibels, shape (batch, mel, frame); repeated to at least 16 frames.

        Returns:
            Logits (batch, class) and embedding (batch, 128).

        Raises:
            ModelError: If the number of mel bands differs from ``config.n_mels``.
        """
        averaged = self.feature_maps(log_mel)[-1].mean(2)  # (batch, channel, frame)
        embedding = averaged.amax(2) + averaged.mean(2)
        hidden = self.fc1(self.dropout(embedding)).relu()
        return Output(self.fc2(self.dropout(hidden)), embedding)

    def feature_maps(self, log_mel: Tensor) -> list[Tensor]:
        """Computes the output of each of the four convolutions.

        Args:
            log_mel: As for forward.

        Returns:
            Four maps of shape (batch, channel, mel, frame), each of half the resolution.

        Raises:
            ModelError: As for forward.
        """
        if log_mel.shape[1] != self.config.n_mels:
            raise ModelError(
                f"the network needs {self.config.n_mels} mel bands, got {log_mel.shape[1]}: use its own "
                f"front-end, or build it with n_mels = {log_mel.shape[1]}"
            )
        log_mel = repeat_to_length(log_mel, MIN_SIZE, MIN_SIZE)
        normed = self.bn0(log_mel.unsqueeze(3))  # (batch, mel, frame, 1)
        masked = self.spec_augmenter(normed.transpose(1, 3).transpose(2, 3))  # (batch, 1, mel, frame)
        maps = [masked.transpose(2, 3)]  # (batch, 1, frame, mel)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            maps.append(conv(maps[-1]))
        return [features.transpose(2, 3) for features in maps[1:]]
