"""Export targets: how the files of each runtime are made, and run for verification.

Conventions: the files of an export map suffix -> content; the first is the main file. Every target stores the
model info as JSON and the labels, one per line: inside the file if its format allows it, else in files next
to it.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.errors import ModelError, extra
from earmark.export.options import TargetName
from earmark.export.source import ExportSource, onnx_session
from earmark.inference.engines import Session, openvino_core
from earmark.inference.torch_session import NetworkSession
from earmark.model_file.info import ModelInfo, Precision
from earmark.model_file.onnx_file import attach_info
from earmark.models.checkpoint import TENSOR_TYPES, load_checkpoint, save_checkpoint
from earmark.models.onnx_graph import OUTPUT_NAMES, example_inputs

Floats = NDArray[np.float32]
Files = dict[str, bytes]
CHECKPOINT = ".safetensors"
INFO_KEY, LABELS_KEY = "earmark.record", "earmark.labels"
"""Names of the model info and the labels within a file."""


@dataclass(frozen=True)
class Target:
    """A runtime.

    Args:
        suffix: Of its main file.
        make: Makes the files from a source and the model info of the export.
        open: Opens a session that runs the files.
        any_length: Whether its files support any length, or a single one.
        precisions: Precisions of weights that its files support.
        has_graph: Whether its files hold a graph, not only weights.
    """

    suffix: str
    make: Callable[[ExportSource, ModelInfo], Files]
    open: Callable[[Files, ModelInfo], Session]
    any_length: bool = True
    precisions: tuple[str, ...] = get_args(Precision)
    has_graph: bool = True


def _labels(info: ModelInfo) -> str:
    return "".join(f"{label}\n" for label in info.labels)


def _make_onnx(source: ExportSource, info: ModelInfo) -> Files:
    return {".onnx": attach_info(source.graph(info).SerializeToString(), info)}


def _open_onnx(files: Files, info: ModelInfo) -> Any:
    return onnx_session(files[".onnx"])


def _make_openvino(source: ExportSource, info: ModelInfo) -> Files:
    model = openvino_core().read_model(source.graph(info).SerializeToString())
    model.set_rt_info(info.to_json(), INFO_KEY)
    model.set_rt_info(_labels(info), LABELS_KEY)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        import openvino

        openvino.save_model(model, path, compress_to_fp16=False)
        return {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}


def _open_openvino(files: Files, info: ModelInfo) -> Any:
    core = openvino_core()
    model = core.read_model(files[".xml"], files[".bin"])
    # By default it computes in bf16 where the processor supports it.
    return _OpenVinoSession(core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))


class _OpenVinoSession:
    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        outputs = self._compiled(dict(inputs))
        return [np.array(outputs[name]) for name in names]


def _make_pt2(source: ExportSource, info: ModelInfo) -> Files:
    # The length is fixed: PyTorch specialises sizes of 1, which short clips have inside the network.
    module = source.module(info, "a .pt2 file")
    with torch.no_grad(), _silence():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(module, example_inputs(info), dynamic_shapes=shapes)
        buffer = io.BytesIO()
        beside = {INFO_KEY: info.to_json(), LABELS_KEY: _labels(info)}
        torch.export.save(program, buffer, extra_files=beside)
    return {".pt2": buffer.getvalue()}


def _open_pt2(files: Files, info: ModelInfo) -> Any:
    with _silence():
        module = torch.export.load(io.BytesIO(files[".pt2"])).module()
    return _Pt2Session(module, info.front_end.graph_input)


class _Pt2Session:
    def __init__(self, module: Any, graph_input: str) -> None:
        self._module, self._input = module, graph_input

    @torch.no_grad()
    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        outputs = self._module(torch.from_numpy(inputs[self._input]))
        return [outputs[OUTPUT_NAMES.index(name)].numpy() for name in names]


def _make_litert(source: ExportSource, info: ModelInfo) -> Files:
    module = source.module(info, "a .tflite file")
    with extra("an export for LiteRT", "litert_export"), _silence():
        import litert_torch
    with tempfile.TemporaryDirectory() as folder, _silence():
        path = Path(folder) / "model.tflite"
        litert_torch.convert(module, example_inputs(info, batch=1)).export(str(path))
        content = path.read_bytes()
    beside = {".labels.txt": _labels(info).encode(), ".record.json": info.to_json().encode()}
    return {".tflite": content, **beside}


def _open_litert(files: Files, info: ModelInfo) -> Any:
    with extra("verifying an export for LiteRT", "litert"):
        from ai_edge_litert.interpreter import Interpreter
    return _LiteRtSession(Interpreter(model_content=files[".tflite"]), info.front_end.graph_input)


class _LiteRtSession:
    """Runs a batch one by one, because the files have a batch size of 1."""

    def __init__(self, interpreter: Any, graph_input: str) -> None:
        self._run, self._graph_input = interpreter.get_signature_runner(), graph_input
        [self._input] = self._run.get_input_details()
        self._outputs = dict(zip(OUTPUT_NAMES, sorted(self._run.get_output_details()), strict=True))

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        outputs = [self._run(**{self._input: one[None]}) for one in inputs[self._graph_input]]
        return [np.concatenate([output[self._outputs[name]] for output in outputs]) for name in names]


def _make_checkpoint(source: ExportSource, info: ModelInfo) -> Files:
    network = source.require_network("a checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{CHECKPOINT}"
        save_checkpoint(path, network, info)
        return {CHECKPOINT: path.read_bytes()}


def _open_checkpoint(files: Files, info: ModelInfo) -> Session:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{CHECKPOINT}"
        path.write_bytes(files[CHECKPOINT])
        return NetworkSession(load_checkpoint(path)[0])


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppresses the output and warnings of a converter."""
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        yield


TARGETS: Mapping[TargetName, Target] = {
    "onnx": Target(".onnx", _make_onnx, _open_onnx),
    "openvino": Target(".xml", _make_openvino, _open_openvino),
    "litert": Target(".tflite", _make_litert, _open_litert, any_length=False, precisions=("fp32",)),
    "pt2": Target(".pt2", _make_pt2, _open_pt2, any_length=False, precisions=("fp32",)),
    "checkpoint": Target(
        CHECKPOINT, _make_checkpoint, _open_checkpoint, precisions=tuple(TENSOR_TYPES), has_graph=False
    ),
}


def find_target(path: Path, name: str | None = None) -> TargetName:
    """Finds the target of a file by its suffix.

    Args:
        path: The file to write.
        name: Name of the target; None: the one of the suffix.

    Raises:
        ModelError: If no target, or not the named one, has the suffix.
    """
    for known, target in TARGETS.items():
        if target.suffix == path.suffix and name in (None, known):
            return known
    suffixes = [f"{target.suffix} ({known})" for known, target in TARGETS.items() if name in (None, known)]
    if not suffixes:
        raise ModelError(f"unknown export target {name!r}: choose from {', '.join(TARGETS)}")
    raise ModelError(f"{path}: the suffix must be {' or '.join(suffixes)}")
