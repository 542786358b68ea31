"""A small convolutional network without norms: four convolutions, adaptive pooling, two linear layers.

Source: the first network of daisukelab/sound-clf-pytorch's notebook (2,490,409 parameters for 41 classes),
which extends PyTorch's example for MNIST by two convolutions and the pooling.

Conventions: a spectrogram (batch, mel, frame) is a one-channel image (batch, 1, mel, frame); names in the
state dict are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from earmark.models.layers import repeat_to_length
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.pooling_layers import AdaptivePool
from earmark.models.registry import register

CELLS = (8, 8)
"""Grid, along mel and frame, of the adaptive pooling of the last map."""


@dataclass(frozen=True, kw_only=True)
class SmallCnnConfig(NetworkConfig):
    """Configuration of a small convolutional network.

    Attributes:
        num_classes: Length of the logits, at least 1.
        embedding_size: Width of the embedding.
        map_dropout: Dropout rate of feature maps, from 0 to below 1.
        dropout: Dropout rate before the last layer, from 0 to below 1.
    """

    embedding_size: int = 128
    map_dropout: float = 0.25
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("map_dropout", "dropout"):
            value = getattr(self, name)
            require(name, value, 0 <= value < 1, "from 0 to below 1")


@register(SmallCnnConfig, {"small_cnn": {}})
class SmallCnn(Network):
    """A small network from log-mel to logits; the embedding is the input of the last layer, after a ReLU.

    Args:
        config: None for the published defaults.
    """

    config: SmallCnnConfig
    min_size = (16, 16)
    """Least mel bands and frames for the four convolutions, which pad nothing, and two poolings."""

    def __init__(self, config: SmallCnnConfig | None = None) -> None:
        config = config or SmallCnnConfig()
        super().__init__(config)
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.conv3, self.conv4 = nn.Conv2d(64, 128, 3), nn.Conv2d(128, 256, 3)
        self.map_dropout, self.dropout = nn.Dropout(config.map_dropout), nn.Dropout(config.dropout)
        self.pool = AdaptivePool(CELLS, "mean")
        self.fc1 = nn.Linear(256 * CELLS[0] * CELLS[1], config.embedding_size)
        self.fc2 = nn.Linear(config.embedding_size, config.num_classes)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame), at least 16 mel bands; repeated to at least 16
                frames.

        Returns:
            Logits (batch, class) and embedding (batch, embedding_size).

        Raises:
            ModelError: If there are too few mel bands.
        """
        maps = repeat_to_length(log_mel, *self.min_size).unsqueeze(1)
        for first, second in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            maps = functional.relu(second(functional.relu(first(maps))))
            maps = self.map_dropout(functional.max_pool2d(maps, 2))
        embedding = functional.relu(self.fc1(self.pool(maps).flatten(1)))  # from (batch, 256, *CELLS)
        return Output(self.fc2(self.dropout(embedding)), embedding)
