"""Whose a folder is: the run of one recipe, told by ``recipe.json``, and nobody else's.

Conventions: what is said about a recipe, how its result is judged, where it is computed and where its numbers
are shown may change without a new training; all else makes another run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from earmark.errors import RecipeError
from earmark.model_file.atomic import remove_partial, write_atomically
from earmark.training.config.recipe import Recipe
from earmark.training.runtime.devices import Devices
from earmark.training.runtime.provenance import provenance
from earmark.training.splits import Split

WORDS = ("description", "source", "command", "cost", "expected", "license")
"""What a recipe says of itself; it changes no weight."""

_FREE = {*WORDS, "evaluation", "logging", "run"}
_ABSENT = "(nothing)"


def resolve(folder: Path, recipe: Recipe, fold: int | None) -> str:
    """The recipe as the folder of its run keeps it.

    Raises:
        RecipeError: If the folder holds a run of another recipe; its notes say what differs, a line a key.
    """
    own = {"fold": fold, "keep": recipe.evaluation.keep}
    resolved = recipe.model_dump(mode="json", exclude_none=True, exclude=_FREE) | own
    stored = folder / "recipe.json"
    if stored.exists():
        said = recipe.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude=_FREE) | own
        _require_same(folder, json.loads(stored.read_text(encoding="utf-8")), resolved, said)
    return json.dumps(resolved, indent=1, sort_keys=True)


def _require_same(
    folder: Path, stored: Mapping[str, Any], resolved: Mapping[str, Any], said: Mapping[str, Any]
) -> None:
    before, now, spoken = dict(_flat(stored)), dict(_flat(resolved)), dict(_flat(said))
    different = [
        f"{key}: {before.get(key, _ABSENT)} -> {now.get(key, _ABSENT)}"
        for key in sorted(before.keys() | now.keys())
        # A key that did not exist when the run began has its default then and now.
        if before.get(key) != now.get(key) and (key in before or key in spoken)
    ]
    if different:
        error = RecipeError(
            f"{folder}: holds a run of another recipe: choose another folder or remove this one"
        )
        for line in different:
            error.add_note(line)
        raise error


def _flat(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys with dots and their values as JSON; tables in lists are counted from 0."""
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
    for name, value in pairs:
        path = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            yield from _flat(value, path)
        else:
            yield path, json.dumps(value, sort_keys=True)


def claim(folder: Path, recipe: Recipe, split: Split, resolved: str, devices: Devices) -> None:
    """Makes the folder the run's own, once all that the run needs is there."""
    stored = folder / "recipe.json"
    if not stored.exists():
        noted = provenance(recipe, split.groups, split.judged)
        noted |= {"device": devices.device.type, "processes": devices.world}
        write_atomically(folder / "run.json", json.dumps(noted, indent=1))
    write_atomically(stored, resolved)
    remove_partial(folder)
