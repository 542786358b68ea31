"""The base class of a recipe's tables, and the kinds of numbers that they hold.

Conventions: a table is a frozen pydantic model that refuses unknown keys; the docstring below a field is what
the generated key table of docs/train.md prints.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from earmark.model_file.info import LONGEST_WINDOW_S

_LONGEST_NAME = 100


def _name(value: str) -> str:
    if not value.isprintable() or not 0 < len(value) <= _LONGEST_NAME:
        raise ValueError(f"must have 1 to {_LONGEST_NAME} printable characters")
    if value.startswith((".", "-", "~")) or value != value.strip() or set(value) & set('/\\:*?"<>|'):
        raise ValueError("names files and a folder: letters, digits, blanks, and ( ) + , . - _ are safe")
    return value


_MOST = 10**9

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=_MOST)]
NonNegative = Annotated[float, Field(ge=0, le=_MOST)]
Count = Annotated[int, Field(gt=0, le=_MOST)]
Natural = Annotated[int, Field(ge=0, le=_MOST)]
WindowSeconds = Annotated[float, Field(ge=0, le=LONGEST_WINDOW_S)]
Decibels = Annotated[float, Field(ge=-200, le=200)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, AfterValidator(_name)]
"""A name that is the name of a file and a folder too."""


class Section(BaseModel):
    """One table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def fold_name(fold: int | None) -> str:
    """The value of ``{fold}`` in a path, and the name of a run's folder: ``fold1``, ...; None: ``all``."""
    return "all" if fold is None else f"fold{fold}"
