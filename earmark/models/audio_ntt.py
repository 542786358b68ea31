"""AudioNTT2020, the network of BYOL-A: three convolutions, and two linear layers for each frame.

Source: Niizumi et al., BYOL for Audio, arXiv:2103.06695, and its program, nttcslab/byol-a.

Conventions: a spectrogram (batch, mel, frame) is a one-channel image (batch, 1, mel, frame). Names in the
state dict are the published ones, which have no classifier: here it is ``head``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.models.layers import repeat_to_length
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register

WIDTH = 64
"""Channels of each convolution."""
STRIDE = 8
"""Mel bands and frames that three poolings reduce to one."""


@dataclass(frozen=True, kw_only=True)
class AudioNttConfig(NetworkConfig):
    """Configuration of an AudioNTT2020.

    Attributes:
        num_classes: Length of the logits, at least 1.
        n_mels: Mel bands of the spectrograms, at least 8.
        embedding_size: Width of the embedding; the authors published 512, 1024 and 2048.
        dropout: Dropout rate between the linear layers, from 0 to below 1.
    """

    n_mels: int = 64
    embedding_size: int = 512
    dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        require("n_mels", self.n_mels, self.n_mels >= STRIDE, f"at least {STRIDE}")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "from 0 to below 1")


@register(AudioNttConfig, {"audio_ntt2020": {}})
class AudioNtt(Network):
    """AudioNTT2020 from log-mel to logits.

    The embedding is the maximum over frames plus the mean over frames; a linear layer classifies it.

    Args:
        config: None for the published defaults.
    """

    config: AudioNttConfig

    def __init__(self, config: AudioNttConfig | None = None) -> None:
        config = config or AudioNttConfig()
        super().__init__(config)
        stages: list[nn.Module] = []
        for channels in (1, WIDTH, WIDTH):
            convolution = nn.Conv2d(channels, WIDTH, 3, padding=1)
            stages += [convolution, nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*stages)
        size = config.embedding_size
        first = nn.Linear(WIDTH * (config.n_mels // STRIDE), size)
        self.fc = nn.Sequential(
            first, nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(size, size), nn.ReLU()
        )
        self.head = nn.Linear(size, config.num_classes)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame); repeated to at least 8 frames.

        Returns:
            Logits (batch, class) and embedding (batch, embedding_size).

        Raises:
            ModelError: If the number of mel bands differs from ``config.n_mels``.
        """
        if log_mel.shape[1] != self.config.n_mels:
            raise ModelError(
                f"the network needs {self.config.n_mels} mel bands, got {log_mel.shape[1]}: use its own "
                f"front-end, or build it with n_mels = {log_mel.shape[1]}"
            )
        maps = self.features(repeat_to_length(log_mel, STRIDE, STRIDE).unsqueeze(1))
        rows = maps.permute(0, 3, 2, 1).flatten(2)  # (batch, frame, mel * channel)
        frames = self.fc(rows)
        embedding = frames.amax(1) + frames.mean(1)
        return Output(self.head(embedding), embedding)
