"""Groups takes of one source by their names, so that they are never on both sides of a split.

Conventions: a group that the data states (a column, a subfolder, a long recording) stands. Otherwise the
marks of takes at the end of a file's name are dropped (``-A``, ``_2``, ``(3)``, ``take4``, ``part1``), and
files of a class that share what is left, which must have a digit, as an identifier has, are one group.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark.custom.example import Example

_TAKE = re.compile(
    r"[-_. ]*(?:\(\d+\)|[-_. ](?:take|part|copy|seg|segment|clip|chunk)?[-_ ]?(?:\d{1,3}|[A-Za-z]))$", re.I
)
MIN_SOURCES = 2


def group_takes(examples: Sequence[Example]) -> Iterator[Example]:
    """Yields the examples in their order, each with a group.

    Args:
        examples: Those with a group keep it.
    """
    stems: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for example in examples:
        if not example.group:
            stems[example.labels].add(source_name(example.path.stem))
    for example in examples:
        if example.group:
            yield example
            continue
        name = source_name(example.path.stem)
        # A class whose files all have one name but for a number has takes of unknown sources.
        known = any(letter.isdigit() for letter in name) and len(stems[example.labels]) >= MIN_SOURCES
        folder = example.path.parent
        yield replace(example, group=str(folder / name) if known else str(example.path))


def source_name(stem: str) -> str:
    """The name of a file without the marks of takes at its end."""
    while (shorter := _TAKE.sub("", stem)) != stem and shorter:
        stem = shorter
    return stem
