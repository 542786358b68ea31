"""Where a run comes from: what a score has to be traced back by.

Conventions: JSON types only. It is noted once, when a run starts, and decides nothing: a run may go on
elsewhere, or with other versions.
"""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earmark.data.manifest import Clip, clips_hash, file_hash
from earmark.data.shards.pack import HEADING, TABLE
from earmark.training.config.recipe import Recipe
from earmark.version import __version__


def provenance(
    recipe: Recipe, groups: Sequence[Sequence[Clip]], judged: Sequence[Clip] = ()
) -> dict[str, Any]:
    """What holds now, when a run of this recipe starts.

    Args:
        recipe: Of the run.
        groups: Clips that it trains on, by source.
        judged: Clips that it is judged by.

    Returns:
        ``started`` (UTC), ``command``, ``versions``, ``platform``, ``threads``, ``files`` (SHA-256 of each
        that the recipe names; None for one that is not there), ``clips`` (of each source and of those to
        judge by: number and SHA-256 of ids, labels and folds, wherever they were read from), ``front_end``
        and ``git`` (commit, and whether anything differs from it; None outside a checkout).
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
            for name, clips in [*named, ("judged", judged)]
        ],
        "front_end": recipe.front_end.to_dict(),
        "git": git_state(Path.cwd()),
    }


def _files(recipe: Recipe) -> Iterator[Path]:
    for source in recipe.data.sources:
        yield from source.manifests
        if source.shards is not None:
            yield from (source.shards / HEADING, source.shards / TABLE)
    yield from recipe.evaluation.negative_manifests
    if recipe.model.init_from and Path(recipe.model.init_from).suffix == ".safetensors":  # else a published name
        yield Path(recipe.model.init_from)
    for teacher in recipe.teacher:
        yield from filter(Path.is_file, map(Path, teacher.path))


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that a folder lies in, and whether it has changes; None where there is none."""
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
