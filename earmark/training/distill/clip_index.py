"""Index files of published predictions: the row of each clip.

Conventions: text files are UTF-8. Pickles are read by an unpickler that resolves no classes or functions, so
nothing in them can run.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

from earmark.errors import DataError
from earmark.model_file.strict_json import parse_json
from earmark.model_file.tables import read_table, read_text


def read_index(path: Path) -> dict[str, int]:
    """Reads the row of each clip.

    Args:
        path: A mapping from clip name to row as pickle (.pkl) or JSON, or a CSV file with a header and two
            columns, name and row.

    Raises:
        DataError: If it cannot be read, repeats a name, or holds anything else.
    """
    if path.suffix == ".json":
        table = _read_json(path)
    elif path.suffix == ".csv":
        table = _read_csv(path)
    else:
        table = _read_pickle(path)
    if not isinstance(table, dict) or not table:
        raise DataError(f"{path}: must be a mapping from clip names to rows")
    for name, row in table.items():
        if type(name) is not str or type(row) is not int:
            raise DataError(f"{path}: must map names to whole numbers, got {name!r} -> {row!r}")
    return table


def _read_json(path: Path) -> Any:
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from None


def _read_csv(path: Path) -> dict[str, int]:
    table: dict[str, int] = {}
    for line, row in read_table(path, what="the index"):
        values = tuple(row.values())
        if len(values) != 2 or not re.fullmatch(r"\s*[0-9]{1,15}\s*", values[1]):
            raise DataError(f"{path}, line {line}: must hold a name and a row, got {list(values)}")
        if values[0] in table:
            raise DataError(f"{path}, line {line}: the name {values[0]!r} is repeated")
        table[values[0]] = int(values[1])
    return table


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings and containers; every other object is named by its class, which is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to an external object")


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return _PlainUnpickler(stream).load()
    except OSError as error:
        raise DataError(f"{path}: the index cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(
            f"{path}: must be a plain mapping from names to rows ({error}); other pickles are refused: "
            "convert it to JSON"
        ) from None
