"""``earmark join``: several models become one file that answers as all of them together.

Conventions: the path of the file goes to standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earmark.cli.program import SHIP, command
from earmark.cli.progress import download_bar


@command(SHIP)
def join(
    models: Annotated[
        list[str],
        typer.Argument(help="Names of published weights, or checkpoints (.safetensors).", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The model file.")],
    name: Annotated[
        str | None, typer.Option(help="The ensemble's name; by default those of the models, with + between.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Writes an ensemble, the mean of several models' logits, as one model file."""
    from earmark.errors import extra

    with extra("writing an ensemble as one file", "train"):
        from earmark.export.ensemble import join as join_models

    with download_bar(quiet) as report:
        join_models(models, out, name, progress=report)
    print(out)
