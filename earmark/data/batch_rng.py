"""Random numbers for a batch whose rows are distributed over several processes.

Conventions: all processes draw for the whole batch, in its order, and keep the numbers of their rows, so an
item is augmented alike whichever process holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

Drawn = TypeVar("Drawn")


class RowsGenerator(np.random.Generator):
    """A generator that draws for the whole batch and returns the numbers of this process's rows.

    A size whose first number counts rows means one draw per row; no size means one draw for the whole batch,
    the same in all processes.

    Args:
        seed: As for ``np.random.default_rng``.
        total: Rows of the whole batch.
        rows: Rows of this process.
        gather: Gathers the rows of all processes: (row, ...) -> (total, ...).
    """

    def __init__(
        self, seed: Sequence[int], total: int, rows: slice, gather: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(np.random.default_rng(seed).bit_generator)
        self.batch = np.random.Generator(self.bit_generator)
        """Draws for the whole batch, from the same source."""
        self.total, self.rows, self.gather = total, rows, gather

    def _own(self, draw: Callable[..., Any], arguments: Sequence[Any], size: Any) -> Any:
        if size is None:
            return draw(*arguments)
        _, *each = np.atleast_1d(size)
        return draw(*arguments, size=(self.total, *each))[self.rows]

    def random(self, size: Any = None) -> Any:  # type: ignore[override]
        """Uniform in [0, 1)."""
        return self._own(self.batch.random, (), size)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """Uniform in [low, high)."""
        return self._own(self.batch.uniform, (low, high), size)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64) -> Any:  # type: ignore[override]
        """From the normal distribution of mean 0 and variance 1."""
        return self._own(partial(self.batch.standard_normal, dtype=dtype), (), size)

    def beta(self, a: Any, b: Any, size: Any = None) -> Any:
        """From the Beta distribution."""
        return self._own(self.batch.beta, (a, b), size)

    def integers(self, low: Any, high: Any = None, size: Any = None) -> Any:  # type: ignore[override]
        """Integers, low <= number < high."""
        return self._own(self.batch.integers, (low, high), size)

    def permutation(self, x: Any, axis: int = 0) -> Any:
        """Position of each row's partner in the whole batch."""
        return self.batch.permutation(self.total)[self.rows]


def each_row(
    generator: np.random.Generator, count: int, draw: Callable[[np.random.Generator], Drawn]
) -> list[Drawn]:
    """Draws once for each row."""
    if isinstance(generator, RowsGenerator):
        return [draw(generator.batch) for _ in range(generator.total)][generator.rows]
    return [draw(generator) for _ in range(count)]


def all_rows(generator: np.random.Generator, values: Tensor) -> Tensor:
    """The rows of the whole batch, (total, ...), which contain the partners."""
    return generator.gather(values) if isinstance(generator, RowsGenerator) else values
