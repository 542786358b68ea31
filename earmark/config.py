"""A strict loader: TOML and ``a.b=value`` overrides -> frozen pydantic models.

Conventions: a key that the model does not know is an error that names the allowed ones; nothing is ever
ignored.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from earmark.errors import RecipeError


class Section(BaseModel):
    """A table of a recipe: frozen, strict about keys, with a default for all that need not be said."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


SectionT = TypeVar("SectionT", bound=Section)


def load(model: type[SectionT], path: str | Path, overrides: Sequence[str] = ()) -> SectionT:
    """Reads a TOML file into a model.

    Args:
        model: What the file must fit.
        path: The TOML file.
        overrides: ``"table.key=value"``, the value in TOML (a bare word is taken as text).

    Raises:
        RecipeError: If the file is missing, is not TOML, or does not fit; the message names the key and what
            is allowed.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}): give the path of a recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not valid TOML ({error})") from None
    for override in overrides:
        _apply(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_explain(model, error)}") from None


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
