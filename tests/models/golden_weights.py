"""Weights of the golden networks, which follow from their names.

No golden weights are stored: they follow from their names by the rule of the goldens' README, section 3.
"""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earmark.models import Network

#: The reference's names of build arguments, where they differ from ours.
ARGUMENTS = {
    "width_mult": "width",
    "head_type": "head",
    "multihead_attention_heads": "heads",
    "se_r": "se_ratio",
    "input_dim_f": "n_mels",
    "input_dim_t": "num_frames",
    "T_max": "temperature",
    "use_dy_blocks": "dynamic_blocks",
    "min_context_size": "min_context",
    "max_context_size": "max_context",
    "dyconv_k": "kernels",
    "dyrelu_k": "relu_lines",
}
#: Flags with the opposite meaning of ours.
NEGATED = {
    "no_dyconv": "dynamic_conv",
    "no_dyrelu": "dynamic_relu",
    "no_ca": "coordinate_attention",
}


def build_tensors(tensors: dict[str, list[Any]]) -> dict[str, Tensor]:
    """Builds a state dict from a manifest's entries, key -> (shape, kind, a, b)."""
    return {key: torch.from_numpy(_build(key, *entry)) for key, entry in tensors.items()}


def _build(key: str, shape: list[int], kind: str, a: float, b: float) -> np.ndarray:
    if kind == "zero_int64":
        return np.zeros(shape, np.int64)
    z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(shape))
    if kind == "affine":
        return np.asarray(a + b * z, np.float32)
    if kind == "dyrelu_lambdas":
        return np.repeat(np.float32([1, 0.5]), shape[0] // 2)
    if kind == "dyrelu_init_v":
        return np.eye(1, shape[0], dtype=np.float32)[0]
    assert kind == "abs", f"{key}: unknown kind {kind}"
    return np.asarray(a + b * np.abs(z), np.float32)


def digest(state: dict[str, Tensor]) -> str:
    """The goldens' SHA-256 over all tensors."""
    total = hashlib.sha256()
    for key in sorted(state):
        total.update(key.encode() + np.ascontiguousarray(state[key].numpy()).tobytes())
    return total.hexdigest()


def read_manifest(golden: Path, weights: str) -> dict[str, Any]:
    """A manifest of the folder golden/efficientat."""
    return json.loads((golden / "manifests" / f"{weights}.json").read_text())


def read_index(golden: Path) -> dict[str, dict[str, Any]]:
    """What each golden network was built from, by its id."""
    return json.loads((golden / "models" / "index.json").read_text())["models"]


def own_arguments(build_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The reference's build arguments under our names."""
    return {
        NEGATED.get(name) or ARGUMENTS.get(name, name): not value if name in NEGATED else value
        for name, value in build_kwargs.items()
    }


@torch.no_grad()
def settle(network: Network) -> Network:
    """Sets running statistics that fit a network's random weights, and evaluation mode.

    With the initial ones its outputs vanish (1e-13), so that any two agree. Scales that are zero initially
    would block gradients: they become one.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        if not norm.weight.any():
            nn.init.ones_(norm.weight)
    mels = getattr(network.config, "n_mels", 128)
    generator = torch.Generator().manual_seed(7)
    # Loud and soft bands and frames, for networks that average along an axis.
    shapes = (4, mels, 100), (4, mels, 1), (4, 1, 100)
    network.train()(sum(torch.randn(shape, generator=generator) for shape in shapes))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
