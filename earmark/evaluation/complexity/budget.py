"""Budgets of parameters and operations, such as those of DCASE, and whether a model fits them.

Source: the rules of DCASE, task 1. In 2021 the non-zero parameters of a system took at most 128 kB, which the
rules compute as 32,768 numbers of 32 bits; from 2022 to 2025 its parameters took at most 128 kB, zeros among
them, and a clip of one second at most 30 million multiply-accumulate operations.

Conventions: kB and MB are powers of 1000, KiB and MiB of 1024. Parameters are counted as ``earmark
complexity`` counts them: without the statistics of batch norms, which fusing removes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from earmark.errors import ModelError
from earmark.evaluation.complexity.model_cost import Complexity
from earmark.hub import registry
from earmark.model_file.info import Precision
from earmark.model_file.onnx_file import read_model_file, weight_bytes
from earmark.models.checkpoint import load_checkpoint

BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8}
_SIZES = {"B": 1, "kB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2}
_COUNTS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}
_UNITS: dict[str, dict[str, int]] = {"params": _SIZES | _COUNTS, "macs": _COUNTS, "seconds": {"": 1}}


@dataclass(frozen=True)
class Budget:
    """Limits; None where there is none.

    Args:
        name: As requested.
        size: Bytes of all parameters.
        parameters: Number of parameters.
        macs: Multiply-accumulate operations.
        seconds: Length of the clip that the operations are counted for; None: as requested, or the model's
            window.
        non_zero: Whether parameters of zero do not count.
    """

    name: str
    size: float | None = None
    parameters: float | None = None
    macs: float | None = None
    seconds: float | None = None
    non_zero: bool = False


BUDGETS = {
    "dcase2021": Budget("dcase2021", size=128 * 1024, non_zero=True),
    **{
        f"dcase{year}": Budget(f"dcase{year}", size=128_000, macs=30e6, seconds=1.0)
        for year in range(2022, 2026)
    },
}
"""The limits of DCASE, task 1, by year."""


def parse_budget(text: str) -> Budget:
    """Reads a budget: one of BUDGETS, or limits such as "params=128kB,macs=30M,seconds=1".

    ``params`` is a size (B, kB, MB, KiB, MiB) or a number (k, M), ``macs`` a number (k, M, G).

    Raises:
        ModelError: If it is neither.
    """
    if text in BUDGETS:
        return BUDGETS[text]
    limits: dict[str, float] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(params|macs|seconds)\s*=\s*(\d+\.?\d*|\.\d+)\s*([A-Za-z]*)\s*", part)
        unit = _UNITS[found[1]].get(found[3]) if found else None
        if found is None or unit is None or not float(found[2]):
            raise ModelError(
                f"{part.strip()!r} is not a budget: give limits such as params=128kB,macs=30M,seconds=1, "
                f"or one of {', '.join(BUDGETS)}"
            )
        is_size = found[1] == "params" and found[3] in _SIZES
        field = {"params": "size" if is_size else "parameters"}.get(found[1], found[1])
        limits[field] = float(found[2]) * unit
    return Budget(text, **limits)  # type: ignore[arg-type]  # none of them is non_zero


@dataclass(frozen=True)
class BudgetUse:
    """How much of a budget a model uses.

    Args:
        budget: The budget.
        parameters: Number of parameters, without zeros where the budget does not count them.
        size: Bytes that they take.
        macs: Multiply-accumulate operations.
        seconds: Length of the clip that those are counted for.
    """

    budget: Budget
    parameters: int
    size: float
    macs: int
    seconds: float

    @property
    def exceeded(self) -> tuple[str, ...]:
        """A text for each limit that is exceeded."""
        budget, million = self.budget, 1e6
        checked = [
            (self.size, budget.size, 1, "bytes of parameters"),
            (self.parameters, budget.parameters, 1, "parameters"),
            (self.macs, budget.macs, million, f"million operations for {self.seconds:g} s"),
        ]
        return tuple(
            f"{used / unit:,.10g} {what} (limit {limit / unit:,.10g})"
            for used, limit, unit, what in checked
            if limit is not None and used > limit
        )

    def summary(self) -> str:
        """One line of text."""
        if self.exceeded:
            return f"Budget {self.budget.name}: exceeded by {'; '.join(self.exceeded)}."
        return (
            f"Budget {self.budget.name}: kept, with {self.size:,.0f} bytes of parameters and "
            f"{self.macs / 1e6:,.1f} M operations for {self.seconds:g} s."
        )


def budget_use(budget: Budget, complexity: Complexity) -> BudgetUse:
    """Computes how much of a budget a model uses.

    Args:
        budget: The budget.
        complexity: Of the model, for a clip of the budget's length.

    Returns:
        For an int8 model file, the size is that of the file's weights, scales and biases; otherwise that of
        the parameters in the model's own precision, 32 bits where there is no file. Zeros are counted in
        checkpoints only.
    """
    parameters = complexity.cost.parameters
    size: float | None = None
    path = registry.lookup(complexity.name)
    precision: Precision = "fp32"
    if path is not None and path.suffix == ".safetensors":
        network, info = load_checkpoint(path)
        precision = info.precision
        if budget.non_zero:
            parameters = sum(int(one.count_nonzero()) for one in network.parameters())
    elif path is not None:
        content, info = read_model_file(path)
        precision = info.precision
        size = weight_bytes(content) if precision == "int8" else None
    size = parameters * BITS[precision] / 8 if size is None else size
    return BudgetUse(budget, parameters, size, complexity.cost.macs, complexity.seconds)
