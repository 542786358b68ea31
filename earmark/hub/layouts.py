"""Naming schemes of published tensors that differ from those of the architecture's state dict.

Conventions: a layout is named in the registry; "" is the architecture's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]


def _from_torchvision(tensors: Tensors) -> Tensors:
    """Renames torchvision's MobileNetV3-Large; the first convolution is summed over its input channels."""
    renamed = {}
    for name, values in tensors.items():
        squeeze = re.fullmatch(r"(features\.\d+\.block\.\d+)\.(fc[12]\..+)", name)
        if squeeze:
            name = f"{squeeze[1]}.conc_se_layers.0.{squeeze[2]}"
            if values.shape[2:] == (1, 1):  # a 1 x 1 convolution
                values = values.reshape(values.shape[:2])
        name = re.sub(r"^classifier\.0\.", "classifier.2.", name)
        name = re.sub(r"^classifier\.3\.", "classifier.5.", name)
        if name == "features.0.0.weight" and values.ndim == 4:
            values = values.sum(1, keepdims=True)
        renamed[name] = values
    return renamed


LAYOUTS: Mapping[str, Callable[[Tensors], Tensors]] = {
    "": lambda tensors: tensors,
    "torchvision": _from_torchvision,
}
"""Name of a layout -> conversion of its tensors to the architecture's state dict."""
