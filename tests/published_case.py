"""Published weights in small: files of random weights, and a table of their URLs."""

import hashlib
import json
from pathlib import Path

import torch
from toy import FRONT_END, lively_network

from earmark.model_file.info import ModelInfo
from earmark.model_file.labels import label_set

SCENES = ModelInfo(
    name="scenes",
    labels=label_set("tau_scenes"),
    front_end=FRONT_END,
    task="single_label",
    architecture="mn01",
    arguments={},
    window_s=0.5,
    padding="repeat",
    embedding_size=96,
)
"""What the made weights are."""


def make_weights(path: Path) -> bytes:
    """The content of a checkpoint: random weights of an mn01 for ten scenes, lively ones."""
    torch.save({"epoch": 3, "net": lively_network(SCENES).state_dict()}, path)
    return path.read_bytes()


def write_table(path: Path, url: str, **models: dict[str, object]) -> Path:
    """A table of published weights like the one that ships; ``models`` are entries by name."""
    defaults = {n: value for n, value in FRONT_END.to_dict().items() if value is not None}
    family = {
        "folder": f"{url}/",
        "architecture": "mn01",
        "front_end": "efficientat",
        "front_end_args": {n: defaults[n] for n in defaults if n in _CHANGED},
        "num_classes": 10,
        "task": "single_label",
        "window_s": 0.5,
        "padding": "repeat",
        "license": "MIT",
        "source": "made for a test",
        "description": "Classifies scenes",
    }
    lines = ["[families.made]", *_lines(family)]
    for name, values in models.items():
        lines += [f'[models."{name}"]', *_lines({"family": "made", "file": f"{name}.pt", **values})]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


_CHANGED = {"sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "f_max"}


def _lines(values: dict[str, object]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in values.items()]


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_lines(value)) + " }"
    return json.dumps(value)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
