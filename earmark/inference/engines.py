"""Engines that run a model file: ONNX Runtime, on the CPU or a CUDA GPU, or OpenVINO on the CPU.

Conventions: a session has ``run(names, inputs)``: output names, and arrays by the names of the graph's
inputs. Precision is that of the computation if the file leaves it open; 8-bit weights are computed as such.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from earmark.errors import MissingExtraError, ModelError, extra

Floats = NDArray[np.float32]
Engine = Literal["onnx", "openvino"]
Precision = Literal["fp32", "bf16", "fp16"]

PRECISIONS: Mapping[str, tuple[str, ...]] = {"onnx": ("fp32",), "openvino": get_args(Precision)}
"""Precisions of each engine; the first is the default."""
MAX_THREADS = 512
"""Limit of the number of threads."""
MAX_FIXED_SHAPES = 2
"""Input shapes that OpenVINO compiles a model for, which runs faster than a model of any shape."""

_OPENVINO_NAMES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CUDA = "CUDAExecutionProvider"


class Session(Protocol):
    """Runs a network on one batch, as an inference session of ONNX Runtime does."""

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        """Computes the named outputs."""


def open_engine(
    content: bytes,
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    engine: str = "onnx",
    precision: str = "fp32",
    device: str = "cpu",
) -> Session:
    """Opens a session that runs a model file.

    Args:
        content: Content of the file, checked (:func:`earmark.model_file.onnx_file.read_model_file`).
        path: Path of the file, for errors.
        threads: Threads of the network; None: one per core.
        engine: One of ``PRECISIONS``.
        precision: One of the engine's that the processor supports.
        device: "cpu", "cuda", "cuda:N", or "auto": a GPU if there is one, else the CPU.

    Raises:
        ModelError: If engine, precision or device is unknown or not available, the number of threads is out
            of range, or the engine cannot run the model.
        MissingExtraError: If the engine or device needs a package that is not installed.
    """
    check_threads(threads)
    _check_precision(engine, precision)
    if engine == "onnx":
        return _onnx(content, os.fspath(path), threads, device)
    if parse_device(device)[0] == "cuda":
        raise ModelError(f"engine openvino runs on the CPU: device must be cpu, got {device}")
    return _openvino(content, os.fspath(path), threads, precision)


def installed_engines() -> dict[str, tuple[str, ...]]:
    """Returns the installed engines, each with the precisions that this processor supports."""
    found = {"onnx": PRECISIONS["onnx"]}
    if find_spec("openvino") is not None:
        found["openvino"] = _supported_precisions()
    return found


def check_threads(threads: int | None) -> None:
    """Checks a number of threads.

    Raises:
        ModelError: If it is not None or between 1 and ``MAX_THREADS``.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise ModelError(f"threads must be between 1 and {MAX_THREADS}, got {threads}")


def parse_device(device: str) -> tuple[Literal["auto", "cpu", "cuda"], int]:
    """Splits a device into its kind and the index of the GPU.

    Raises:
        ModelError: If it is not "auto", "cpu", "cuda" or "cuda:N".
    """
    match = re.fullmatch(r"(auto|cpu|cuda)(?:(?<=cuda):(\d+))?", device)
    if not match:
        raise ModelError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
    kind: Any = match[1]
    return kind, int(match[2] or 0)


def _check_precision(engine: str, precision: str) -> None:
    if engine not in PRECISIONS:
        raise ModelError(f"engine must be {' or '.join(PRECISIONS)}, got {engine!r}")
    known = PRECISIONS[engine]
    if precision not in known:
        raise ModelError(f"precision of engine {engine} must be {' or '.join(known)}, got {precision!r}")
    if engine == "openvino" and precision not in _supported_precisions():
        supported = " or ".join(_supported_precisions())
        raise ModelError(f"this processor does not compute in {precision} (engine openvino): use {supported}")


def _onnx(content: bytes, path: str, threads: int | None, device: str) -> Session:
    from earmark.model_file.onnx_runtime import onnxruntime  # slow to import, so only here

    providers = _providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Idle threads would spin on the cores that compute the next log-mel.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session: Session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no other base
        raise _cannot_run(path, "ONNX Runtime", error) from None
    # ONNX Runtime falls back to the CPU without an error.
    if device.startswith("cuda") and _CUDA not in session.get_providers():  # type: ignore[attr-defined]
        raise ModelError(
            f"device {device} is not available: ONNX Runtime cannot use its CUDA provider (is there such a "
            "GPU, with CUDA and cuDNN?): use cpu"
        )
    return session


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    """ONNX Runtime's execution providers for a device, in order of preference."""
    kind, index = parse_device(device)
    if kind == "cuda" and _CUDA not in available:
        raise MissingExtraError(f"device {device} with engine onnx", "gpu")
    cuda = [(_CUDA, {"device_id": index})] if kind != "cpu" and _CUDA in available else []
    return [*cuda, "CPUExecutionProvider"]


def _openvino(content: bytes, path: str, threads: int | None, precision: str) -> Session:
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _OPENVINO_NAMES[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # Pinned threads of several processes would all wait for the same core.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        model = openvino_core().read_model(content)
    except RuntimeError as error:
        raise _cannot_run(path, "OpenVINO", error) from None
    return _OpenVinoSession(model, path, settings)


class _OpenVinoSession:
    """Runs a model in OpenVINO, compiled for each of the first input shapes, then once for all others.

    Args:
        model: Model as read by OpenVINO, with open batch and frame axes.
        path: Path of its file, for errors.
        settings: OpenVINO's settings for compilation.
    """

    def __init__(self, model: Any, path: str, settings: Mapping[str, Any]) -> None:
        self._model, self._path, self._settings = model, path, settings
        self._requests: dict[tuple[tuple[int, ...], ...], Any] = {}
        self._lock = Lock()  # a request serves one call at a time

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        """Computes the named outputs."""
        arrays = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
        with self._lock:
            request = self._request({name: values.shape for name, values in arrays.items()})
            request.infer(arrays, share_inputs=True)
            return [request.get_tensor(name).data.copy() for name in names]

    def _request(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        key = tuple(shapes.values())
        if key not in self._requests and len(self._requests) >= MAX_FIXED_SHAPES:
            key = ()  # any shape
        if key not in self._requests:
            self._requests[key] = self._compiled(shapes if key else {})
        return self._requests[key]

    def _compiled(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        try:
            model = self._model.clone()
            if shapes:
                model.reshape({name: list(shape) for name, shape in shapes.items()})
            return openvino_core().compile_model(model, "CPU", dict(self._settings)).create_infer_request()
        except RuntimeError as error:
            raise _cannot_run(self._path, "OpenVINO", error) from None


def openvino_core() -> Any:
    """Returns OpenVINO's runtime.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
    """
    with extra("engine openvino", "openvino"), _without_telemetry():
        import openvino

    return _core_of(openvino, os.getpid())


@cache
def _core_of(openvino: Any, process: int) -> Any:
    """The runtime of a process; never freed, since a forked child would wait for threads of its parent."""
    core = openvino.Core()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(core))
    return core


@cache
def _supported_precisions() -> tuple[str, ...]:
    """The precisions that this processor supports; OpenVINO would silently replace others."""
    capabilities = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name in PRECISIONS["openvino"] if name.upper() in capabilities)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hides the package with which OpenVINO reports its use when it is imported."""
    name = "openvino_telemetry"
    if "openvino" in sys.modules or name in sys.modules:
        yield  # imported elsewhere
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _cannot_run(path: str, engine: str, error: Exception) -> ModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ModelError(f"{path}: {engine} cannot run this model ({lines[-1] if lines else error!r})")
