"""Loads TOML files into pydantic models: files that extend one another, and ``a.b=value`` overrides.

Conventions: an unknown key is an error that lists the allowed ones, an old key one that names its new name;
nothing is ignored. TOML is written by ``tomli-w``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

import tomli_w
from pydantic import ValidationError

from earmark.errors import RecipeError
from earmark.training.config.renamed_keys import advice, old_keys
from earmark.training.config.section import Section

EXTENDS = "extends"
"""Key that names the recipe a file extends."""
WITHOUT = "without"
"""Key that lists what such a file does not inherit."""

_DEEPEST_KEY, _DEEPEST = 10, 50
"""Limits of the parts of a dotted key and of the levels of values: recipes have four."""

SectionT = TypeVar("SectionT", bound=Section)


def load(model: type[SectionT], path: str | Path, overrides: Sequence[str] = ()) -> SectionT:
    """Loads and validates a TOML file.

    A file with ``extends = "other.toml"``, a path relative to its own folder, inherits that file's values key
    by key, except for those it sets itself and those listed by ``without = ["table.key"]``. Lists and arrays
    of tables are replaced whole.

    Args:
        model: The model to validate.
        path: The TOML file.
        overrides: ``"table.key=value"``, the value in TOML (a bare word is a string). Tables of a list are
            counted from 0: ``"data.sources.0.folder=/data/esc50"``.

    Raises:
        RecipeError: If the file, or one it extends, is missing, is not TOML, or does not validate; the
            message names the file, the key and the allowed values.
    """
    layers = _layers(Path(path))
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values = _merged(values, layer.values)
    for override in overrides:
        _apply(values, override)
    if outdated := list(old_keys(values)):
        messages = "; ".join(message for _, message in outdated)
        raise RecipeError(f"{_file_of(layers, outdated[0][0])}: {messages}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        location = error.errors(include_url=False)[0]["loc"]
        raise RecipeError(f"{_file_of(layers, location)}: {_explain(model, error)}") from None


def to_toml(section: Section) -> str:
    """A model as a TOML file that loads as the same model; fields that are None are left out."""
    return tomli_w.dumps(section.model_dump(mode="json", exclude_none=True))


class _Layer(NamedTuple):
    """The values of one file of a chain."""

    path: Path
    values: dict[str, Any]
    without: Any


def _layers(path: Path) -> list[_Layer]:
    """The file and those it extends, nearest first, without the keys that nearer files exclude."""
    layers: list[_Layer] = []
    seen: list[Path] = []
    named_by = ""
    while True:
        seen.append(path.resolve())
        values = _read(path, named_by)
        base, without = values.pop(EXTENDS, None), values.pop(WITHOUT, [])
        layers.append(_Layer(path, values, without))
        if base is None:
            break
        if not isinstance(base, str) or not base:
            raise RecipeError(f"{path}: {EXTENDS} must be the path of another recipe, got {base!r}")
        named_by = f" (extended by {path})"
        path = path.parent / base
        if path.resolve() in seen:
            raise RecipeError(f"{layers[-1].path}: {EXTENDS} = {base!r} is circular")
    for number, layer in enumerate(layers):
        _leave_out(layer, layers[number + 1 :])
    return layers


def _leave_out(layer: _Layer, below: Sequence[_Layer]) -> None:
    """Removes the keys that a file excludes from the files it extends."""
    if not isinstance(layer.without, list) or not all(isinstance(name, str) for name in layer.without):
        raise RecipeError(f"{layer.path}: {WITHOUT} must be a list of keys, got {layer.without!r}")
    for name in layer.without:
        if not sum(_remove(other.values, name.split(".")) for other in below):
            reason = advice(name) or "no file that it extends has this key"
            raise RecipeError(f"{layer.path}: {WITHOUT} lists {name!r}: {reason}")


def _remove(values: dict[str, Any], keys: Sequence[str]) -> bool:
    for key in keys[:-1]:
        values = values.get(key, {})
        if not isinstance(values, dict):
            return False
    return values.pop(keys[-1], None) is not None


def _read(path: Path, named_by: str) -> dict[str, Any]:
    try:
        return _shallow(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}){named_by}: give the path of a recipe"
        raise RecipeError(message) from None
    except ValueError as error:
        raise RecipeError(f"{path}: is not valid TOML ({error})") from None
    except RecursionError:
        raise RecipeError(f"{path}: is not a recipe: its values are nested too deeply") from None


def _shallow(values: dict[str, Any]) -> dict[str, Any]:
    """The values, of which all that follows is recursive.

    Raises:
        RecursionError: If they are nested too deeply.
    """
    level: list[Any] = [values]
    for _ in range(_DEEPEST):
        inside = (one.values() if isinstance(one, dict) else one for one in level)
        level = [value for some in inside for value in some if isinstance(value, dict | list)]
    if level:
        raise RecursionError
    return values


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def _file_of(layers: Sequence[_Layer], location: Sequence[int | str]) -> Path:
    """The file of the chain that sets the value at a location; the first if none does."""
    holding: list[tuple[Path, Any]] = [(layer.path, layer.values) for layer in layers]
    for key in location:
        if not isinstance(holding[0][1], dict):  # a list replaces those of the files below it
            break
        deeper = [(path, table[key]) for path, table in holding if isinstance(table, dict) and key in table]
        if not deeper:
            break
        holding = deeper
    return holding[0][0]


def _apply(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys) or len(keys) > _DEEPEST_KEY:
        raise RecipeError(f"override {override!r} is not of the form table.key=value")
    try:
        value = _shallow(tomllib.loads(f"value = {text}"))["value"]
    except ValueError:
        value = text.strip()
    except RecursionError:
        raise RecipeError(f"override {name.strip()}: the value is nested too deeply") from None
    holder: Any = values
    for number, key in enumerate(keys[:-1]):
        holder = _entered(holder, key, ".".join(keys[:number]), override)
    if isinstance(holder, list):
        holder[_position(holder, keys[-1], ".".join(keys[:-1]), override)] = value
    elif isinstance(holder, dict):
        holder[keys[-1]] = value
    else:
        raise RecipeError(f"override {override!r}: {keys[-2]!r} is a value, not a table")


def _entered(holder: Any, key: str, name: str, override: str) -> Any:
    """The table or list of a key, created if it is missing; a key of a list is a position from 0."""
    if isinstance(holder, list):
        return holder[_position(holder, key, name, override)]
    if isinstance(holder, dict):
        return holder.setdefault(key, {})
    raise RecipeError(f"override {override!r}: {name.rpartition('.')[2]!r} is a value, not a table")


def _position(holder: Sequence[Any], key: str, name: str, override: str) -> int:
    if re.fullmatch("[0-9]{1,9}", key) and int(key) < len(holder):
        return int(key)
    allowed = f"from 0 to {len(holder) - 1}" if holder else "none, as it is empty"
    raise RecipeError(f"override {override!r}: {name} is a list: its positions are {allowed}, got {key!r}")


def _explain(model: type[Section], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section = _section_at(model, first["loc"][:-1])
        allowed = f"; allowed here: {', '.join(sorted(section.model_fields))}" if section else ""
        text = f"unknown key {where!r}{allowed}"
    elif first["type"] == "missing":
        text = f"key {where!r} is missing"
    else:
        text = f"{where or 'recipe'}: {first['msg'].removeprefix('Value error, ')}"
        if not isinstance(first["input"], dict):
            text += f" (got {first['input']!r})"
    more = len(error.errors()) - 1
    return f"{text} (and {more} more)" if more else text


def _section_at(model: type[Section], location: tuple[int | str, ...]) -> type[Section] | None:
    section: type[Section] | None = model
    for key in location:
        if isinstance(key, int):
            continue
        entry = section.model_fields.get(key) if section else None
        section = _section_in(entry.annotation) if entry else None
    return section


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (tuple, list, Union, UnionType):
        return next((found for found in map(_section_in, get_args(annotation)) if found), None)
    return None
