"""Naming schemes of published tensors that differ from those of the architecture's state dict.

Conventions: a layout is named in the registry; "" is the architecture's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.learned import AnyFrontEnd
from earmark.features.mel import mel_filter_bank

T = TypeVar("T")
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


_TORCHLIBROSA = ("spectrogram_extractor.", "logmel_extractor.")
_FILTERS = "logmel_extractor.melW"


def without_spectrogram(tensors: Mapping[str, T], front_end: AnyFrontEnd) -> dict[str, T]:
    """Leaves out the constants of torchlibrosa's spectrogram, which PANNs store with their weights.

    Args:
        tensors: State dict, of NumPy arrays or tensors.
        front_end: Of the model; takes the place of these constants.

    Raises:
        ModelError: If the mel filters among them are not those of the front-end.
    """
    if _FILTERS in tensors:
        stored = np.asarray(tensors[_FILTERS], np.float64).T
        own = mel_filter_bank(front_end) if isinstance(front_end, FrontEnd) else np.zeros(0)
        if stored.shape != own.shape or np.abs(stored - own).max() > 1e-3 * own.max():
            raise ModelError("its mel filters are not those of the front-end: choose another front-end")
    return {name: values for name, values in tensors.items() if not name.startswith(_TORCHLIBROSA)}


LAYOUTS: Mapping[str, Callable[[Tensors], Tensors]] = {
    "": lambda tensors: tensors,
    "torchvision": _from_torchvision,
}
"""Name of a layout -> conversion of its tensors to the architecture's state dict."""
