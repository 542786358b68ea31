"""Opens models by name, path, or several as an ensemble.

Conventions: as for :class:`earmark.inference.tagger.Tagger`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.errors import ModelError, extra
from earmark.hub import registry
from earmark.hub.pull import pull
from earmark.inference.engines import Engine
from earmark.inference.tagger import Tagger

if TYPE_CHECKING:
    from earmark.hub.download import Report


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    engine: Engine = "onnx",
    precision: str | None = None,
    report: Report | None = None,
) -> Tagger:
    """Opens a model; a published one that is not on this machine yet is fetched and converted first.

    Args:
        model: A name (``earmark models`` lists them), the path of a model file or of a checkpoint
            (.safetensors, which runs in PyTorch), several of these with "+" between them (an ensemble: the
            mean of their logits), or None for the default.
        threads: Of the network; None: as many as there are cores. A checkpoint takes PyTorch's own number.
        engine: What computes a model file: "onnx" (ONNX Runtime) or "openvino" (extra "openvino").
        precision: That it computes in: "f32", with OpenVINO also "bf16" or "f16"; None: "f32".
        report: Is told, while something is fetched, how many bytes have arrived, of how many.

    Raises:
        ModelError: If the model is unknown, cannot be fetched, or its file is damaged or too new; if the
            members of an ensemble do not agree on labels, task, window and padding; or if there is no such
            engine or precision, or it is asked of a checkpoint.
        MissingExtraError: If it has to be converted, or is a checkpoint, and PyTorch is not installed; or if
            the engine is not.
    """
    names = () if model is None else registry.members(model)
    for name in names:
        known = None if registry.look(name) else registry.published().get(name)
        if known and known.labels:
            pull(known.name, report=report)
    if not any(map(_is_checkpoint, names)):
        return Tagger(model, threads=threads, engine=engine, precision=precision)
    if engine != "onnx" or precision is not None:
        raise ModelError(f"{model}: a checkpoint runs in PyTorch: engine and precision are for model files")
    return Tagger.together(
        [_in_torch(name) if _is_checkpoint(name) else Tagger(name, threads=threads) for name in names]
    )


def _is_checkpoint(name: str) -> bool:
    return Path(name).suffix == ".safetensors"


def _in_torch(path: str) -> Tagger:
    with extra("running a checkpoint", "train"):
        from earmark.inference.torch_session import NetworkSession
        from earmark.models.checkpoint import load_checkpoint
    network, info = load_checkpoint(path)
    return Tagger.around(NetworkSession(network), info)
