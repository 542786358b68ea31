"""Selects labels by name, and suggests similar ones for a name that is unknown.

Conventions: upper and lower case are equal, unless the labels differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from earmark.errors import ModelError


def select_labels(labels: Sequence[str], wanted: str | Iterable[str]) -> tuple[int, ...]:
    """Finds labels by name.

    Args:
        labels: All labels of a model.
        wanted: Names; or one string of comma-separated names, which may contain commas themselves.

    Returns:
        Positions in ``labels``, ascending, each once.

    Raises:
        ModelError: If a name is unknown or none is given; the message suggests similar labels.
    """
    names = _separated(wanted, labels) if isinstance(wanted, str) else list(wanted)
    if not names:
        raise ModelError("no label given: name at least one")
    return tuple(sorted({_position(name, labels) for name in names}))


def _separated(text: str, labels: Sequence[str]) -> list[str]:
    """Splits at commas, joining as many pieces as form a label."""
    known = {_key(label) for label in labels}
    pieces = text.split(",")
    names = []
    while pieces:
        counts = range(len(pieces), 0, -1)
        count = next((count for count in counts if _key(",".join(pieces[:count])) in known), 1)
        names.append(",".join(pieces[:count]).strip())
        del pieces[:count]
    return [name for name in names if name]


def _key(label: str) -> str:
    """A label for comparison: case-folded, without spaces around commas."""
    return ",".join(piece.strip() for piece in label.casefold().split(","))


def _position(name: str, labels: Sequence[str]) -> int:
    if name in labels:
        return labels.index(name)
    alike = [index for index, label in enumerate(labels) if _key(label) == _key(name)]
    if len(alike) == 1:
        return alike[0]
    raise ModelError(f"unknown label {name!r}: {nearest(name, labels)}")


def nearest(name: str, known: Sequence[str]) -> str:
    """Suggests known names that resemble an unknown one, as the end of an error message.

    Args:
        name: The unknown name.
        known: All names, at least one.
    """
    small = {entry.casefold(): entry for entry in known}
    near = get_close_matches(name.casefold(), small, n=3, cutoff=0.6)
    near += [entry for entry in small if name.casefold() in entry and entry not in near]
    if near:
        return f"did you mean {' or '.join(repr(small[entry]) for entry in near[:3])}?"
    return f"choose from {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
