"""The golden numbers of sound-clf-pytorch's networks, and the weights and inputs that they belong to."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earmark.models import Network, create_model

LOGITS = Path(__file__).resolve().parents[1] / "golden" / "sound_clf_networks.npz"


def golden_network(name: str, rule: str = "he", **arguments: Any) -> Network:
    """A network in evaluation mode whose weights follow from their names (README of the goldens)."""
    network = create_model(name, **arguments).eval()
    state = network.state_dict()
    network.load_state_dict({key: _weights(key, state, rule) for key in state})
    return network


def _weights(key: str, state: dict[str, Tensor], rule: str) -> Tensor:
    prefix, _, last = key.rpartition(".")
    shape = tuple(state[key].shape)
    drawn = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if last == "num_batches_tracked":
        return torch.tensor(0)
    if last == "running_var":
        drawn = np.abs(drawn) + 0.5
    elif last == "weight" and f"{prefix}.running_mean" in state:
        drawn = 1 + 0.1 * drawn
    elif rule == "he" and len(shape) > 1:
        drawn = drawn * np.sqrt(2 / np.prod(shape[1:]))
    else:
        drawn = 0.05 * drawn
    return torch.from_numpy(np.asarray(drawn, np.float32))


def golden_input(frames: int) -> Tensor:
    """The log-mels of the goldens: (2, 64, frames)."""
    drawn = np.random.default_rng(0).standard_normal((2, 1, 64, frames))
    return torch.from_numpy(drawn.astype(np.float32))[:, 0]


def cases() -> list[str]:
    """Every network, rule and length with golden logits, as NAME/RULE/Tframes."""
    with np.load(LOGITS) as stored:
        return [key.removesuffix("/logits") for key in stored]


@torch.no_grad()
def difference(case: str) -> float:
    """From the golden logits, relative to the largest of them; numpy's draws take most of the time."""
    name, rule, length = case.split("/")
    wanted = np.load(LOGITS)[f"{case}/logits"]
    network = golden_network(name, rule, num_classes=41)
    logits = network(golden_input(int(length.removeprefix("T")))).logits
    return float(np.abs(logits.numpy() - wanted).max() / np.abs(wanted).max())


def published(shared: Path, name: str) -> dict[str, Any]:
    """Number of parameters, and shapes of the state dict by name."""
    return json.loads((shared / "golden" / "sound_clf" / "sound_clf_models.json").read_text())[name]


def shapes(name: str) -> dict[str, list[int]]:
    """Of our state dict for 41 classes; no weights are drawn."""
    with torch.device("meta"):
        return {
            key: list(value.shape) for key, value in create_model(name, num_classes=41).state_dict().items()
        }


def count(name: str, **arguments: Any) -> int:
    """Number of parameters for 41 classes; no weights are drawn."""
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, num_classes=41, **arguments).parameters())
