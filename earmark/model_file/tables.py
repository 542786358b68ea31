"""Reads tables strictly: every row has the fields of the header, or the table is refused with the line.

Conventions: UTF-8, with a header whose names are unique; blanks around these names are dropped, values stay
as they are, and empty lines are skipped. A file whose last row may have been cut short is refused: one with
too few fields, an open quote, or an empty last field and no line break.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from earmark.errors import DataError

Row = tuple[int, dict[str, str]]
"""The line on which a row ends, and its values by column."""


def read_table(
    path: str | PathLike[str],
    columns: Sequence[str] = (),
    *,
    what: str = "the table",
    delimiter: str = ",",
    skip_blanks: bool = False,
) -> list[Row]:
    """Reads a table with a header.

    Args:
        path: The file.
        columns: Required columns.
        what: Its name in messages.
        delimiter: Between fields.
        skip_blanks: Whether to drop blanks at the start of values.

    Raises:
        DataError: If it cannot be read or is empty, a column is missing or named twice, or a row has another
            number of fields.
    """
    text = read_text(path)
    lines = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=skip_blanks, strict=True
    )
    numbered = _numbered(path, lines, what)
    _, header = next(numbered, (0, []))
    header = [name.strip() for name in header]
    missing = [column for column in columns if column not in header]
    if missing:
        has = ", ".join(header) or "none"
        raise DataError(f"{path}: {what} lacks the column {', '.join(missing)}: it has {has}")
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:
        raise DataError(f"{path}: {what} has the column {repeated[0]!r} twice: rename one")
    rows = []
    for number, values in numbered:
        if len(values) != len(header):
            raise DataError(
                f"{path}, line {number}: must have {len(header)} fields ({', '.join(header)}), "
                f"got {len(values)}: quote values that contain {delimiter!r}, complete a row that was cut off"
            )
        rows.append((number, dict(zip(header, values, strict=True))))
    if rows and not values[-1] and text[-1:] not in "\r\n":
        raise DataError(
            f"{path}, line {number}: the last row ends without {header[-1]} and without a line break: was it "
            "cut off? complete it, or end it with a line break"
        )
    return rows


def read_text(path: str | PathLike[str]) -> str:
    """Reads a text file in UTF-8, with or without a byte-order mark.

    Raises:
        DataError: If it cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text in UTF-8 ({error})") from None


def _numbered(
    path: str | PathLike[str], reader: Iterator[list[str]], what: str
) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with its line."""
    try:
        for row in reader:
            if len(row) > 1 or any(map(str.strip, row)):
                yield reader.line_num, row  # type: ignore[attr-defined]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {what} cannot be read ({error})") from None  # type: ignore[attr-defined]
