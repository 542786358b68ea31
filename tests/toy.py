"""A task that is learned in seconds: tones against noise, and clips that are neither."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from earmark.features.front_end import FrontEnd
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:  # most tests do without PyTorch
    from torch import Tensor

    from earmark.models import Network
    from earmark.training.config.recipe import Recipe

SAMPLE_RATE = 8000
FRONT_END = FrontEnd(
    sample_rate=SAMPLE_RATE, n_fft=256, win_length=256, hop_length=160, n_mels=32, f_max=3500.0
)


def write_clips(folder: Path, folds: int = 2, clips_per_fold: int = 8, quiet: int = 4) -> Path:
    """Writes clips and the manifest ``clips.csv``: as many tones as noises a fold, quiet ones in fold 0."""
    generator = np.random.default_rng(0)
    rows = []
    for fold in range(1, folds + 1):
        for number in range(clips_per_fold):
            label = ("tone", "noise")[number % 2]
            rows.append((f"fold{fold}_{number}_{label}.wav", label, fold))
    rows += [(f"quiet_{number}.wav", "", 0) for number in range(quiet)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, label, _ in rows:
        soundfile.write(folder / name, sound(label, generator), SAMPLE_RATE)
    return write_manifest(folder / "clips.csv", rows)


def write_quiet(folder: Path, count: int = 5) -> Path:
    """Writes clips that are neither, of two kinds, and their manifest ``quiet.csv``."""
    generator = np.random.default_rng(1)
    rows = [(f"unseen_{number}.wav", "", 0) for number in range(2 * count)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, label, _ in rows:
        soundfile.write(folder / name, sound(label, generator), SAMPLE_RATE)
    return write_manifest(folder / "quiet.csv", rows)


def write_manifest(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "labels", "fold", "license", "author", "title", "source", "kind"))
        for number, row in enumerate(rows):
            license_name = ("CC0", "CC-BY", "CC-BY-NC")[number % 3]
            kind = "" if row[1] else ("hum", "silence")[number % 2]
            writer.writerow(
                (*row, license_name, f"Author | {number}", f"title {number}", "https://x.example", kind)
            )
    return path


def sound(label: str, generator: np.random.Generator) -> np.ndarray:
    """A tone above 600 Hz, noise, or (without a label) a deep hum; 0.3 to 0.9 s."""
    time = np.arange(round(generator.uniform(0.3, 0.9) * SAMPLE_RATE)) / SAMPLE_RATE
    if label == "noise":
        return 0.2 * generator.standard_normal(len(time))
    pitch_hz = generator.uniform(600, 3000) if label == "tone" else generator.uniform(50, 70)
    return (0.5 if label == "tone" else 0.02) * np.sin(2 * np.pi * pitch_hz * time)


def toy_values(manifest: Path, **tables: Any) -> dict[str, Any]:
    """What a recipe's file would hold; ``tables`` adds to its tables or replaces its values."""
    values: dict[str, Any] = {
        "name": "toy",
        "description": "Classifies tones and noise",
        "source": "a test",
        "command": "earmark train toy.toml",
        "cost": "seconds",
        "expected": "all right",
        "license": "MIT",
        "window_s": 0.5,
        "model": {
            "architecture": "cnn6_60k",  # few layers, which is what a tiny training takes its time for
            "arguments": {"n_mels": FRONT_END.n_mels},
        },
        "front_end": FRONT_END.to_dict(),
        "data": {
            "sources": [{"manifests": [str(manifest)]}],
            "folds": [1, 2],
            "cache": True,
            "cache_folder": str(Path(manifest).parent / "decoded"),
        },
        "augment": {
            "roll_s": 0.2,
            "gain_db": [-6, 3],
            "mixup_alpha": 0.3,
            "mask_mels": 4,
            "f_max_range": 200,
        },
        "optimizer": {"learning_rate": 3e-3, "batch_size": 4, "epochs": 3, "ema_decay": 0.5},
        "evaluation": {"every_epochs": 2},
    }
    for name, value in tables.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return values


def toy_recipe(manifest: Path, **tables: Any) -> "Recipe":
    from earmark.training.config.recipe import Recipe

    return Recipe.model_validate(toy_values(manifest, **tables))


def lively_network(info: ModelInfo) -> "Network":
    """A network of random weights, but with running statistics and logits that fit its input."""
    import torch

    from earmark.models import create_model
    from earmark.models.log_mel import TorchLogMel

    torch.manual_seed(0)
    network = create_model(info.architecture, num_classes=len(info.labels), **info.arguments)
    with torch.no_grad():
        log_mels = TorchLogMel(info.front_end)(_sounds(info))
        for _ in range(20):
            network(log_mels)
        logits, last = network.eval()(log_mels).logits, list(network.modules())[-1]
        last.bias.sub_(logits.mean(0)).div_(logits.std())
        last.weight.div_(logits.std())
    return network


def _sounds(info: ModelInfo) -> "Tensor":
    """Tones in noise of many pitches and levels, as long as a window: (32, time)."""
    import torch

    rate = info.front_end.sample_rate
    time = torch.arange(round(info.window_s * rate)) / rate
    pitches_hz = 200 * 16 ** torch.rand(32, 1)
    return 10 ** -(2 * torch.rand(32, 1)) * (
        torch.rand(32, 1) * torch.sin(2 * torch.pi * pitches_hz * time)
        + torch.rand(32, 1) * torch.randn(32, len(time))
    )
