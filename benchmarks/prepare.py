"""Writes the recordings and model files that the benchmarks need.

    python -m benchmarks.prepare jobs FOLDER SECONDS
    python -m benchmarks.prepare networks FOLDER [NAME ...]
    python -m benchmarks.prepare engines FOLDER
    python -m benchmarks.prepare archive FOLDER SECONDS

Runs in a process of its own, so that the process that measures stays small (see :mod:`benchmarks.processes`).

Conventions: weights are random, recordings are noise. For the main jobs each model is three files: NAME.onnx
for earmark; NAME.json (model info) and NAME.pt (state dict) for the reference. The default model is the one
that ships; its counterpart for the reference is the same network with random weights. Networks and engines
keep files that exist.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.archive import CLIPS
from benchmarks.networks import networks
from earmark.errors import ModelError
from earmark.export.export import export_model
from earmark.features.front_end import FrontEnd
from earmark.hub import registry
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info, read_info, read_model_file
from earmark.models import Network, create_model

FILE_RATE = 44_100  # the most common rate; both sides have to resample it
CLIP_S = 10.0


def prepare_jobs(folder: Path, seconds: float) -> None:
    """Writes clip.wav, long.wav of that length, and the models default, mn04 and mn10."""
    for name, length_s in (("clip", CLIP_S), ("long", seconds)):
        write_recording(folder / f"{name}.wav", length_s)
    for architecture in ("mn04", "mn10"):
        _write_model(folder / architecture, _random_info(architecture, 527, FrontEnd(), 10.0))
    try:
        shipped = registry.find()
    except ModelError:  # a working tree without the default model
        _write_model(folder / "default", _random_info("mn04", 18, FrontEnd(hop_length=512), 5.12))
        return
    shutil.copy(shipped, folder / "default.onnx")
    _write_reference(folder / "default", read_info(shipped))


def prepare_networks(folder: Path, *names: str) -> None:
    """Writes clip.wav, and NAME.onnx for each published network, or for those named."""
    write_recording(folder / "clip.wav", CLIP_S)
    for network in networks():
        path = folder / f"{network.name}.onnx"
        if not path.is_file() and (not names or network.name in names):
            known = network.entries[0]
            built = _random_network(known.architecture, known.num_classes, known.arguments)
            size = _embedding_size(built, known.front_end.n_mels)
            export_model(built, known.model_info(size), path)


def prepare_engines(folder: Path) -> None:
    """Writes clip.wav, mn10.onnx and mn10_int8.onnx."""
    if not (folder / "mn10.onnx").is_file():
        write_recording(folder / "clip.wav", CLIP_S)
        _write_model(folder / "mn10", _random_info("mn10", 527, FrontEnd(), 10.0))
    if not (folder / "mn10_int8.onnx").is_file():
        noise = np.random.default_rng(0).standard_normal((4, 1, 128, 1000)).astype(np.float32)
        write_atomically(folder / "mn10_int8.onnx", quantized(folder / "mn10.onnx", list(noise)))


def prepare_archive(folder: Path, seconds: float) -> None:
    """Writes 000.ogg to 039.ogg of 5 s, long.wav, mn04.onnx, mn10.onnx and mn10_int8.onnx."""
    prepare_engines(folder)
    _write_model(folder / "mn04", _random_info("mn04", 527, FrontEnd(), 10.0))
    write_recording(folder / "long.wav", seconds)
    generator = np.random.default_rng(0)
    for number in range(CLIPS):
        noise = 0.1 * generator.standard_normal(5 * FILE_RATE, np.float32)
        swell = 1 + np.sin(np.arange(len(noise)) * (4 * np.pi / FILE_RATE))
        soundfile.write(folder / f"{number:03}.ogg", noise * swell, FILE_RATE)


def write_recording(path: Path, length_s: float) -> None:
    """Writes mono noise that swells twice a second, 16 bit."""
    time = np.arange(round(length_s * FILE_RATE)) / FILE_RATE
    noise = np.random.default_rng(0).standard_normal(len(time), np.float32)
    soundfile.write(path, 0.1 * noise * (1 + np.sin(4 * np.pi * time)), FILE_RATE)


def _random_network(architecture: str, num_classes: int, arguments: Mapping[str, Any]) -> Network:
    torch.manual_seed(0)
    return create_model(architecture, num_classes=num_classes, **arguments).eval()


@torch.no_grad()
def _embedding_size(network: Network, n_mels: int) -> int:
    return int(network(torch.zeros(1, n_mels, 100)).embedding.shape[1])


def _random_info(architecture: str, num_classes: int, front_end: FrontEnd, window_s: float) -> ModelInfo:
    return ModelInfo(
        name=architecture,
        labels=tuple(f"label {index}" for index in range(num_classes)),
        front_end=front_end,
        task="multi_label",
        architecture=architecture,
        arguments={},
        window_s=window_s,
        padding="zero",
        embedding_size=_embedding_size(create_model(architecture).eval(), front_end.n_mels),
    )


def _write_model(path: Path, info: ModelInfo) -> None:
    export_model(_write_reference(path, info), info, f"{path}.onnx")


def _write_reference(path: Path, info: ModelInfo) -> Network:
    network = _random_network(info.architecture, len(info.labels), info.arguments)
    Path(f"{path}.json").write_text(info.to_json(), encoding="utf-8")
    torch.save(network.state_dict(), f"{path}.pt")
    return network


def quantized(path: Path, log_mels: list[NDArray[np.float32]]) -> bytes:
    """A model file with its 1 x 1 convolutions quantised to int8, per channel and statically.

    Args:
        path: Path of the model file.
        log_mels: Inputs to take the ranges from, each (batch, mel, frame).
    """
    content, info = read_model_file(path)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(log_mels)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            found = next(self._left, None)
            return None if found is None else {info.graph_input: found}

    with tempfile.TemporaryDirectory() as name:
        plain, shaped, done = (Path(name) / f"{step}.onnx" for step in ("plain", "shaped", "done"))
        model = onnx.load_from_string(content)
        del model.metadata_props[:]
        onnx.save(model, plain)
        quant_pre_process(plain, shaped, skip_optimization=True, skip_symbolic_shape=True)
        weights = {tensor.name: tensor.dims for tensor in onnx.load(shaped).graph.initializer}
        pointwise = [
            node.name
            for node in onnx.load(shaped).graph.node
            if node.op_type == "Conv" and list(weights[node.input[1]][2:]) == [1, 1]
        ]
        quantize_static(
            shaped,
            done,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=pointwise,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},
        )
        model = onnx.load(done)
        del model.metadata_props[:]
        return attach_info(model.SerializeToString(), info)


def main(kind: str, folder: str, *arguments: str) -> None:
    """Writes the files of one kind."""
    if kind == "jobs":
        prepare_jobs(Path(folder), float(arguments[0]))
    elif kind == "networks":
        prepare_networks(Path(folder), *arguments)
    elif kind == "archive":
        prepare_archive(Path(folder), float(arguments[0]))
    else:
        prepare_engines(Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
