"""ConvNeXts for log-mel spectrograms, as audax builds them.

Source: Liu et al., arXiv:2201.03545, section 3; golden audax/models.npz.

Conventions: a spectrogram (batch, mel, frame) becomes a one-channel image (batch, 1, mel, frame). Against the
paper there is no norm behind the pooling and the GELU is tanh's. The names in the state dict are those of the
paper's own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.models.layers import ChannelNorm, DropPath, draw_truncated, initialise_truncated
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register
from earmark.models.resnet import require_depths

SIZES: dict[str, dict[str, object]] = {
    "convnext_tiny": {"depths": (3, 3, 9, 3), "width": 96},
    "convnext_small": {"depths": (3, 3, 27, 3), "width": 96},
    "convnext_base": {"depths": (3, 3, 27, 3), "width": 128},
}
SHRINKS = 32
"""How many times narrower and shorter the last feature map is; less than that is padded to it."""
_NORM = partial(ChannelNorm, eps=1e-6)


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig(NetworkConfig):
    """All choices of a ConvNeXt.

    Attributes:
        num_classes: Length of the logits, at least 1.
        depths: Blocks of each of the four stages.
        width: Channels of the first stage; each later one has twice as many.
        layer_scale: What the scales of the blocks' branches begin with.
        drop_path: Probability of leaving out the branch of the last block in training, rising linearly to
            that from 0 in the first. The weights of audax were trained with 0.
        dropout: Share of the embedding's values dropped before the last layer in training.
    """

    depths: tuple[int, int, int, int] = (3, 3, 9, 3)
    width: int = 96
    layer_scale: float = 1e-6
    drop_path: float = 0.0
    dropout: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_depths(self.depths)
        for name in ("drop_path", "dropout"):
            require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "a number from 0 to below 1")
        object.__setattr__(self, "depths", tuple(self.depths))  # a recipe or a record gives a list


class ConvNeXtBlock(nn.Module):
    """Filters each channel by itself, mixes the channels at each position, adds that to the map.

    Args:
        channels: Of the map.
        layer_scale: What the scales of the branch begin with.
        drop_path: Probability of leaving the branch out in training.
    """

    def __init__(self, channels: int, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, features: Tensor) -> Tensor:
        """Computes the next map; shapes (batch, channel, mel, frame) in and out."""
        result: Tensor = self.norm(self.dwconv(features).movedim(1, -1))  # (batch, mel, frame, channel)
        result = self.pwconv2(functional.gelu(self.pwconv1(result), approximate="tanh")) * self.gamma
        branch: Tensor = self.drop_path(result.movedim(-1, 1))
        return features + branch


@register(ConvNeXtConfig, SIZES)
class ConvNeXt(Network):
    """A ConvNeXt from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: All its choices; None for those of convnext_tiny.
    """

    config: ConvNeXtConfig

    def __init__(self, config: ConvNeXtConfig | None = None) -> None:
        config = config or ConvNeXtConfig()
        super().__init__(config)
        widths = [config.width << stage for stage in range(4)]
        steps: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(1, widths[0], 4, stride=4), _NORM(widths[0])),
        ]
        for narrow, wide in pairwise(widths):
            steps.append(nn.Sequential(_NORM(narrow), nn.Conv2d(narrow, wide, 2, stride=2)))
        self.downsample_layers = nn.ModuleList(steps)
        last = max(sum(config.depths) - 1, 1)
        shares = (config.drop_path * index / last for index in range(last + 1))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width, config.layer_scale, next(shares)) for _ in range(depth)))
            for width, depth in zip(widths, config.depths, strict=True)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(widths[-1], config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                draw_truncated(module, 0.02)
        initialise_truncated(self.head)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of any number of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame); fewer than 32 bands or frames are filled up with
                zeros.

        Returns:
            Logits (batch, class) and embedding (batch, channel), 768 channels at width 96.
        """
        features = _filled_up(log_mel).unsqueeze(1)
        for step, stage in zip(self.downsample_layers, self.stages, strict=True):
            features = stage(step(features))
        embedding = features.mean((2, 3))  # (batch, channel, mel / 32, frame / 32) -> (batch, channel)
        return Output(self.head(self.dropout(embedding)), embedding)


def _filled_up(log_mel: Tensor) -> Tensor:
    """Adds zeros above and behind, up to the size of one position of the last map; lengths may be open."""
    padding: list[int] = []
    for length in reversed(log_mel.shape[1:]):
        padding += 0, torch.sym_max(SHRINKS - length, 0)  # type: ignore[no-untyped-call]
    return functional.pad(log_mel, padding)
