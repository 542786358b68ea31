"""ResNetish: residual networks whose stem keeps the resolution of a log-mel spectrogram.

Source: He et al., arXiv:1512.03385, with the stride of a bottleneck in its middle convolution;
daisukelab/sound-clf-pytorch for stem and pooling; golden sound_clf/sound_clf.npz.

Conventions: a spectrogram (batch, mel, frame) becomes a one-channel image (batch, 1, mel, frame); the names
in the state dict are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from earmark.models.layers import CellPooling, initialise
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register

STAGE_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True, kw_only=True)
class ResNetishConfig(NetworkConfig):
    """All choices of a ResNetish.

    Attributes:
        num_classes: Length of the logits, at least 1.
        blocks: Residual blocks of each of the four stages.
        bottleneck: Whether blocks are bottlenecks of three convolutions instead of two.
        stem_stride: Of the first convolution.
        pool_stride: Of the max-pooling after it.
        cells: Grid, along mel and frame, that the last map is averaged in for the classifier. The tutorial's
            published scores are of stem_stride = 2, pool_stride = 1, cells = (1, 1).
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
            require(name, value, holds, f"{length} whole numbers of at least 1")
            object.__setattr__(self, name, tuple(value))  # a recipe or a record gives a list


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


class ResidualBlock(nn.Module):
    """Adds to a map what two or three convolutions make of it.

    Source: He et al., arXiv:1512.03385, figure 5.

    Args:
        in_channels: Of the map.
        width: Channels of the 3x3 convolutions; the result has four times as many with a bottleneck.
        stride: Of the first 3x3 convolution.
        bottleneck: Whether 1x1 convolutions narrow and widen the map around a single 3x3 convolution.
    """

    def __init__(self, in_channels: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        out_channels = width * self.expansion(bottleneck)
        if bottleneck:
            self.conv1, self.bn1 = _conv(in_channels, width, 1), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = _conv(width, out_channels, 1), nn.BatchNorm2d(out_channels)
        else:
            self.conv1, self.bn1 = _conv(in_channels, width, 3, stride), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.bottleneck = bottleneck
        self.norms = {f"bn{number}": (f"conv{number}",) for number in range(1, 4 if bottleneck else 3)}
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            norm = nn.BatchNorm2d(out_channels)
            self.downsample = nn.Sequential(_conv(in_channels, out_channels, 1, stride), norm)

    @staticmethod
    def expansion(bottleneck: bool) -> int:
        """How many times wider than its 3x3 convolution a block is."""
        return 4 if bottleneck else 1

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, in_channels, mel, frame) to (batch, out_channels, mel / stride, frame / stride)."""
        result: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(features)).relu()))
        if self.bottleneck:
            result = self.bn3(self.conv3(result.relu()))
        shortcut = features if self.downsample is None else self.downsample(features)
        return (result + shortcut).relu()


@register(
    ResNetishConfig,
    {
        "resnetish18": {"blocks": (2, 2, 2, 2), "bottleneck": False},
        "resnetish34": {"blocks": (3, 4, 6, 3), "bottleneck": False},
        "resnetish50": {"blocks": (3, 4, 6, 3), "bottleneck": True},
    },
)
class ResNetish(Network):
    """A residual network from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: All its choices; None for those of resnetish18.
    """

    config: ResNetishConfig
    norms: ClassVar = {"bn1": ("conv1",)}

    def __init__(self, config: ResNetishConfig | None = None) -> None:
        config = config or ResNetishConfig()
        super().__init__(config)
        channels = STAGE_WIDTHS[0]
        self.conv1, self.bn1 = _conv(1, channels, 7, config.stem_stride), nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, config.pool_stride, 1)
        stages = []
        for number, (width, count) in enumerate(zip(STAGE_WIDTHS, config.blocks, strict=True)):
            blocks = []
            for index in range(count):
                stride = 2 if number and index == 0 else 1
                blocks.append(ResidualBlock(channels, width, stride, bottleneck=config.bottleneck))
                channels = width * ResidualBlock.expansion(config.bottleneck)
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        initialise(self)
        self.pool = CellPooling(config.cells, "mean")
        # After the others were drawn: the published head starts as PyTorch makes it.
        self.fc = nn.Linear(channels * config.cells[0] * config.cells[1], config.num_classes)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of any number of spectrograms of any size.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Logits (batch, class) and embedding (batch, channel): 512 channels, 2048 of resnetish50.
        """
        features = self.feature_maps(log_mel)[-1]
        return Output(self.fc(self.pool(features).flatten(1)), features.mean((2, 3)))

    def feature_maps(self, log_mel: Tensor) -> list[Tensor]:
        """Computes the output of the stem and of each of the four stages.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Five maps of shape (batch, channel, mel, frame), ever smaller along the last two.
        """
        stem = self.maxpool(self.bn1(self.conv1(log_mel.unsqueeze(1))).relu())
        maps = [stem]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps
