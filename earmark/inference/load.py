"""Opens models by name or path, one or several as an ensemble.

Conventions: a published model that is not in the cache is downloaded and converted first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.errors import ModelError, extra
from earmark.hub import registry
from earmark.hub.pull import pull
from earmark.inference.engines import Engine, Precision, Session, check_threads, open_engine
from earmark.inference.ensemble import ensemble
from earmark.inference.processes import OpenedSession
from earmark.inference.tagger import Tagger
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file

if TYPE_CHECKING:
    from earmark.hub.download import Progress

ModelName = str | os.PathLike[str]

_MARK_BYTES = 128
"""The end of a model file holds its hash."""


def load(
    model: ModelName | Sequence[ModelName] | None = None,
    *,
    device: str = "cpu",
    engine: Engine = "onnx",
    precision: Precision = "fp32",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Tagger:
    """Opens a model.

    Args:
        model: A name (:func:`earmark.list_models`), the path of a model file or of a checkpoint
            (.safetensors, which runs in PyTorch), or None for the default model. A list of these is an
            ensemble: models with the same front-end, labels, task and window, whose logits are averaged.
        device: "cpu", "cuda" or "cuda:N" (extra "gpu"; checkpoints need only PyTorch), or "auto": a GPU if
            there is one, else the CPU.
        engine: "onnx" (ONNX Runtime) or "openvino" (extra "openvino", CPU only).
        precision: Precision of the computation: "fp32"; with OpenVINO also "bf16" or "fp16".
        threads: Threads of the network; None: one per core. Checkpoints use PyTorch's own setting.
        progress: Called during a download with the bytes received and the total, None if it is unknown.

    Raises:
        ModelError: If the model is unknown, cannot be downloaded, or its file is damaged or too new; if the
            models of an ensemble differ; if engine, precision or device is unknown or not available; or if
            the number of threads is out of range.
        MissingExtraError: If an optional package is needed that is not installed.
    """
    models = [model] if model is None or isinstance(model, (str, os.PathLike)) else list(model)
    check_threads(threads)
    if not models:
        raise ModelError("model must name at least one model, got an empty list")
    for name in models:
        known = None if registry.lookup(name) else registry.published().get(os.fspath(name or ""))
        if known and known.labels:
            pull(known.name, progress=progress)
    taggers = [_open(name, device, engine, precision, threads) for name in models]
    return taggers[0] if len(taggers) == 1 else ensemble(taggers)


def open_session(
    path: str | os.PathLike[str],
    threads: int | None = None,
    engine: str = "onnx",
    precision: str = "fp32",
    device: str = "cpu",
) -> tuple[Session, ModelInfo]:
    """Opens a model file without a tagger.

    Args:
        path: Path of the file.
        threads: As for :func:`load`.
        engine: As for :func:`load`.
        precision: As for :func:`load`.
        device: As for :func:`load`.

    Returns:
        A session from the input ``info.graph_input`` to the outputs "logits" and "embedding", and
        the model info.

    Raises:
        ModelError: If the file is missing, damaged or too new, or an option is unknown or not available.
        MissingExtraError: If the engine or device needs an optional package that is not installed.
    """
    return _open_file(os.path.abspath(path), None, threads, engine, precision, device)


def _open_file(
    model: str, mark: bytes | None, threads: int | None, engine: str, precision: str, device: str
) -> tuple[Session, ModelInfo]:
    """Opens a model file by name or absolute path; with a mark, the same file as another process has."""
    path, content, info = _read_file(model, mark)
    session = open_engine(content, path, threads=threads, engine=engine, precision=precision, device=device)
    again = model, content[-_MARK_BYTES:], threads, engine, precision, device
    open_local = partial(_local_session_of_file, *again)
    return OpenedSession(session, partial(_session_of_file, *again), open_local=open_local), info


def _read_file(model: str, mark: bytes | None) -> tuple[Path, bytes, ModelInfo]:
    path = registry.find(model)
    content, info = read_model_file(path)
    if mark not in (None, content[-_MARK_BYTES:]):
        raise ModelError(f"{path}: has changed since another process opened it: load it anew")
    return path, content, info


def _local_session_of_file(
    model: str, mark: bytes, threads: int | None, engine: str, precision: str, device: str
) -> Session:
    from earmark.inference.local_scores import LocalSession, seconds_per_position
    from earmark.model_file.subgraph import split_before_pooling

    path, content, info = _read_file(model, mark)
    open_part = partial(
        open_engine, path=path, threads=threads, engine=engine, precision=precision, device=device
    )
    try:
        split = split_before_pooling(content)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    return LocalSession(split, open_part, seconds_per_position(info))


def _session_of_file(*arguments: Any) -> Session:
    return _open_file(*arguments)[0]


def _open(model: ModelName | None, device: str, engine: str, precision: str, threads: int | None) -> Tagger:
    if model is not None and Path(model).suffix == ".safetensors":
        if engine != "onnx" or precision != "fp32":
            raise ModelError(
                f"{os.fspath(model)}: a checkpoint runs in PyTorch: engine and precision are for model files"
            )
        return _open_checkpoint(model, device)
    name = registry.DEFAULT if model is None else os.fspath(model)
    if registry.find(name) == Path(name):  # a path, which another process may not find from its folder
        name = os.path.abspath(name)
    return Tagger(*_open_file(name, None, threads, engine, precision, device))


def _open_checkpoint(path: ModelName, device: str) -> Tagger:
    return Tagger(*_open_network(os.path.abspath(path), device))


def _open_network(path: str, device: str) -> tuple[Session, ModelInfo]:
    with extra("running a checkpoint", "train"):
        from earmark.inference.torch_session import NetworkSession
        from earmark.models.checkpoint import load_checkpoint
    network, info = load_checkpoint(path)
    reopen = partial(_session_of_network, path, device)
    return OpenedSession(NetworkSession(network, device=device), reopen, survives_fork=True), info


def _session_of_network(path: str, device: str) -> Session:
    return _open_network(path, device)[0]
