"""ConvNeXts for log-mel spectrograms, as in audax.

Source: Liu et al., arXiv:2201.03545, section 3; golden tests/golden/audax_models.npz.

Conventions: a spectrogram (batch, mel, frame) is a one-channel image (batch, 1, mel, frame). Unlike
the paper there is no norm after the pooling, and the GELU is the tanh approximation. Names in the state dict
are those of the paper's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.models.layers import ChannelNorm, DropPath
from earmark.models.network import Network, NetworkConfig, Output, require
from earmark.models.registry import register
from earmark.models.resnet import require_depths
from earmark.models.weight_init import init_truncated_normal, truncated_normal_

SIZES: dict[str, dict[str, object]] = {
    "convnext": {},
    "convnext_tiny": {"depths": (3, 3, 9, 3), "width": 96},
    "convnext_small": {"depths": (3, 3, 27, 3), "width": 96},
    "convnext_base": {"depths": (3, 3, 27, 3), "width": 128},
    "convnext_large": {"depths": (3, 3, 27, 3), "width": 192},
}
TOTAL_STRIDE = 32
"""Total stride of the network; smaller spectrograms are padded to this size."""
_NORM = partial(ChannelNorm, eps=1e-6)


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig(NetworkConfig):
    """Configuration of a ConvNeXt.

    Attributes:
        num_classes: Length of the logits, at least 1.
        depths: Blocks in each of the four stages.
        width: Channels of the first stage; they double from stage to stage.
        layer_scale: Initial scale of the residual branches.
        drop_path: Stochastic depth: probability of dropping the last block, increasing linearly from 0 in the
            first. The weights of audax were trained with 0.
        dropout: Dropout rate before the last layer, from 0 to below 1.
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
            require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        object.__setattr__(self, "depths", tuple(self.depths))  # TOML and JSON have lists only


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, pointwise MLP and layer scale, with a residual connection.

    Source: Liu et al., arXiv:2201.03545, figure 4.

    Args:
        channels: Input and output channels.
        layer_scale: Initial scale of the branch.
        drop_path: Probability of dropping the branch in training.
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
        """Adds the branch to the map; shapes (batch, channel, mel, frame) in and out."""
        result: Tensor = self.norm(self.dwconv(features).movedim(1, -1))  # (batch, mel, frame, channel)
        result = self.pwconv2(functional.gelu(self.pwconv1(result), approximate="tanh")) * self.gamma
        branch: Tensor = self.drop_path(result.movedim(-1, 1))
        return features + branch


@register(ConvNeXtConfig, SIZES)
class ConvNeXt(Network):
    """ConvNeXt from log-mel to logits; the embedding is the mean of the last feature map.

    Args:
        config: None for convnext_tiny.
    """

    config: ConvNeXtConfig

    def __init__(self, config: ConvNeXtConfig | None = None) -> None:
        config = config or ConvNeXtConfig()
        super().__init__(config)
        widths = [config.width << stage for stage in range(4)]
        downsample = [nn.Sequential(nn.Conv2d(1, widths[0], 4, stride=4), _NORM(widths[0]))]
        for narrow, wide in pairwise(widths):
            downsample.append(nn.Sequential(_NORM(narrow), nn.Conv2d(narrow, wide, 2, stride=2)))
        self.downsample_layers = nn.ModuleList(downsample)
        last = max(sum(config.depths) - 1, 1)
        drop_rates = (config.drop_path * index / last for index in range(last + 1))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width, config.layer_scale, next(drop_rates)) for _ in range(depth)))
            for width, depth in zip(widths, config.depths, strict=True)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(widths[-1], config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                truncated_normal_(module, 0.02)
        init_truncated_normal(self.head)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes logits and embedding of spectrograms of any length.

        Args:
            log_mel: float32, shape (batch, mel, frame); padded with zeros to at least 32 bands and frames.

        Returns:
            Logits (batch, class) and embedding (batch, channel), 768 channels at width 96.
        """
        features = _pad_to_stride(log_mel).unsqueeze(1)  # (batch, 1, mel, frame)
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            features = stage(downsample(features))
        embedding = features.mean((2, 3))  # (batch, channel, mel / 32, frame / 32) -> (batch, channel)
        return Output(self.head(self.dropout(embedding)), embedding)


def _pad_to_stride(log_mel: Tensor) -> Tensor:
    """Pads (batch, mel, frame) with zeros to the total stride at least; lengths may be dynamic."""
    padding: list[int] = []
    for length in reversed(log_mel.shape[1:]):
        padding += 0, torch.sym_max(TOTAL_STRIDE - length, 0)  # type: ignore[no-untyped-call]
    return functional.pad(log_mel, padding)
