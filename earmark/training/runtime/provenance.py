"""Provenance of a run: versions, files and clips that its scores can be traced back to.

Conventions: JSON types only. It is recorded once, when a run starts, and is not checked: a run may be resumed
elsewhere or with other versions.
"""

from __future__ import annotations

import datetime
import os
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
    facts: dict[str, Any] = {
        "earmark": __version__,
        "torch": torch.__version__,
        "seed": recipe.seed,
        "epochs": recipe.optimizer.epochs,
        "clips": sum(len(group) for group in split.groups),
        "command": recipe.command,
        "augment": recipe.augment.model_dump(mode="json", exclude_defaults=True),
    }
    facts |= {"init_from": recipe.model.init_from} if recipe.model.init_from else {}
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
    """Commit of a folder's checkout, and whether it has changes; None outside a checkout.

    Nothing that the repository configures is run: no monitor of its files, hook, filter or transport. Changes
    within submodules do not count.
    """
    filters = _filters(
        _git(folder, {}, "config", "--null", "--name-only", "--get-regexp", r"^filter\.") or ""
    )
    commit = _git(folder, filters, "rev-parse", "--verify", "HEAD")
    changes = _git(folder, filters, "status", "--porcelain", "--ignore-submodules=all")
    return None if commit is None or changes is None else {"commit": commit, "dirty": bool(changes)}


_NOTHING_RUNS = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, "core.pager": "cat"}
_NO_FILTER = {"clean": "", "smudge": "", "process": "", "required": "false"}
_NO_FETCH = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}


def _filters(keys: str) -> dict[str, str]:
    """Settings that switch off the filters with these null-separated keys."""
    names = {key.removeprefix("filter.").rpartition(".")[0] for key in keys.split("\0") if key}
    return {f"filter.{name}.{key}": value for name in sorted(names) for key, value in _NO_FILTER.items()}


def _git(folder: Path, settings: Mapping[str, str], *arguments: str) -> str | None:
    environment = {**os.environ, **_NO_FETCH, "GIT_OPTIONAL_LOCKS": "0"}
    given = environment.get("GIT_CONFIG_COUNT", "0")
    first = int(given) if given.isdecimal() else 0
    for number, (key, value) in enumerate({**_NOTHING_RUNS, **settings}.items(), start=first):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        environment["GIT_CONFIG_COUNT"] = str(number + 1)
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=20,
            env=environment,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
