"""Which row of others' predictions belongs to a clip.

Conventions: text files are UTF-8. A pickle is read by a reader that knows no function and no class, so there
is nothing in it that could run.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
from pathlib import Path
from typing import Any, NoReturn

from earmark.errors import DataError


def read_index(path: Path) -> dict[str, int]:
    """Which row the answers about a clip have.

    Args:
        path: A pickle (.pkl) or JSON file of a table from name to row, or a CSV file of two columns, a name
            and a row, with a header.

    Raises:
        DataError: If it cannot be read, or holds anything else.
    """
    if path.suffix == ".json":
        table = _parsed(path)
    elif path.suffix == ".csv":
        table = _rows(path)
    else:
        table = _unpickled(path)
    if not isinstance(table, dict) or not table:
        raise DataError(f"{path}: is no table from clips to rows")
    for name, row in table.items():
        if type(name) is not str or type(row) is not int:
            raise DataError(f"{path}: must lead from names to whole numbers, not from {name!r} to {row!r}")
    return table


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _parsed(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from None


def _rows(path: Path) -> dict[str, int]:
    table: dict[str, int] = {}
    for number, row in enumerate(csv.reader(io.StringIO(_text(path))), start=1):
        if number == 1 or not row:
            continue
        if len(row) != 2 or not row[1].strip().isdecimal():
            raise DataError(f"{path}, line {number}: must hold a name and a row, not {row}")
        table[row[0]] = int(row[1])
    return table


class _Reader(pickle.Unpickler):
    """Reads numbers, texts and containers; everything else in a pickle goes by the name of a class."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for an object from elsewhere")


def _unpickled(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return _Reader(stream).load()
    except OSError as error:
        raise DataError(f"{path}: the index cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(
            f"{path}: is not a plain table from names to rows ({error}), and nothing else is unpickled: "
            "write it as JSON"
        ) from None
