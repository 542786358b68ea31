"""The runtimes that an export can be for: what each takes, and how it is run here to verify that.

Conventions: what is made is a table of file endings and contents; the first is the file itself. Every target
carries the record as JSON and the labels, one a line: within the file where its format has a place for them,
else in files beside it.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.errors import ModelError, extra
from earmark.export.source import Source, onnx_session
from earmark.inference.engines import openvino_core
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info
from earmark.models.onnx_graph import OUTPUT_NAMES, example_inputs

Floats = NDArray[np.float32]
Files = dict[str, bytes]
Name = Literal["onnx", "openvino", "litert", "pt2"]
RECORD, LABELS = "earmark.record", "earmark.labels"
"""What record and labels are called within a file."""


@dataclass(frozen=True)
class Target:
    """A runtime.

    Args:
        suffix: How its files end.
        make: From a source and the record of what it is to become to files.
        open: From files and the record to a session that runs them.
        any_length: Whether its files can take any length, or one only.
        narrow: Whether its files can hold weights in 16 bits.
    """

    suffix: str
    make: Callable[[Source, ModelInfo], Files]
    open: Callable[[Files, ModelInfo], Any]
    any_length: bool = True
    narrow: bool = False


def _labels(info: ModelInfo) -> str:
    return "".join(f"{label}\n" for label in info.labels)


def _make_onnx(source: Source, info: ModelInfo) -> Files:
    return {".onnx": attach_info(source.graph(info).SerializeToString(), info)}


def _open_onnx(files: Files, info: ModelInfo) -> Any:
    return onnx_session(files[".onnx"])


def _make_openvino(source: Source, info: ModelInfo) -> Files:
    model = openvino_core().read_model(source.graph(info).SerializeToString())
    model.set_rt_info(info.to_json(), RECORD)
    model.set_rt_info(_labels(info), LABELS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        import openvino

        openvino.save_model(model, path, compress_to_fp16=False)
        return {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}


def _open_openvino(files: Files, info: ModelInfo) -> Any:
    core = openvino_core()
    model = core.read_model(files[".xml"], files[".bin"])
    # Left to itself it computes in bf16 where the processor can.
    return _OpenVino(core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))


class _OpenVino:
    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        answers = self._compiled(dict(inputs))
        return [np.array(answers[name]) for name in names]


def _make_pt2(source: Source, info: ModelInfo) -> Files:
    # The length is not left open: PyTorch takes sizes of 1, which short clips leave inside, for another case.
    batch = tuple({0: torch.export.Dim("batch")} for _ in info.graph_inputs)
    module = source.module(info, "a *.pt2 file")
    with torch.no_grad(), _silence():
        program = torch.export.export(module, example_inputs(info), dynamic_shapes=(batch,))
        buffer = io.BytesIO()
        beside = {RECORD: info.to_json(), LABELS: _labels(info)}
        torch.export.save(program, buffer, extra_files=beside)
    return {".pt2": buffer.getvalue()}


def _open_pt2(files: Files, info: ModelInfo) -> Any:
    with _silence():
        module = torch.export.load(io.BytesIO(files[".pt2"])).module()
    return _Program(module, info)


class _Program:
    def __init__(self, module: Any, info: ModelInfo) -> None:
        self._module, self._inputs = module, info.graph_inputs

    @torch.no_grad()
    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        answers = self._module(*(torch.from_numpy(inputs[name]) for name in self._inputs))
        return [answers[OUTPUT_NAMES.index(name)].numpy() for name in names]


def _make_litert(source: Source, info: ModelInfo) -> Files:
    module = source.module(info, "a *.tflite file")
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
    return _LiteRt(Interpreter(model_content=files[".tflite"]), info)


class _LiteRt:
    """Its batch is 1: what comes together goes through one by one."""

    def __init__(self, interpreter: Any, info: ModelInfo) -> None:
        self._run = interpreter.get_signature_runner()
        self._inputs = dict(zip(info.graph_inputs, sorted(self._run.get_input_details()), strict=True))
        self._outputs = dict(zip(OUTPUT_NAMES, sorted(self._run.get_output_details()), strict=True))

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        rows = range(len(next(iter(inputs.values()))))
        given = [{self._inputs[name]: all_[row : row + 1] for name, all_ in inputs.items()} for row in rows]
        answers = [self._run(**one) for one in given]
        return [np.concatenate([answer[self._outputs[name]] for answer in answers]) for name in names]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps from the caller what a converter prints and warns of."""
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        warnings.simplefilter("ignore")
        yield


TARGETS: Mapping[Name, Target] = {
    "onnx": Target(".onnx", _make_onnx, _open_onnx, narrow=True),
    "openvino": Target(".xml", _make_openvino, _open_openvino, narrow=True),
    "litert": Target(".tflite", _make_litert, _open_litert, any_length=False),
    "pt2": Target(".pt2", _make_pt2, _open_pt2, any_length=False),
}
"""By name."""


def target_of(path: Path, name: str | None = None) -> Name:
    """The runtime that a file is for, by its ending.

    Args:
        path: Of the file.
        name: Of the target, where it was said; the file's ending has to be the target's then.

    Raises:
        ModelError: If the ending is no target's, or not that of the named one.
    """
    for known, target in TARGETS.items():
        if target.suffix == path.suffix and name in (None, known):
            return known
    wanted = [f"*{target.suffix} ({known})" for known, target in TARGETS.items() if name in (None, known)]
    raise ModelError(f"{path}: an export is named {' or '.join(wanted) or f'otherwise: no target {name!r}'}")
