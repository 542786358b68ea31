"""Published weights in small: files of random weights, and a table of their URLs."""

import hashlib
import json
from pathlib import Path

import torch
from toy import FRONT_END, lively_network

from earmark.features.front_end import FrontEnd
from earmark.model_file.info import ModelInfo
from earmark.model_file.labels import label_set

SOUNDS = ModelInfo(
    name="sounds",
    labels=label_set("audioset"),
    front_end=FrontEnd(),
    task="multi_label",
    architecture="mn01",
    arguments={},
    window_s=1.0,
    padding="repeat",
    embedding_size=96,
)
"""What the made weights are: those of the smallest published network, with a shorter window."""
SCENES = SOUNDS.changed(
    name="scenes", labels=label_set("tau_scenes"), front_end=FRONT_END, task="single_label", window_s=0.5
)
"""Weights of a network that was not published, for conversions."""


def make_weights(path: Path, info: ModelInfo = SOUNDS) -> bytes:
    """The content of a checkpoint: random weights, lively ones."""
    torch.save({"epoch": 3, "net": lively_network(info).state_dict()}, path)
    return path.read_bytes()


def write_table(path: Path, url: str, **models: dict[str, object]) -> Path:
    """A table of published weights like the one that ships; ``models`` are entries by name."""
    family = {
        "folder": f"{url}/",
        "architecture": "mn01",
        "front_end": "efficientat",
        "num_classes": 527,
        "task": "multi_label",
        "window_s": SOUNDS.window_s,
        "padding": "repeat",
        "license": "MIT",
        "source": "made for a test",
        "description": "Tags sounds",
    }
    lines = ["[families.made]", *_lines(family)]
    for name, values in models.items():
        lines += [f'[models."{name}"]', *_lines({"family": "made", "file": f"{name}.pt", **values})]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _lines(values: dict[str, object]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in values.items()]


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_lines(value)) + " }"
    return json.dumps(value)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
