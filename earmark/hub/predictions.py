"""Published predictions of teachers: downloaded and checked on first use, without PyTorch.

Conventions: ``predictions/NAME/`` in :func:`earmark.hub.registry.cache_folder` holds the table and its index
under their published names, each with its origin (URL, size and hash) in ``FILE.origin.json``.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from earmark.errors import ModelError, first_line
from earmark.hub import registry
from earmark.hub.download import Progress, download
from earmark.hub.published_file import checked
from earmark.model_file.atomic import write_atomically
from earmark.model_file.labels import label_set

_MAX_SIZE = 8 << 30
"""Limit for files of unknown size: float32 for two million clips and 527 classes takes 4.2 GB."""


@dataclass(frozen=True, kw_only=True)
class PredictionsFile:
    """One file of published predictions; a :class:`~earmark.hub.published_file.Published`.

    Args:
        url: URL of the file.
        size: Size in bytes, if known.
        sha256: SHA-256, its first digits, or "" if it is not known.
    """

    url: str
    size: int | None = None
    sha256: str = ""

    @property
    def name(self) -> str:
        """Name of the file."""
        return Path(self.url).name


@dataclass(frozen=True, kw_only=True)
class PublishedPredictions:
    """A teacher's predictions of a corpus.

    Source: registry.toml.

    Args:
        name: Name in recipes.
        table: An .npy file, a row for each clip.
        index: From clip to row.
        labels: Label set of the columns.
        kind: Kind of the predictions.
        description: What they are.
        license: Licence.
        source: Paper and repository.
    """

    name: str
    table: PredictionsFile
    index: PredictionsFile
    labels: str
    kind: Literal["logits", "scores"]
    description: str
    license: str
    source: str

    @property
    def folder(self) -> Path:
        """Folder of the files in the cache."""
        return registry.cache_folder() / "predictions" / self.name


def published_predictions() -> Mapping[str, PublishedPredictions]:
    """Returns the published predictions by name, in the order of the table."""
    return {name: _entry(name, own) for name, own in registry.content().get("predictions", {}).items()}


def _entry(name: str, own: Mapping[str, Any]) -> PublishedPredictions:
    files = {part: PredictionsFile(**own[part]) for part in ("table", "index")}
    return PublishedPredictions(**{**own, **files, "name": name})


def pull_predictions(
    name: str,
    *,
    file: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Downloads published predictions and checks them, unless that was done.

    Files are checked against the published size and hash. If no hash is known, that of the first download is
    stored, and later files must have the same.

    Args:
        name: A name of :func:`published_predictions`.
        file: A local copy of the table, to use instead of a download; its index lies beside it.
        force: Whether to download again what is in the cache.
        progress: Called with the bytes received and the total, None if it is unknown.

    Returns:
        Path of the table; the index lies beside it.

    Raises:
        ModelError: If the name is unknown, or a file cannot be downloaded or is not the published one.
    """
    known = published_predictions().get(name)
    if known is None:
        raise ModelError(
            f"unknown predictions {name!r}: {', '.join(published_predictions()) or 'none'} exist"
        )
    copies = {known.table: file, known.index: file and Path(file).with_name(known.index.name)}
    for part, copy in copies.items():
        if force or copy is not None or not (known.folder / part.name).is_file():
            _fetch(known, part, copy, progress)
    return known.folder / known.table.name


def _fetch(
    known: PublishedPredictions,
    part: PredictionsFile,
    copy: str | os.PathLike[str] | None,
    progress: Progress | None,
) -> None:
    """Puts a file into the cache once it was checked."""
    arrived = known.folder / "downloads" / part.name
    arrived.parent.mkdir(parents=True, exist_ok=True)
    if copy is None:
        try:
            download(part.url, arrived, size=part.size, max_size=_MAX_SIZE, progress=progress)
        except ModelError as error:
            names = f"{known.table.name} and {known.index.name}"
            raise ModelError(
                f"{error}; without a network, bring {names} by hand: "
                f"earmark pull {known.name} --from {known.table.name}"
            ) from None
    else:
        _copy(Path(copy), arrived)
    origin = known.folder / f"{part.name}.origin.json"
    try:
        facts = checked(part, arrived, origin)
        _require_content(known, part, arrived)  # a page of an error must not be trusted
    except ModelError:
        arrived.unlink(missing_ok=True)  # else the next attempt would use it
        raise
    write_atomically(origin, json.dumps(facts, indent=1) + "\n")
    os.replace(arrived, known.folder / part.name)


def _require_content(known: PublishedPredictions, part: PredictionsFile, path: Path) -> None:
    """Checks that a file is a table of the right shape, or a whole pickle; nothing is unpickled."""
    if part is known.table:
        try:
            table = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # a damaged header may raise anything
            raise ModelError(f"{part.url} is no .npy file ({first_line(error)}): try again later") from None
        classes = len(label_set(known.labels))
        if table.dtype not in (np.float16, np.float32) or table.ndim != 2 or table.shape[1] != classes:
            shape = f"{table.dtype} of shape {table.shape}"
            raise ModelError(f"{part.url} must hold {classes} predictions for each clip, got {shape}")
    elif not path.read_bytes().endswith(pickle.STOP):
        raise ModelError(f"{part.url} is no whole pickle: try again later")


def _copy(file: Path, target: Path) -> None:
    try:
        shutil.copyfile(file, target)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror or error})") from None
