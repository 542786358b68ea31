"""The weights and inputs of audax's golden numbers: no weights are stored, they follow from their names.

tests/golden/audax_models.npz holds, as NETWORK/FRAMES/logits and /embedding, the outputs of audax's networks
with those weights; as FRONT_END/init_out and /pert_out, what its front-ends make of one second of the
synthetic clip. All come from golden/audax beside the project.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earmark.features.learned import LearnedFrontEnd
from earmark.models import Network, create_model
from earmark.models.flax_weights import flax_names, state_dict_from_flax
from earmark.models.waveform_network import WaveformNetwork

COMMITTED = Path(__file__).resolve().parents[1] / "golden" / "audax_models.npz"
#: Our name -> theirs.
NAMES = {
    "resnet18": "ResNet18",
    "resnet34": "ResNet34",
    "resnet50": "ResNet50",
    **{name: name for name in ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2")},
    **{name: name for name in ("convnext_tiny", "convnext_small", "convnext_base")},
}
TOLERANCE = 1e-4
"""Of the largest magnitude of the golden numbers."""


def on_meta(name: str, **arguments: Any) -> Network:
    """A network whose weights take no memory."""
    with torch.device("meta"):
        return create_model(name, **arguments)


def flax_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Path -> shape as flax has it, of a network without a front-end; 1 x 1 kernels come as matrices."""
    state = network.state_dict()
    return {path: tuple(state[key].shape[::-1]) for key, path in flax_names(network).items()}


def variables(shapes: Mapping[str, Iterable[int]], gain: float = 1.0) -> dict[str, np.ndarray]:
    """The weights by the rule of the goldens' README."""
    return {path: _drawn(path, tuple(shape), gain).astype(np.float32) for path, shape in shapes.items()}


def _drawn(path: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    n = np.random.default_rng(zlib.crc32(path.encode())).standard_normal(shape)
    match path.rpartition("/")[2]:
        case "kernel":
            return gain * n * np.sqrt(2 / np.prod(shape[:-1]))
        case "var":
            return np.abs(n) + 0.5
        case "scale":
            return 1 + 0.1 * n
        case "gamma":
            return 0.5 + 0.1 * n
        case "mean" | "bias":
            return 0.05 * n
    raise AssertionError(path)


@cache
def golden_network(name: str) -> Network:
    """A network of 527 classes with the goldens' weights."""
    network = on_meta(name).eval()
    gain = 1.2 if name == "efficientnet_b0" else 1.0
    state = state_dict_from_flax(network, variables(flax_shapes(network), gain))
    network.load_state_dict(state, assign=True)
    return network


def spectrograms(frames: int) -> Tensor:
    """The goldens' input in our layout: (2, 64, frames)."""
    drawn = np.random.default_rng(0).standard_normal((2, frames, 64, 1)).astype(np.float32)
    return torch.from_numpy(drawn[..., 0]).transpose(1, 2)


def difference(got: Tensor, wanted: np.ndarray) -> float:
    """The largest difference, as a share of the largest magnitude wanted."""
    assert got.shape == wanted.shape
    return float(np.abs(got.numpy() - wanted).max() / np.abs(wanted).max())


def assert_counts(name: str, golden: Mapping[str, Any]) -> None:
    """Numbers of weights and, where the goldens list them, their names and shapes."""
    network = on_meta(name)
    shapes = flax_shapes(network)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    wanted = golden[NAMES[name]]
    assert sum(parameter.numel() for parameter in network.parameters()) == wanted["params"]
    for part, prefix in {
        "params": "params/",
        "batch_stats": "batch_stats/",
        "params_encoder": "params/encoder/",
    }.items():
        assert sum(size for path, size in sizes.items() if path.startswith(prefix)) == wanted[part]
    assert shapes["params/fc/kernel"] == (wanted["feature_dim"], 527)
    if "shapes" in wanted:
        assert squeezed(shapes) == squeezed(wanted["shapes"])


def squeezed(shapes: Mapping[str, Iterable[int]]) -> dict[str, list[int]]:
    """Shapes without axes of 1."""
    return {path: [size for size in shape if size > 1] for path, shape in shapes.items()}


def assert_outputs(name: str, stored: Mapping[str, np.ndarray], frames: int) -> None:
    """Logits and embedding with the goldens' weights."""
    with torch.no_grad():
        output = golden_network(name)(spectrograms(frames))
    for part, got in output._asdict().items():
        assert difference(got, stored[f"{NAMES[name]}/T{frames}/{part}"]) <= TOLERANCE, part


def front_end_variables(front_end: LearnedFrontEnd, weights: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """State dict of a front-end from audax's variables, named without what stands before them."""
    bands = len(next(iter(weights.values())))
    network = WaveformNetwork(on_meta("resnet18"), replace(front_end, n_mels=bands))
    behind = variables(flax_shapes(network.network))
    given = {f"params/frontend/{path}": array for path, array in weights.items()} | behind
    state = state_dict_from_flax(network, given)
    return {key.removeprefix("features."): state[key] for key in state if key.startswith("features.")}


@torch.no_grad()
def assert_front_end(
    preset: LearnedFrontEnd,
    stored: Mapping[str, np.ndarray],
    weights: str,
    waveforms: np.ndarray,
    tolerance: float,
) -> None:
    """Features with the goldens' weights, such as "leaf40/pert"."""
    prefix, wanted = f"{weights}/", stored[f"{weights}_out"]
    given = {path.removeprefix(prefix): stored[path] for path in stored if path.startswith(prefix)}
    network = WaveformNetwork(on_meta("resnet18"), replace(preset, n_mels=wanted.shape[2]))
    network.features.load_state_dict(front_end_variables(preset, given))
    got = network.features(torch.from_numpy(waveforms)).transpose(1, 2).numpy()
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= tolerance
