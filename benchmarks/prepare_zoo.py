"""Writes a recording, and the model files of published networks with random weights, into a folder.

    python -m benchmarks.prepare_zoo FOLDER [NAME ...]

Conventions: a file is named after its network (see :mod:`benchmarks.zoo`); those that are there are kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.prepare import CLIP_S, write_recording
from benchmarks.zoo import networks
from earmark.export.export import export_model
from earmark.hub.registry import Published
from earmark.model_file.info import ModelInfo
from earmark.models import Network, create_model


def main(folder: str, *names: str) -> None:
    """Writes clip.wav, and NAME.onnx for each network; for all where none is named."""
    write_recording(Path(folder) / "clip.wav", CLIP_S)
    for network in networks():
        path = Path(folder) / f"{network.name}.onnx"
        if not path.is_file() and (not names or network.name in names):
            write(network.entries[0], path)


def write(known: Published, path: Path) -> None:
    """Builds a network that was published and exports it as it starts out, untrained."""
    torch.manual_seed(0)
    network = create_model(known.architecture, num_classes=known.num_classes, **known.arguments).eval()
    export_model(network, random_record(known, network), path)


def random_record(known: Published, network: Network) -> ModelInfo:
    """The record of a published network with other weights and with labels that mean nothing."""
    with torch.no_grad():
        embedding = network.eval()(torch.zeros(1, known.front_end.n_mels, 100)).embedding
    return ModelInfo(
        name=known.name,
        labels=tuple(f"label {index}" for index in range(known.num_classes)),
        front_end=known.front_end,
        task=known.task,
        architecture=known.architecture,
        arguments=known.arguments,
        window_s=known.window_s,
        padding=known.padding,
        embedding_size=embedding.shape[1],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
