"""``earmark complexity``: what a network costs.

Conventions: words for people, ``--json`` for programs.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from earmark.cli.program import app
from earmark.errors import extra


@app.command()
def complexity(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name or file, a checkpoint, or an architecture's name.", show_default=False
        ),
    ],
    seconds: Annotated[float, typer.Option(help="Length of the clip.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Counts parameters, operations, memory and receptive field of a network."""
    with extra("earmark complexity", "train"):
        from earmark.evaluate.complexity import complexity as measured

    answer = measured(model, seconds)
    print(json.dumps(answer.to_dict(), indent=1, ensure_ascii=False) if as_json else answer.in_words())
