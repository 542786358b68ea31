"""VGGish and AlexNet for log-mel spectrograms: stacks of convolutions, then wide linear layers.

Source: Hershey et al., arXiv:1609.09430 (VGGish); Krizhevsky, arXiv:1404.5997, with batch norms (AlexNet);
daisukelab/sound-clf-pytorch for their pooling; golden tests/golden/sound_clf_networks.npz.

Conventions: a spectrogram (batch, mel, frame) is a one-channel image (batch, 1, mel, frame); names in the
state dict are the published ones. The linear layers take the map flattened as (channel, mel, frame): weights
ported from Google's VGGish, which flattens (frame, mel, channel), have to be permuted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from earmark.models.layers import repeat_to_length
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.pooling_layers import AdaptivePool
from earmark.models.registry import register

CELLS = (4, 6)
"""Grid, along mel and frame, of the adaptive pooling of the last map in both networks."""


@dataclass(frozen=True)
class Layer:
    """A convolution, and whether max-pooling follows."""

    channels: int
    kernel: int = 3
    padding: int = 1
    stride: tuple[int, int] = (1, 1)
    pooled: bool = False


def convolutions(layers: Iterable[Layer], *, pool: int, normed: bool) -> list[nn.Module]:
    """Builds a stack of convolutions with biases.

    Args:
        layers: In order, from the spectrogram on.
        pool: Kernel of the max-poolings, whose stride is 2.
        normed: Whether a batch norm follows each convolution.

    Returns:
        For each layer: convolution, norm where ``normed``, ReLU, max-pooling where ``pooled``.
    """
    modules: list[nn.Module] = []
    channels = 1
    for layer in layers:
        modules.append(nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, layer.padding))
        if normed:
            modules.append(nn.BatchNorm2d(layer.channels))
        modules.append(nn.ReLU(inplace=True))
        if layer.pooled:
            modules.append(nn.MaxPool2d(pool, 2))
        channels = layer.channels
    return modules


@dataclass(frozen=True, kw_only=True)
class VGGishConfig(NetworkConfig):
    """Configuration of a VGGish.

    Attributes:
        num_classes: Length of the logits, at least 1.
        hidden: Width of the two linear layers before the embedding.
        embedding_size: Width of the embedding.
    """

    hidden: int = 4096
    embedding_size: int = 128


@register(VGGishConfig, {"vggish": {}})
class VGGish(Network):
    """VGGish from log-mel to logits; the embedding is the input of the head, after a ReLU.

    Args:
        config: None for the published defaults.
    """

    config: VGGishConfig
    min_size = (8, 8)
    """Least mel bands and frames for the three poolings."""

    def __init__(self, config: VGGishConfig | None = None) -> None:
        config = config or VGGishConfig()
        super().__init__(config)
        layers = [Layer(64, pooled=True), Layer(128, pooled=True)]
        layers += [Layer(256), Layer(256, pooled=True), Layer(512), Layer(512)]
        stack = convolutions(layers, pool=2, normed=False)
        self.features = nn.Sequential(*stack, AdaptivePool(CELLS, "max"))
        self.embeddings = nn.Sequential(
            nn.Linear(512 * CELLS[0] * CELLS[1], config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.embedding_size),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(config.embedding_size, config.num_classes)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame), at least 8 mel bands; repeated to at least 8 frames.

        Returns:
            Logits (batch, class) and embedding (batch, embedding_size).

        Raises:
            ModelError: If there are too few mel bands.
        """
        cells = self.features(repeat_to_length(log_mel, *self.min_size).unsqueeze(1))  # (batch, 512, *CELLS)
        embedding = self.embeddings(cells.flatten(1))
        return Output(self.head(embedding), embedding)


@dataclass(frozen=True, kw_only=True)
class AlexNetConfig(NetworkConfig):
    """Configuration of an AlexNet.

    Attributes:
        num_classes: Length of the logits, at least 1.
        hidden: Width of the two linear layers before the head.
        dropout: Dropout rate before each of them, from 0 to below 1.
    """

    hidden: int = 4096
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require("dropout", self.dropout, 0 <= self.dropout < 1, "from 0 to below 1")


@register(AlexNetConfig, {"alexnet": {}})
class AlexNet(Network):
    """AlexNet with batch norms from log-mel to logits; the embedding is the input of its last layer.

    Args:
        config: None for the published defaults.
    """

    config: AlexNetConfig
    min_size = (21, 35)
    """Least mel bands and frames for the first convolution and the three poolings."""

    def __init__(self, config: AlexNetConfig | None = None) -> None:
        config = config or AlexNetConfig()
        super().__init__(config)
        layers = [Layer(64, kernel=11, padding=2, stride=(1, 2), pooled=True)]
        layers += [Layer(192, kernel=5, padding=2, pooled=True)]
        layers += [Layer(384), Layer(256), Layer(256, pooled=True)]
        self.features = nn.Sequential(*convolutions(layers, pool=3, normed=True))
        self.pool = AdaptivePool(CELLS, "mean")
        self.classifier = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(256 * CELLS[0] * CELLS[1], config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.num_classes),
        )

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame), at least 21 mel bands; repeated to at least 35
                frames.

        Returns:
            Logits (batch, class) and embedding (batch, hidden), after a ReLU.

        Raises:
            ModelError: If there are too few mel bands.
        """
        cells = self.pool(self.features(repeat_to_length(log_mel, *self.min_size).unsqueeze(1)))
        *layers, last = self.classifier
        embedding = cells.flatten(1)  # (batch, 256 * cells), then (batch, hidden)
        for layer in layers:
            embedding = layer(embedding)
        return Output(last(embedding), embedding)
