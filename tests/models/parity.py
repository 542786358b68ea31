"""Compares a network with the golden one of its name."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from front_end_cases import chirps_and_clicks
from golden_weights import build_tensors, digest, read_index, read_manifest
from torch import Tensor

from earmark.features.front_end import FrontEnd
from earmark.models import Network, create_model
from earmark.models.log_mel import TorchLogMel

LENGTHS = ["synth_0.1s", "synth_1s", "synth_5s", "metro_then_synth_20s"]


def golden_names(golden: Path, family: str) -> list[str]:
    """The golden networks of a family that have numbers, in alphabetical order."""
    families = {name: entry["family"] for name, entry in read_index(golden).items()}
    files = {file.stem for file in (golden / "models").glob("*.npz")}
    return sorted(name for name in files if families.get(name) == family)


def relative(got: Tensor, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest value where that is above 1."""
    return float(np.abs(got.numpy() - wanted).max()) / max(1.0, float(np.abs(wanted).max()))


def statistics(maps: list[Tensor]) -> Tensor:
    """Mean, population standard deviation and largest magnitude of each map: (stage, 3)."""
    rows = [(m.mean(), m.std(correction=0), m.abs().max()) for m in maps]
    return torch.tensor(rows, dtype=torch.float64)


def front_end_of(mel: str) -> FrontEnd:
    """The front-end that an index entry names: m128_h320, h160, m40."""
    parts = {part[0]: int(part[1:]) for part in mel.split("_")}
    return FrontEnd(n_mels=parts.get("m", 128), hop_length=parts.get("h", 320))


def compute(waveform: np.ndarray, front_end: FrontEnd | None = None) -> Tensor:
    return TorchLogMel(front_end or FrontEnd())(torch.from_numpy(waveform)[None])


@cache
def log_mel(golden: Path, clip: str, mel: str) -> tuple[Tensor, bool]:
    """The log-mel of a clip, and whether it is the reference's own."""
    front_end = front_end_of(mel)
    file = golden / "mel" / f"{clip}_m{front_end.n_mels}_h{front_end.hop_length}.npz"
    if file.exists():
        return torch.from_numpy(np.load(file)["logmel"])[None], True
    name = {"synth": "synth_10s_32k", "metro": "metro_paris_10s_32k"}[clip]
    return compute(np.load(golden / "audio" / f"{name}.npy"), front_end), False


def of_length(golden: Path, name: str) -> np.ndarray:
    """The waveform that one of LENGTHS names."""
    synth = np.load(golden / "audio" / "synth_10s_32k.npy")
    if name.startswith("metro"):
        return np.concatenate([np.load(golden / "audio" / "metro_paris_10s_32k.npy"), synth])
    return synth[: round(32000 * float(name.removeprefix("synth_").removesuffix("s")))]


def assert_parity(network: Network, golden: Path, name: str, tolerance: float) -> None:
    """Compares keys, shapes, counts, and for two clips logits, embedding and every stage.

    The tolerance is that for the reference's own log-mel; where ours is used, it is 1e-3.
    """
    entry, wanted = read_index(golden)[name], np.load(golden / "models" / f"{name}.npz")
    manifest, state = read_manifest(golden, entry["weights"]), network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == {
        key: shape for key, (shape, *_) in manifest["tensors"].items()
    }
    assert digest(state) == manifest["sha256_of_all_tensors"]
    assert sum(parameter.numel() for parameter in network.parameters()) == entry["params"]
    for row, clip in enumerate(("synth", "metro")):
        spectrogram, exact = log_mel(golden, clip, entry["mel"])
        allowed = tolerance if exact else 1e-3
        output, maps = network(spectrogram), network.feature_maps(spectrogram)
        assert relative(output.logits[0], wanted["logits"][row]) <= allowed
        assert relative(output.embedding[0], wanted["embedding"][row]) <= allowed
        for stage, got in enumerate(statistics(maps)):
            assert relative(got, wanted["fmap_stats"][row][stage]) <= allowed, f"{clip}, stage {stage}"
        if clip == "synth":
            assert [list(stage.shape) for stage in maps] == entry["fmap_shapes"]
            for stage, got in enumerate(maps):
                means = wanted[f"fmap{stage:02}_channel_means_clip0"]
                assert relative(got.mean((0, 2, 3)), means) <= allowed, f"stage {stage}"


def assert_committed_parity(architecture: str, file: Path, name: str) -> None:
    """Compares logits, embedding and stages of the synthetic clip with numbers that lie in tests/golden."""
    stored = np.load(file)
    entry = json.loads(str(stored[f"{name}/entry"]))
    network = create_model(architecture, **entry["arguments"]).eval()
    network.load_state_dict(build_tensors(entry["manifest"]["tensors"]))
    assert digest(network.state_dict()) == entry["manifest"]["sha256_of_all_tensors"]
    spectrogram = compute(chirps_and_clicks())
    output = network(spectrogram)
    # Our own log-mel differs from the reference's at the edges of the digital silence.
    assert relative(output.logits[0], stored[f"{name}/logits"]) <= 1e-3
    assert relative(output.embedding[0], stored[f"{name}/embedding"]) <= 1e-3
    assert relative(statistics(network.feature_maps(spectrogram)), stored[f"{name}/fmap_stats"]) <= 1e-3
