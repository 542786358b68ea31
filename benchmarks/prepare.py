"""Writes what the jobs need into a folder: recordings of noise, and models as the two sides read them.

    python -m benchmarks.prepare FOLDER SECONDS

A process of its own, so that the one that measures others stays small (see :mod:`benchmarks.processes`).

Conventions: each model is three files: NAME.onnx for earmark; NAME.json (record) and NAME.pt (state dict) for
the reference. mn04 and mn10 hold the same random weights on both sides. The default model is the one that
ships; its twin is the same network with random weights.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch

from earmark.errors import ModelError
from earmark.export.export import export_model
from earmark.features.front_end import FrontEnd
from earmark.hub import registry
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_info
from earmark.models import Network, create_model

FILE_RATE = 44_100  # of the recordings: most are, and it makes both sides resample
CLIP_S = 10.0


def main(folder: str, seconds: str) -> None:
    """Writes clip.wav, long.wav of so many seconds, and the models default, mn04 and mn10."""
    target = Path(folder)
    for name, length_s in (("clip", CLIP_S), ("long", float(seconds))):
        write_recording(target / f"{name}.wav", length_s)
    for architecture in ("mn04", "mn10"):
        _write_model(target / architecture, _random_record(architecture, 527, FrontEnd(), 10.0))
    try:
        shipped = registry.find()
    except ModelError:  # a working tree in which the default model was not trained yet
        front_end = FrontEnd(hop_length=512)
        _write_model(target / "default", _random_record("mn04", 18, front_end, 5.12))
        return
    shutil.copy(shipped, target / "default.onnx")
    _write_twin(target / "default", read_info(shipped))


def write_recording(path: Path, length_s: float) -> None:
    """Writes mono noise that swells twice a second, 16 bit."""
    time = np.arange(round(length_s * FILE_RATE)) / FILE_RATE
    noise = np.random.default_rng(0).standard_normal(len(time), np.float32)
    soundfile.write(path, 0.1 * noise * (1 + np.sin(4 * np.pi * time)), FILE_RATE)


def _random_record(architecture: str, num_classes: int, front_end: FrontEnd, window_s: float) -> ModelInfo:
    return ModelInfo(
        name=architecture,
        labels=tuple(f"label {index}" for index in range(num_classes)),
        front_end=front_end,
        task="multi_label",
        architecture=architecture,
        arguments={},
        window_s=window_s,
        padding="zero",
        embedding_size=_embedding_size(architecture),
    )


def _embedding_size(architecture: str) -> int:
    with torch.no_grad():
        return int(create_model(architecture).eval()(torch.zeros(1, 128, 100)).embedding.shape[1])


def _write_model(path: Path, info: ModelInfo) -> None:
    export_model(_write_twin(path, info), info, f"{path}.onnx")


def _write_twin(path: Path, info: ModelInfo) -> Network:
    torch.manual_seed(0)
    network = create_model(info.architecture, num_classes=len(info.labels), **info.arguments).eval()
    Path(f"{path}.json").write_text(info.to_json(), encoding="utf-8")
    torch.save(network.state_dict(), f"{path}.pt")
    return network


if __name__ == "__main__":
    main(*sys.argv[1:])
