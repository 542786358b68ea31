"""``earmark complexity``: what a network costs.

Conventions: words for people, ``--json`` for programs.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from earmark.cli.program import TRAIN, command
from earmark.errors import extra


@command(TRAIN)
def complexity(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name or file, a checkpoint, or an architecture's name.", show_default=False
        ),
    ],
    seconds: Annotated[
        float | None, typer.Option(help="Length of the clip; 10, or that of the budget.", show_default=False)
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="dcase2021 to dcase2025, or params=128kB,macs=30M,seconds=1; exit code 1 if exceeded."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Counts parameters, operations, memory and receptive field of a network."""
    with extra("earmark complexity", "train"):
        from earmark.evaluation.complexity.budget import budget_use, parse_budget
        from earmark.evaluation.complexity.model_cost import complexity as measured

    limits = None if budget is None else parse_budget(budget)
    answer = measured(model, seconds or (limits and limits.seconds) or 10.0)
    used = limits and budget_use(limits, answer)
    if as_json:
        told = answer.to_dict() | ({"exceeded": list(used.exceeded)} if used else {})
        print(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        print("\n".join([answer.summary(), *([used.summary()] if used else [])]))
    if used and used.exceeded:
        raise typer.Exit(1)
