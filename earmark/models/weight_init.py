"""Random initial weights, as the published networks draw them.

Conventions: convolutions and linear layers are redrawn in place; norms keep PyTorch's initial values.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

_STD_OF_CUT_NORMAL = 0.87962566103423978
"""Standard deviation of a standard normal distribution that is cut at -2 and 2."""


def init_kaiming(network: nn.Module) -> None:
    """Draws convolutions by He's rule (fan out) and linear layers from N(0, 0.01); biases become zero.

    Source: torchvision's MobileNetV3, as in EfficientAT.

    Args:
        network: Redrawn in place.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def init_truncated_normal(network: nn.Module, gain: float = 1.0) -> None:
    """Draws weights of variance gain / fan in, cut at two standard deviations; biases become zero.

    Source: flax's lecun_normal and kaiming_normal, as in audax.

    Args:
        network: Redrawn in place.
        gain: 1 for LeCun's rule, 2 for He's.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw_fan_in(module.weight, module.weight[0].numel(), gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def draw_fan_in(weight: Tensor, fan_in: int, gain: float) -> None:
    """Redraws a tensor from a normal distribution of variance gain / fan in, cut at two standard deviations.

    Source: flax's lecun_normal (gain 1) and kaiming_normal (gain 2).

    Args:
        weight: Redrawn in place.
        fan_in: Inputs of each output.
        gain: Above 0.
    """
    std = math.sqrt(gain / fan_in) / _STD_OF_CUT_NORMAL
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def truncated_normal_(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    """Redraws a layer from a normal distribution cut at two standard deviations; its bias becomes zero.

    Args:
        layer: Redrawn in place.
        std: Standard deviation before the cut, above 0.
    """
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
