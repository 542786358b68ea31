"""Published weights: downloaded, checked and converted on first use.

Conventions: the results lie in :func:`earmark.hub.registry.cache_folder`: ``NAME.onnx`` (the model file, to
run without PyTorch), ``NAME.safetensors`` (the weights, to train on) and ``NAME.origin.json`` (what they were
made from). Converting needs the extra "train".
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.errors import ModelError, extra
from earmark.hub import registry
from earmark.hub.registry import Published
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.hub.download import Progress

_LARGEST = 8
"""Bytes per parameter that a file of unknown size may have: twice what float32 takes."""


def pull(
    name: str,
    *,
    file: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Fetches published weights and converts them, unless that was done before.

    The file is checked against the published size and hash. Where no hash is known the first file is
    trusted; its hash is kept, and every later file must have the same.

    Args:
        name: Of the table of published weights.
        file: A local copy of the published file, to use instead of a download.
        force: Whether to download and convert again what is in the cache.
        progress: Called with the bytes received and the total, None if it is unknown.

    Returns:
        The model file; of a starting point for training, the checkpoint.

    Raises:
        ModelError: If the name is unknown, or the file cannot be had, is not the published one, or is unsafe.
        MissingExtraError: If PyTorch is not installed.
    """
    if name in registry.shipped():
        return registry.find(name)
    known = registry.entry(name)
    made = known.model_file if known.labels else known.checkpoint
    if known.on_this_machine and not force and file is None:
        return made
    with extra(f"making the model file of {name} (which then runs without PyTorch)", "train"):
        from earmark.hub.build import convert
        from earmark.models.registry import create_config
    create_config(
        known.architecture, num_classes=known.num_classes, **known.arguments
    )  # fails before the download
    path = Path(file) if file is not None else _download(known, force, progress)
    try:
        origin = _checked(known, path)
        convert(
            path,
            _record(known, origin),
            checkpoint=known.checkpoint,
            model_file=known.model_file if known.labels else None,
            layout=known.layout,
        )
    except ModelError:
        if file is None:
            path.unlink(missing_ok=True)  # or else it would be taken again
        raise
    write_atomically(_origin_file(known), json.dumps(origin, indent=1) + "\n")
    if file is None:
        path.unlink(missing_ok=True)
    return made


def _download(known: Published, force: bool, progress: Progress | None) -> Path:
    from earmark.hub.download import fetch  # the web's libraries, only where something is fetched

    suffix = Path(known.url).suffix
    target = registry.cache_folder() / "downloads" / f"{known.name}{suffix}"
    if force or not target.is_file():  # or a run was killed before it could convert it
        largest = {"largest": _LARGEST * known.params + (1 << 20)} if known.params else {}
        fetch(known.url, target, size=known.size, progress=progress, **largest)
    return target


def _checked(known: Published, path: Path) -> dict[str, Any]:
    """Compares a file with what is known of it; what is to be kept about it."""
    try:
        with path.open("rb") as file:
            sha256, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read: {error.strerror or error}") from None
    not_it = f"{path}: is not the file that was published as {known.name}"
    if known.size not in (None, size):
        raise ModelError(f"{not_it}: it has {size} bytes instead of {known.size}")
    if not sha256.startswith(known.sha256):
        digits = max(8, len(known.sha256) // 4)
        raise ModelError(
            f"{not_it}: its SHA-256 begins with {sha256[:digits]} instead of {known.sha256[:digits]}"
        )
    trusted = _trusted(known)
    if trusted not in ("", sha256):
        raise ModelError(
            f"{path}: is not the file that was trusted as {known.name} at first (SHA-256 {sha256[:16]} "
            f"instead of {trusted[:16]}): remove {_origin_file(known)} if you trust this one"
        )
    return {"url": known.url, "size": size, "sha256": sha256}


def _origin_file(known: Published) -> Path:
    return registry.cache_folder() / f"{known.name}.origin.json"


def _trusted(known: Published) -> str:
    """The SHA-256 of the file that was trusted at first; "" if there was none."""
    path = _origin_file(known)
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{path}: is damaged: remove it to trust the next file of {known.name}") from None


def _record(known: Published, origin: dict[str, Any]) -> ModelInfo:
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


def _card(known: Published, origin: dict[str, Any]) -> str:
    scores = ", ".join(f"{name} {value:g}" for name, value in known.scores.items())
    lines = [
        f"# {known.name}",
        f"{known.description}. Weights by others, converted: {known.source}.",
        f"Published score: {scores} ({known.scored_on})." if scores else "No score is known.",
        f"Licence: {known.license or 'not known'}"
        + (f", {known.license_note}." if known.license_note else "."),
        f"Made from {known.url}, {origin['size']} bytes, SHA-256 {origin['sha256']}.",
    ]
    return "\n\n".join(lines) + "\n"
