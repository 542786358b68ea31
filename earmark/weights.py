"""Names of models -> files on this machine.

Conventions: a model is named either by a name from the table (:func:`names`) or by the path of a model file.
No torch, nothing is read here.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from earmark.errors import ModelError

DEFAULT = "mn04_esc18"
"""The model that is used where none is named; it ships with the package."""

_SHIPPED = Path(__file__).parent / "shipped"


def names() -> list[str]:
    """The models that :func:`earmark.load` knows by name, in alphabetical order."""
    return sorted(path.stem for path in _SHIPPED.glob("*.onnx"))


def find(model: str | os.PathLike[str] | None = None) -> Path:
    """The file of a model.

    Args:
        model: A name, the path of a model file, or None for the default model.

    Raises:
        ModelError: If there is neither a model of that name nor such a file; the message names the nearest.
    """
    wanted = DEFAULT if model is None else os.fspath(model)
    if wanted in names():
        return _SHIPPED / f"{wanted}.onnx"
    path = Path(wanted)
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise ModelError(f"{wanted}: there is no such model file")
    if not names():
        raise ModelError(
            f"there is no model named {wanted!r}, none is installed: give the path of a model file"
        )
    near = get_close_matches(wanted, names(), n=3, cutoff=0.3) or names()
    raise ModelError(
        f"there is no model named {wanted!r}: did you mean {' or '.join(near)}? (earmark models lists all)"
    )
