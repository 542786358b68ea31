"""Cnn14 of PANNs: six blocks of two convolutions, mean over mel, and two linear layers.

Source: Kong et al., PANNs, arXiv:1912.10211, and its program, qiuqiangkong/audioset_tagging_cnn (80,753,615
parameters for 527 classes). Not compared with the published weights.

Conventions: inside the network maps are (batch, channel, frame, mel), as the published kernels need them;
inputs are (batch, mel, frame) as everywhere. Names in the state dict are the published ones, without those of
the spectrogram, which a front-end computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from earmark.errors import ModelError
from earmark.models.layers import repeat_to_length
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register

BLOCKS = 6
MIN_SIZE = 2 ** (BLOCKS - 1)
"""Least mel bands and frames for the five poolings; the last block has none."""
BLOCK_DROPOUT = 0.2
"""Dropout rate after each block."""


@dataclass(frozen=True, kw_only=True)
class Cnn14Config(NetworkConfig):
    """Configuration of a Cnn14.

    Attributes:
        num_classes: Length of the logits, at least 1.
        n_mels: Mel bands of the spectrograms, each with its own norm; at least 32.
        width: Channels of the first block; each block has twice those of the one before it.
        dropout: Dropout rate before the first linear layer, from 0 to below 1.
    """

    n_mels: int = 64
    width: int = 64
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require("n_mels", self.n_mels, self.n_mels >= MIN_SIZE, f"at least {MIN_SIZE}")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "from 0 to below 1")


class ConvBlock(nn.Module):
    """Two convolutions of 3 x 3, each with norm and ReLU, then mean pooling.

    Args:
        channels: Input and output channels.
    """

    norms: ClassVar = {"bn1": ("conv1",), "bn2": ("conv2",)}

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        width = channels[1]
        self.conv1 = nn.Conv2d(*channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, features: Tensor, pool: int) -> Tensor:
        """Maps (batch, channel, frame, mel) to (batch, channel, frame // pool, mel // pool)."""
        features = self.bn1(self.conv1(features)).relu()
        features = self.bn2(self.conv2(features)).relu()
        return functional.avg_pool2d(features, pool) if pool > 1 else features


@register(Cnn14Config, {"cnn14": {}})
class Cnn14(Network):
    """Cnn14 from log-mel to logits; the embedding is the first linear layer's output after a ReLU.

    Args:
        config: None for the published defaults.
    """

    config: Cnn14Config

    def __init__(self, config: Cnn14Config | None = None) -> None:
        config = config or Cnn14Config()
        super().__init__(config)
        self.bn0 = nn.BatchNorm2d(config.n_mels)
        widths = (1, *(config.width * 2**block for block in range(BLOCKS)))
        for number, channels in enumerate(pairwise(widths), 1):
            self.add_module(f"conv_block{number}", ConvBlock(channels))
        self.dropout = nn.Dropout(config.dropout)
        self.fc1 = nn.Linear(widths[-1], widths[-1])
        self.fc_audioset = nn.Linear(widths[-1], config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        for layer in (self.fc1, self.fc_audioset):
            nn.init.zeros_(layer.bias)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32 in decibels, shape (batch, mel, frame); repeated to at least 32 frames.

        Returns:
            Logits (batch, class) and embedding (batch, 32 * width).

        Raises:
            ModelError: If the number of mel bands differs from ``config.n_mels``.
        """
        if log_mel.shape[1] != self.config.n_mels:
            raise ModelError(
                f"the network needs {self.config.n_mels} mel bands, got {log_mel.shape[1]}: use its own "
                f"front-end, or build it with n_mels = {log_mel.shape[1]}"
            )
        log_mel = repeat_to_length(log_mel, MIN_SIZE, MIN_SIZE)
        features = self.bn0(log_mel.unsqueeze(3)).transpose(1, 3)  # (batch, 1, frame, mel)
        for number in range(1, BLOCKS + 1):
            features = self.get_submodule(f"conv_block{number}")(features, 2 if number < BLOCKS else 1)
            features = functional.dropout(features, BLOCK_DROPOUT, self.training)
        frames = features.mean(3)  # (batch, channel, frame)
        embedding = self.fc1(self.dropout(frames.amax(2) + frames.mean(2))).relu()
        return Output(self.fc_audioset(embedding), embedding)
