"""``earmark train``: a recipe to a model file.

Conventions: progress goes to standard error, one line per epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.cli.options import Quiet
from earmark.cli.program import TRAIN, command, exit_code
from earmark.cli.progress import training_printer
from earmark.cli.terminal import complain, note, say
from earmark.errors import extra


@command(TRAIN)
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file.")],
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: optimizer.epochs=5; repeatable."),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Train this fold of the cross-validation only.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Run folder (default: runs/NAME)."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or auto (default: the recipe's).")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads (default: one per core).")
    ] = None,
    log: Annotated[
        list[str] | None, typer.Option(metavar="LOGGER", help="Log to tensorboard or wandb too; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and a summary; write nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train a model from a recipe, or resume a run."""
    with extra("earmark train", "train"):
        import torch

        from earmark.inference.engines import check_threads
        from earmark.training.config.recipe import load_recipe
        from earmark.training.config.toml import to_toml
        from earmark.training.run import train as run_recipe
        from earmark.training.runtime.dry_run import dry_run as measure

    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = [f"run.device={device}"] if device else []
    overrides = [*(override or []), *chosen]
    if dry_run:
        loaded = load_recipe(recipe, overrides)
        lines = measure(loaded, fold).summary().splitlines()
        say(to_toml(loaded))
        say("\n".join(f"# {line}" for line in lines))
        return
    unreadable: list[str] = []

    def progress(facts: Mapping[str, Any]) -> None:
        if "skipped" in facts:
            unreadable.append(facts["skipped"])
            complain(f"{facts['skipped']} (skipped)")
        elif show is not None:
            show(facts)

    show = None if quiet else training_printer()
    result = run_recipe(
        recipe, overrides=overrides, output=output, fold=fold, loggers=log or [], progress=progress
    )
    if result.model_file is not None and not quiet:
        difference = f"{result.export_error:.1g}"
        note(f"wrote {result.model_file} (equal to the network within {difference})")
    exit_code(1, len(unreadable))
