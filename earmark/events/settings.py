"""Settings of events in a TOML file: for all labels, and for single ones.

    threshold = 0.4
    min_duration_s = 0.5

    [labels."Dog"]
    threshold = 0.3
    merge_gap_s = 1.0

Conventions: the keys are the fields of :class:`EventOptions`; those of a label the fields of
:class:`LabelOptions`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from earmark.errors import DataError, ModelError
from earmark.events.options import EventOptions, LabelOptions
from earmark.model_file.label_selection import select_labels
from earmark.model_file.tables import read_text

LABELS = "labels"
"""The table of the file that has a table for each label."""


def read_settings(
    path: str | os.PathLike[str] | None, labels: Sequence[str], changes: Mapping[str, Any]
) -> EventOptions:
    """Reads settings from a file.

    Args:
        path: The TOML file; None: only the changes.
        labels: Of the model; those of the file are matched regardless of case.
        changes: Fields of :class:`EventOptions` that override those of the file, unless they are None.

    Raises:
        DataError: If the file cannot be read, or has an unknown key or label, or an impossible value.
        ModelError: If a changed value is not possible.
    """
    own = {name: value for name, value in changes.items() if value is not None}
    if path is None:
        return EventOptions(**own)
    try:
        content = tomllib.loads(read_text(path))
        tables = content.pop(LABELS, {})
        if not isinstance(tables, dict):
            raise ModelError(f"{LABELS} must be tables, as [{LABELS}.Dog], got {tables!r}")
        each = {
            labels[select_labels(labels, [label])[0]]: LabelOptions(**_checked(table, LabelOptions))
            for label, table in tables.items()
        }
        general = _checked(content, EventOptions)
        EventOptions(**general)  # a mistake in the file is not one of the changes
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{os.fspath(path)}: is not TOML ({error})") from None
    except ModelError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from None
    return EventOptions(**general | {"per_label": each} | own)


def _checked(table: object, kind: type[EventOptions] | type[LabelOptions]) -> dict[str, Any]:
    """A table whose keys are fields of the options, and whose values are numbers or, of a few, texts."""
    if not isinstance(table, dict):
        raise ModelError(f"settings of a label must be a table, got {table!r}")
    allowed = [one.name for one in fields(kind) if one.name != "per_label"]
    for key, value in table.items():
        if key not in allowed:
            raise ModelError(f"unknown setting {key!r}: use {', '.join(allowed)}, or a table {LABELS}.NAME")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_text = isinstance(value, str) and kind is EventOptions and key in ("threshold", "method")
        if not is_number and not is_text:
            raise ModelError(f"{key} must be a number, got {value!r}")
    return table
