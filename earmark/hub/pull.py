"""Published weights: downloaded, checked and made into model files on first use, without PyTorch.

Conventions: :func:`earmark.hub.registry.cache_folder` has the results: ``NAME.onnx`` (the model file),
``NAME.safetensors`` (the checkpoint, to train on) and ``NAME.origin.json`` (URL, size and hash of the
published file). The weights are put into a graph that comes with the package (:mod:`earmark.hub.skeleton`).
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.errors import ModelError
from earmark.hub import registry
from earmark.hub.published_file import checked
from earmark.hub.registry import PublishedModel
from earmark.model_file.atomic import write_all_atomically
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.hub.download import Progress
    from earmark.hub.skeleton import Skeleton

_MAX_BYTES_PER_PARAMETER = 8
"""Limit for files of unknown size: twice that of float32."""
_KINDS = {"float32": "F32", "int64": "I64"}
"""Type of a tensor -> its name in safetensors."""


def pull(
    name: str,
    *,
    file: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Downloads published weights, checks them and makes a model file of them, unless that was done.

    The file is checked against the published size and hash. If no hash is known, that of the first file is
    stored, and later files must have the same.

    Args:
        name: Name of a published model.
        file: A local copy of the published file, to use instead of a download.
        force: Whether to download again what is in the cache.
        progress: Called with the bytes received and the total, None if it is unknown.

    Returns:
        Path of the model file; for weights without labels, of the checkpoint.

    Raises:
        ModelError: If the name is unknown, or the file cannot be downloaded, is not the published one, does
            not fit the network, or is unsafe; nothing is written then.
    """
    if name in registry.shipped():
        return registry.find(name)
    known = registry.published_model(name)
    target = known.model_file if known.labels else known.checkpoint
    if known.is_cached and not force and file is None:
        return target
    from earmark.hub.skeleton import read_skeleton  # not needed to run a model

    skeleton = read_skeleton(known)  # an unknown network fails before the download
    path = Path(file) if file is not None else _download(known, force, progress)
    try:
        origin = checked(known, path, _origin_file(known))
        contents = _converted(known, skeleton, path, origin)
    except ModelError:
        if file is None:
            path.unlink(missing_ok=True)  # else the next attempt would use it
        raise
    write_all_atomically({**contents, _origin_file(known): json.dumps(origin, indent=1) + "\n"})
    if file is None:
        path.unlink(missing_ok=True)
    return target


def _converted(
    known: PublishedModel, skeleton: Skeleton, path: Path, origin: Mapping[str, Any]
) -> dict[Path, bytes | str]:
    """Content of the checkpoint and, of weights with labels, of the model file, by path."""
    from earmark.hub.checkpoint import read_checkpoint
    from earmark.hub.layouts import LAYOUTS
    from earmark.model_file.checkpoint_file import TensorBytes, checkpoint_content
    from earmark.model_file.onnx_file import attach_info

    tensors = LAYOUTS[known.layout](read_checkpoint(path))
    try:
        skeleton.check(tensors)
        graph = skeleton.fill(tensors) if known.labels else b""
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    info = _model_info(known, origin, skeleton.embedding_size)
    stored = {
        name: TensorBytes(_KINDS[values.dtype.name], values.shape, values.tobytes())
        for name, values in tensors.items()
    }
    contents: dict[Path, bytes | str] = {known.checkpoint: checkpoint_content(stored, info.to_json())}
    return contents | ({known.model_file: attach_info(graph, info)} if known.labels else {})


def _download(known: PublishedModel, force: bool, progress: Progress | None) -> Path:
    from earmark.hub.download import download  # not needed to run a model

    suffix = Path(known.url).suffix
    target = registry.cache_folder() / "downloads" / f"{known.name}{suffix}"
    if force or not target.is_file():  # a file may be left from a killed run
        limit = {"max_size": _MAX_BYTES_PER_PARAMETER * known.params + (1 << 20)} if known.params else {}
        try:
            download(known.url, target, size=known.size, progress=progress, **limit)
        except ModelError as error:
            raise ModelError(f"{error}; {_by_hand(known)}") from None
    return target


def _by_hand(known: PublishedModel) -> str:
    """How to bring a file to a machine without a network."""
    made = known.model_file if known.labels else known.checkpoint
    command = shlex.join(["earmark", "pull", known.name, "--from", Path(known.url).name])
    return (
        f"without a network, bring the file by hand: {command}, or copy {made.name} from another machine to "
        f"{made.parent}"
    )


def _origin_file(known: PublishedModel) -> Path:
    return registry.cache_folder() / f"{known.name}.origin.json"


def _model_info(known: PublishedModel, origin: Mapping[str, Any], embedding_size: int) -> ModelInfo:
    return known.model_info(embedding_size).changed(
        metrics={"published": dict(known.scores), "scored_on": known.scored_on} if known.scores else {},
        provenance=dict(origin),
        card=_card(known, origin),
    )


def _card(known: PublishedModel, origin: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{name} {value:g}" for name, value in known.scores.items())
    lines = [
        f"# {known.name}",
        f"{known.description}. Converted from published weights: {known.source}.",
        f"Published score: {scores} ({known.scored_on})." if scores else "No published score.",
        f"Licence: {known.license or 'unknown'}"
        + (f", {known.license_note}." if known.license_note else "."),
        f"Made from {known.url}, {origin['size']} bytes, SHA-256 {origin['sha256']}.",
    ]
    return "\n\n".join(lines) + "\n"
