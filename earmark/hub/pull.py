"""Published weights: downloaded, checked and converted on first use.

Conventions: :func:`earmark.hub.registry.cache_folder` has the results: ``NAME.onnx`` (the model file, which
runs without PyTorch), ``NAME.safetensors`` (the checkpoint) and ``NAME.origin.json`` (URL, size and hash of
the published file). Conversion needs the extra "train".
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.errors import ModelError, extra
from earmark.hub import registry
from earmark.hub.registry import PublishedModel
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.hub.download import Progress

_MAX_BYTES_PER_PARAMETER = 8
"""Limit for files of unknown size: twice that of float32."""


def pull(
    name: str,
    *,
    file: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Downloads published weights, checks them and converts them into a model file, unless that was done.

    The file is checked against the published size and hash. If no hash is known, that of the first file is
    stored, and later files must have the same.

    Args:
        name: Name of a published model.
        file: A local copy of the published file, to use instead of a download.
        force: Whether to download and convert again what is in the cache.
        progress: Called with the bytes received and the total, None if it is unknown.

    Returns:
        Path of the model file; for weights without labels, of the checkpoint.

    Raises:
        ModelError: If the name is unknown, or the file cannot be downloaded, is not the published one, or is
            unsafe.
        MissingExtraError: If PyTorch is not installed.
    """
    if name in registry.shipped():
        return registry.find(name)
    known = registry.published_model(name)
    target = known.model_file if known.labels else known.checkpoint
    if known.is_cached and not force and file is None:
        return target
    with extra(f"converting {name} into a model file (which runs without PyTorch)", "train"):
        from earmark.hub.build import build
        from earmark.models.registry import create_config
    # An unknown architecture must fail before the download.
    create_config(known.architecture, num_classes=known.num_classes, **known.arguments)
    path = Path(file) if file is not None else _download(known, force, progress)
    try:
        origin = _checked(known, path)
        build(
            path,
            _model_info(known, origin),
            checkpoint=known.checkpoint,
            model_file=known.model_file if known.labels else None,
            layout=known.layout,
        )
    except ModelError:
        if file is None:
            path.unlink(missing_ok=True)  # else the next attempt would use it
        raise
    write_atomically(_origin_file(known), json.dumps(origin, indent=1) + "\n")
    if file is None:
        path.unlink(missing_ok=True)
    return target


def _download(known: PublishedModel, force: bool, progress: Progress | None) -> Path:
    from earmark.hub.download import download  # not needed to run a model

    suffix = Path(known.url).suffix
    target = registry.cache_folder() / "downloads" / f"{known.name}{suffix}"
    if force or not target.is_file():  # a file may be left from a killed run
        limit = {"max_size": _MAX_BYTES_PER_PARAMETER * known.params + (1 << 20)} if known.params else {}
        download(known.url, target, size=known.size, progress=progress, **limit)
    return target


def _checked(known: PublishedModel, path: Path) -> dict[str, Any]:
    """Checks a file against the published size and hash; returns its origin."""
    try:
        with path.open("rb") as stream:
            sha256, size = hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read: {error.strerror or error}") from None
    if known.size not in (None, size):
        raise ModelError(f"{path}: size must be {known.size} bytes, got {size}: it is not {known.name}")
    if not sha256.startswith(known.sha256):
        digits = max(8, len(known.sha256) // 4)
        raise ModelError(
            f"{path}: SHA-256 must start with {known.sha256[:digits]}, got {sha256[:digits]}: "
            f"it is not {known.name}"
        )
    first = _first_sha256(known)
    if first not in ("", sha256):
        raise ModelError(
            f"{path}: SHA-256 must be {first[:16]}..., that of the first file downloaded as {known.name}, "
            f"got {sha256[:16]}...: remove {_origin_file(known)} to trust this file"
        )
    return {"url": known.url, "size": size, "sha256": sha256}


def _origin_file(known: PublishedModel) -> Path:
    return registry.cache_folder() / f"{known.name}.origin.json"


def _first_sha256(known: PublishedModel) -> str:
    """SHA-256 of the first file that was converted; "" if there was none."""
    path = _origin_file(known)
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{path}: the file is damaged: remove it to trust the next {known.name}") from None


def _model_info(known: PublishedModel, origin: dict[str, Any]) -> ModelInfo:
    from earmark.model_file.labels import label_set

    numbered = tuple(f"output {number}" for number in range(known.num_classes))
    return ModelInfo(
        name=known.name,
        labels=label_set(known.labels) if known.labels else numbered,
        front_end=known.front_end,
        task=known.task,
        architecture=known.architecture,
        arguments=known.arguments,
        window_s=known.window_s,
        padding=known.padding,
        embedding_size=1,  # filled in where the network is built
        description=known.description,
        license=known.license,
        source=known.source,
        metrics={"published": dict(known.scores), "scored_on": known.scored_on} if known.scores else {},
        provenance=origin,
        card=_card(known, origin),
    )


def _card(known: PublishedModel, origin: dict[str, Any]) -> str:
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
