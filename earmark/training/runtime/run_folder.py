"""Binds a run folder to one recipe, by the stored ``recipe.json``.

Conventions: descriptions, evaluation, device, loggers and the place of decoded clips may change without a new
training; every other change makes another run. Keys stored by earlier versions are translated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from earmark.errors import RecipeError, first_line
from earmark.model_file.atomic import remove_partial, write_atomically
from earmark.model_file.lock import locked_folder
from earmark.training.config.recipe import Recipe
from earmark.training.config.renamed_keys import translate
from earmark.training.runtime.devices import Devices
from earmark.training.runtime.provenance import provenance
from earmark.training.splits import Split

DESCRIPTIONS = ("description", "source", "command", "cost", "expected", "license")
"""Keys that describe a recipe and change no weight."""

_MAY_CHANGE: dict[str, Any] = {
    **dict.fromkeys((*DESCRIPTIONS, "evaluation", "logging", "run"), True),
    "data": {"cache_folder", "cache_gb"},
}
_ABSENT = "(nothing)"


def check_run_folder(folder: Path, recipe: Recipe, fold: int | None) -> str:
    """Checks that a folder is empty or holds a run of this recipe.

    Returns:
        The recipe as the folder stores it.

    Raises:
        RecipeError: If the folder holds a run of another recipe; its notes list the differing keys.
    """
    own = {"fold": fold, "keep": recipe.evaluation.keep}
    resolved = _values(recipe) | own
    stored = folder / "recipe.json"
    if stored.exists():
        try:
            before = translate(json.loads(stored.read_text(encoding="utf-8")))
        except (ValueError, RecursionError, AttributeError) as error:
            reason = f"{first_line(error)}): delete the run folder to start again"
            raise RecipeError(f"{stored}: is damaged ({reason}") from None
        _require_same(folder, before, resolved, explicit=_values(recipe, exclude_defaults=True) | own)
    return json.dumps(resolved, indent=1, sort_keys=True)


def _values(recipe: Recipe, exclude_defaults: bool = False) -> dict[str, Any]:
    return recipe.model_dump(
        mode="json", exclude_none=True, exclude_defaults=exclude_defaults, exclude=_MAY_CHANGE
    )


def _require_same(
    folder: Path, stored: Mapping[str, Any], resolved: Mapping[str, Any], explicit: Mapping[str, Any]
) -> None:
    before, now, given = dict(_flat(stored)), dict(_flat(resolved)), dict(_flat(explicit))
    different = [
        f"{key}: {before.get(key, _ABSENT)} -> {now.get(key, _ABSENT)}"
        for key in sorted(before.keys() | now.keys())
        # A key that did not exist when the run began had its default then.
        if before.get(key) != now.get(key) and (key in before or key in given)
    ]
    if different:
        error = RecipeError(f"{folder}: holds a run of another recipe: choose another folder or delete it")
        for line in different:
            error.add_note(line)
        raise error


def _flat(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and their values as JSON; tables in lists are numbered from 0."""
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
    for name, value in pairs:
        path = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            yield from _flat(value, path)
        else:
            yield path, json.dumps(value, sort_keys=True)


def run_lock(folder: Path, devices: Devices) -> AbstractContextManager[None]:
    """Holds a run folder for the main process, which writes all of its files.

    Raises:
        DataError: If another process holds it.
    """
    return locked_folder(folder) if devices.is_main else nullcontext()


def bind_run_folder(folder: Path, recipe: Recipe, split: Split, resolved: str, devices: Devices) -> None:
    """Stores the recipe and the provenance of a run, once all that it needs has been found."""
    stored = folder / "recipe.json"
    if not stored.exists():
        facts = provenance(recipe, split.groups, split.evaluated)
        facts |= {"device": devices.device.type, "processes": devices.world_size}
        write_atomically(folder / "run.json", json.dumps(facts, indent=1))
    write_atomically(stored, resolved)
    remove_partial(folder)
