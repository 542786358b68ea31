"""A strict loader: TOML files, one extending another, and ``a.b=value`` overrides -> frozen pydantic models.

Conventions: a key that the model does not know is an error that names the allowed ones; nothing is ever
ignored.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from earmark.errors import RecipeError

EXTENDS = "extends"
"""The key by which a file names another that it builds on."""
WITHOUT = "without"
"""The key by which such a file lists what it does not take over."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Section(BaseModel):
    """A table of a recipe: frozen, strict about keys, with a default for all that need not be said."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


SectionT = TypeVar("SectionT", bound=Section)


def load(model: type[SectionT], path: str | Path, overrides: Sequence[str] = ()) -> SectionT:
    """Reads a TOML file into a model.

    A file may say ``extends = "other.toml"``, relative to itself: it then takes over what that file says,
    key by key, except for what it says itself and what ``without = ["table.key"]`` lists. Lists, and arrays
    of tables, are replaced whole.

    Args:
        model: What the file must fit.
        path: The TOML file.
        overrides: ``"table.key=value"``, the value in TOML (a bare word is taken as text).

    Raises:
        RecipeError: If the file, or one that it extends, is missing, is not TOML, or does not fit; the
            message names the file, the key and what is allowed.
    """
    layers = _layers(Path(path))
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values = _merged(values, layer.values)
    for override in overrides:
        _apply(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        location = error.errors(include_url=False)[0]["loc"]
        raise RecipeError(f"{_named_by(layers, location)}: {_explain(model, error)}") from None


def to_toml(values: Mapping[str, Any], within: str = "") -> str:
    """Values as a TOML file that reads back as the same; None is left out, since TOML has no word for it.

    Args:
        values: Texts, numbers, truth, lists and tables of these.
        within: Name of the table that they are in; the file itself has none.
    """
    lines, tables = [], []
    for key, value in values.items():
        name = f"{within}.{_key(key)}" if within else _key(key)
        if isinstance(value, Mapping) and not within:
            tables.append(f"\n[{name}]\n{to_toml(value, name)}")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{name}]]\n{to_toml(entry, name)}" for entry in value]
        elif value is not None:
            lines.append(f"{_key(key)} = {_inline(value)}\n")
    return "".join(lines + tables)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = [f"{_key(key)} = {_inline(entry)}" for key, entry in value.items() if entry is not None]
        return "{ " + ", ".join(inside) + " }" if inside else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers and truth are written alike in TOML


class _Layer(NamedTuple):
    """What one file of a chain says itself."""

    path: Path
    values: dict[str, Any]
    without: Any


def _layers(path: Path) -> list[_Layer]:
    """The file and those that it extends, the file itself first, less what others leave out of them."""
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
            raise RecipeError(f"{path}: {EXTENDS} must be the path of another recipe (got {base!r})")
        named_by = f" ({path} extends it)"
        path = path.parent / base
        if path.resolve() in seen:
            raise RecipeError(f"{layers[-1].path}: {EXTENDS} = {base!r} leads round in a circle")
    for number, layer in enumerate(layers):
        _leave_out(layer, layers[number + 1 :])
    return layers


def _leave_out(layer: _Layer, below: Sequence[_Layer]) -> None:
    """Removes what a file does not take over from those that it extends."""
    if not isinstance(layer.without, list) or not all(isinstance(name, str) for name in layer.without):
        raise RecipeError(f"{layer.path}: {WITHOUT} must be a list of keys (got {layer.without!r})")
    for name in layer.without:
        if not sum(_remove(other.values, name.split(".")) for other in below):
            raise RecipeError(f"{layer.path}: {WITHOUT} lists {name!r}, which is in no file that it extends")


def _remove(values: dict[str, Any], keys: Sequence[str]) -> bool:
    for key in keys[:-1]:
        values = values.get(key, {})
        if not isinstance(values, dict):
            return False
    return values.pop(keys[-1], None) is not None


def _read(path: Path, named_by: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        said = f"{path}: cannot be read ({error.strerror}){named_by}: give the path of a recipe"
        raise RecipeError(said) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not valid TOML ({error})") from None


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def _named_by(layers: Sequence[_Layer], location: Sequence[int | str]) -> Path:
    """The file of the chain that the value at a location comes from; the first where none says it."""
    holding: list[tuple[Path, Any]] = [(layer.path, layer.values) for layer in layers]
    for key in location:
        if not isinstance(holding[0][1], dict):  # a list hides what the files below it say
            break
        deeper = [(path, table[key]) for path, table in holding if isinstance(table, dict) and key in table]
        if not deeper:
            break
        holding = deeper
    return holding[0][0]


def _apply(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"override {override!r} is not of the form table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise RecipeError(f"override {override!r}: {key!r} is a value, not a table")
    values[keys[-1]] = value


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
