"""What computes a model file: ONNX Runtime, or OpenVINO where it is installed. Both take the very same file.

Conventions: a session has ``run(names, inputs)``: names of outputs, arrays by the names of graph inputs.
A precision is what an engine computes in where a file leaves it open: "f32", "bf16" or "f16"; weights that a
file holds in 8 bits are computed with as such.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError, extra

Floats = NDArray[np.float32]
Engine = Literal["onnx", "openvino"]
Precision = Literal["f32", "bf16", "f16"]

PRECISIONS: Mapping[str, tuple[str, ...]] = {"onnx": ("f32",), "openvino": get_args(Precision)}
"""Engine -> the precisions that it knows; the first one is what it takes by default."""
SHAPES_APART = 2
"""Shapes of input that OpenVINO compiles a model for one by one, which runs faster than shapes left open."""

_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def open_engine(
    content: bytes,
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    engine: str = "onnx",
    precision: str | None = None,
) -> Any:
    """A session that computes a model file.

    Args:
        content: Of the file, checked (:func:`earmark.model_file.onnx_file.read_model_file`).
        path: Of the file, for errors.
        threads: That compute; None: as many as there are cores.
        engine: One of ``PRECISIONS``.
        precision: One that the engine knows and this processor has; None: float32.

    Raises:
        ModelError: If there is no such engine or precision, or the engine cannot run this model.
        MissingExtraError: If the engine is not installed.
    """
    chosen = _required(engine, precision)
    return _OPENERS[engine](content, os.fspath(path), threads, chosen)


def usable() -> dict[str, tuple[str, ...]]:
    """The engines that are installed, each with the precisions that this processor computes in."""
    found = {"onnx": PRECISIONS["onnx"]}
    if find_spec("openvino") is not None:
        found["openvino"] = _processors_own()
    return found


def _required(engine: str, precision: str | None) -> str:
    if engine not in PRECISIONS:
        raise ModelError(f"there is no engine {engine!r}: take {' or '.join(PRECISIONS)}")
    known = PRECISIONS[engine]
    chosen = known[0] if precision is None else precision
    if chosen not in known:
        raise ModelError(f"engine {engine} has no precision {chosen!r}: take {' or '.join(known)}")
    if engine == "openvino" and chosen not in _processors_own():
        own = " or ".join(_processors_own())
        raise ModelError(f"this processor does not compute in {chosen}: take {own} with engine openvino")
    return chosen


def _onnx(content: bytes, path: str, threads: int | None, precision: str) -> Any:
    import onnxruntime  # the engine is the larger part of the start, so nothing but a tagger pays for it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Its threads would wait for the next window by spinning, on the cores that now compute a log-mel.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this
        raise _cannot_run(path, "ONNX Runtime", error) from None


def _openvino(content: bytes, path: str, threads: int | None, precision: str) -> _OpenVinoSession:
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
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


_OPENERS: Mapping[str, Callable[[bytes, str, int | None, str], Any]] = {
    "onnx": _onnx,
    "openvino": _openvino,
}


class _OpenVinoSession:
    """Runs a model in OpenVINO, compiled for each of the first few shapes of input, then once for all others.

    Args:
        model: As OpenVINO read it, with batch and frames left open.
        path: Of its file, for errors.
        settings: How to compile it.
    """

    def __init__(self, model: Any, path: str, settings: Mapping[str, Any]) -> None:
        self._model, self._path, self._settings = model, path, settings
        self._requests: dict[tuple[tuple[int, ...], ...], Any] = {}
        self._lock = Lock()  # a request answers one call at a time

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        """Computes the outputs that are named, of one batch."""
        given = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
        with self._lock:
            request = self._request({name: values.shape for name, values in given.items()})
            request.infer(given, share_inputs=True)
            return [request.get_tensor(name).data.copy() for name in names]

    def _request(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        key = tuple(shapes.values())
        if key not in self._requests and len(self._requests) >= SHAPES_APART:
            key = ()  # no shape: all of them
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


@cache
def openvino_core() -> Any:
    """OpenVINO's runtime; a MissingExtraError where it is not installed."""
    with extra("engine openvino", "openvino"), _without_telemetry():
        import openvino

    return openvino.Core()


@cache
def _processors_own() -> tuple[str, ...]:
    """The precisions that this processor computes in; in others OpenVINO would silently take the nearest."""
    able = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name in PRECISIONS["openvino"] if _CAPABILITIES[name] in able)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hides the package by which OpenVINO, as soon as it is imported, tells its makers that it was."""
    name = "openvino_telemetry"
    if "openvino" in sys.modules or name in sys.modules:
        yield  # somebody else has imported it
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _cannot_run(path: str, engine: str, error: Exception) -> ModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ModelError(f"{path}: {engine} cannot run this model ({lines[-1] if lines else error!r})")
