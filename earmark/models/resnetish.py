"""ResNetish: ResNets for log-mel spectrograms whose stem keeps the resolution, as in sound-clf-pytorch.

Source: He et al., arXiv:1512.03385; daisukelab/sound-clf-pytorch for stem and pooling; golden
tests/golden/sound_clf_networks.npz.

Conventions: a spectrogram (batch, mel, frame) is a one-channel image (batch, 1, mel, frame). Names in the
state dict are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from earmark.models.layers import convolution
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.pooling_layers import AdaptivePool
from earmark.models.registry import register
from earmark.models.resnet import ResidualBlock, residual_stage
from earmark.models.weight_init import init_kaiming

STAGE_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True, kw_only=True)
class ResNetishConfig(NetworkConfig):
    """Configuration of a ResNetish.

    Attributes:
        num_classes: Length of the logits, at least 1.
        blocks: Residual blocks in each of the four stages.
        bottleneck: Whether blocks are bottlenecks of three convolutions instead of two.
        stem_stride: Stride of the first convolution.
        pool_stride: Stride of the max-pooling after it.
        cells: Grid, along mel and frame, of the adaptive mean pooling before the classifier. The tutorial's
            published scores are for stem_stride = 2, pool_stride = 1, cells = (1, 1).
    """

    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    bottleneck: bool = False
    stem_stride: int = 1
    pool_stride: int = 2
    cells: tuple[int, int] = (4, 6)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, length in (("blocks", 4), ("cells", 2)):
            value = getattr(self, name)
            holds = isinstance(value, list | tuple) and len(value) == length
            holds = holds and all(type(number) is int and number >= 1 for number in value)
            require(name, value, holds, f"{length} integers of at least 1")
            object.__setattr__(self, name, tuple(value))  # TOML and JSON have lists only


@register(
    ResNetishConfig,
    {
        "resnetish18": {"blocks": (2, 2, 2, 2), "bottleneck": False},
        "resnetish34": {"blocks": (3, 4, 6, 3), "bottleneck": False},
        "resnetish50": {"blocks": (3, 4, 6, 3), "bottleneck": True},
    },
)
class ResNetish(Network):
    """ResNetish from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: None for resnetish18.
    """

    config: ResNetishConfig
    norms: ClassVar = {"bn1": ("conv1",)}

    def __init__(self, config: ResNetishConfig | None = None) -> None:
        config = config or ResNetishConfig()
        super().__init__(config)
        channels = STAGE_WIDTHS[0]
        self.conv1 = convolution((1, channels), 7, stride=config.stem_stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, config.pool_stride, 1)
        stages = []
        for number, (width, depth) in enumerate(zip(STAGE_WIDTHS, config.blocks, strict=True)):
            block = partial(ResidualBlock, width=width, bottleneck=config.bottleneck, norm=nn.BatchNorm2d)
            stage, channels = residual_stage(block, channels, depth, stride=2 if number else 1)
            stages.append(stage)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        init_kaiming(self)
        self.pool = AdaptivePool(config.cells, "mean")
        # Built after the others are redrawn: the published head has PyTorch's own initial weights.
        self.fc = nn.Linear(channels * config.cells[0] * config.cells[1], config.num_classes)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any size.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel): 512 channels, 2048 for bottlenecks.
        """
        features = self.feature_maps(log_mel)[-1]  # (batch, channel, mel / 16, frame / 16) by default
        return Output(self.fc(self.pool(features).flatten(1)), features.mean((2, 3)))

    def feature_maps(self, log_mel: Tensor) -> list[Tensor]:
        """Computes the output of the stem and of each of the four stages.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Five maps of shape (batch, channel, mel, frame), with decreasing resolution.
        """
        stem = self.maxpool(self.bn1(self.conv1(log_mel.unsqueeze(1))).relu())
        maps = [stem]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps
