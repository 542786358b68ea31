"""State dicts: where a checkpoint has its own, and whether it fits a network.

Conventions: names, shapes and number of tensors have to be equal: loading is strict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from earmark.errors import ModelError

CONTAINERS = ("state_dict", "net", "model")
"""Keys of checkpoints for their state dict, in order of preference."""
_MAX_SHOWN, _MAX_LENGTH = 3, 200
Shapes = Mapping[str, tuple[int, ...]]
T = TypeVar("T")


def find_state_dict(content: object, tensor: type[T]) -> dict[str, T]:
    """Finds the state dict of a checkpoint: the content itself, or an entry of :data:`CONTAINERS`.

    Args:
        content: What was read.
        tensor: Type of its tensors.

    Raises:
        ModelError: If there is none.
    """
    holders = [content, *(content.get(key) for key in CONTAINERS)] if isinstance(content, Mapping) else []
    for holder in holders:
        if isinstance(holder, Mapping) and holder and all(isinstance(v, tensor) for v in holder.values()):
            return {str(name): value for name, value in holder.items()}
    raise ModelError(f"has no state dict, neither alone nor as {', '.join(CONTAINERS)}")


def misfits(wanted: Shapes, given: Shapes) -> list[str]:
    """Lists what keeps tensors from being loaded into a network.

    Args:
        wanted: Name -> shape of the network's tensors.
        given: Name -> shape of the tensors to load.

    Returns:
        A phrase for each tensor that is missing, left over or of another shape.
    """
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is unexpected" for name in given if name not in wanted]
    return problems + [
        f"{name} has shape {given[name]} instead of {shape}"
        for name, shape in wanted.items()
        if given.get(name, shape) != shape
    ]


def summary(problems: Iterable[str]) -> str:
    """Joins the first problems to one line, with the number of the others; names in them may be anything."""
    found = list(problems)
    more = f" and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else ""
    return "; ".join(map(_shown, found[:_MAX_SHOWN])) + more


def _shown(problem: str) -> str:
    short = problem if len(problem) <= _MAX_LENGTH else f"{problem[:_MAX_LENGTH]}..."
    return short if short.isprintable() else ascii(short)[1:-1]
