"""Provenance of a run: versions, files and clips that its scores can be traced back to.

Conventions: JSON types only. It is recorded once, when a run starts, and is not checked: a run may be resumed
elsewhere or with other versions.
"""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earmark.data.manifest import Clip, clips_hash, file_hash
from earmark.data.shards.pack import MANIFEST_FILE, PACK_FILE
from earmark.model_file.info import ModelInfo
from earmark.models.dymn import DyMN
from earmark.models.network import Network
from earmark.training.config.recipe import Recipe
from earmark.training.splits import Split
from earmark.version import __version__


def provenance(
    recipe: Recipe, groups: Sequence[Sequence[Clip]], evaluated: Sequence[Clip] = ()
) -> dict[str, Any]:
    """The provenance of a run that starts now.

    Args:
        recipe: Of the run.
        groups: Training clips, by source.
        evaluated: Evaluation clips.

    Returns:
        ``started`` (UTC), ``command``, ``versions``, ``platform``, ``threads``, ``files`` (SHA-256 of each
        file named by the recipe; None if missing), ``clips`` (of each source and of the evaluation clips:
        number and SHA-256 of ids, labels and folds), ``front_end`` and ``git`` (commit, and whether the
        checkout differs from it; None outside a checkout).
    """
    named = [(source.title, group) for source, group in zip(recipe.data.sources, groups, strict=True)]
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {
            "earmark": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "files": {str(path): file_hash(path) if path.is_file() else None for path in _files(recipe)},
        "clips": [
            {"of": name, "number": len(clips), "sha256": clips_hash(clips)}
            for name, clips in [*named, ("evaluated", evaluated)]
        ],
        "front_end": recipe.front_end.to_dict(),
        "git": git_state(Path.cwd()),
    }


def model_info(
    recipe: Recipe,
    network: Network,
    split: Split,
    embedding_size: int,
    teachers: Sequence[Mapping[str, str]],
) -> ModelInfo:
    """The model info of a run's checkpoints, without metrics.

    Args:
        recipe: Of the run.
        network: Its network, from log-mels; DyMN's temperature is stored as it is now.
        split: Labels and clips of the run.
        embedding_size: Channels of the embedding.
        teachers: Name and SHA-256 of each.
    """
    arguments = dict(recipe.model.arguments)
    if recipe.model.annealing is not None and isinstance(network, DyMN):
        arguments["temperature"] = network.config.temperature
    facts = {
        "earmark": __version__,
        "torch": torch.__version__,
        "seed": recipe.seed,
        "epochs": recipe.optimizer.epochs,
        "clips": sum(len(group) for group in split.groups),
        "command": recipe.command,
    }
    return ModelInfo(
        name=recipe.name,
        labels=split.labels,
        front_end=recipe.front_end,
        task=recipe.task,
        architecture=recipe.model.architecture,
        arguments=arguments,
        window_s=recipe.window_s,
        padding=recipe.padding,
        embedding_size=embedding_size,
        description=recipe.description,
        license=recipe.license,
        source=recipe.source,
        provenance=facts | ({"teachers": list(teachers)} if recipe.teacher else {}),
    )


def _files(recipe: Recipe) -> Iterator[Path]:
    for source in recipe.data.sources:
        yield from source.manifests
        if source.shards is not None:
            yield from (source.shards / PACK_FILE, source.shards / MANIFEST_FILE)
    yield from recipe.evaluation.negative_manifests
    if (
        recipe.model.init_from and Path(recipe.model.init_from).suffix == ".safetensors"
    ):  # else: a published name
        yield Path(recipe.model.init_from)
    for teacher in recipe.teacher:
        yield from filter(Path.is_file, map(Path, teacher.path))


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of a folder's checkout, and whether it has changes; None outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    return None if commit is None or changes is None else {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
