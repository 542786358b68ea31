"""``earmark train``: a recipe to a model file.

Conventions: progress goes to standard error, one line per epoch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.cli.options import Quiet
from earmark.cli.program import TRAIN, command
from earmark.cli.progress import training_printer
from earmark.errors import extra
from earmark.model_file.atomic import write_atomically


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

        from earmark.export.export import export_model
        from earmark.training.config.recipe import load_recipe
        from earmark.training.config.toml import to_toml
        from earmark.training.cross_validation import cross_validate, run_folder
        from earmark.training.loggers import logging_to, open_loggers
        from earmark.training.model_card import model_card
        from earmark.training.runtime.devices import open_devices
        from earmark.training.runtime.dry_run import plan
        from earmark.training.trainer import train as train_network

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = [f"run.device={device}"] if device else []
    loaded = load_recipe(recipe, [*(override or []), *chosen])
    loggers = open_loggers([*loaded.logging.to, *(log or [])])
    if dry_run:
        planned = plan(loaded, fold).summary().splitlines()
        print(to_toml(loaded))
        print("\n".join(f"# {line}" for line in planned))
        return
    folder = output or Path("runs") / loaded.name
    show = (lambda facts: None) if quiet else training_printer()
    with open_devices(loaded.run.device) as devices, logging_to(loggers, loaded, folder) as keep:

        def report(facts: Mapping[str, Any]) -> None:
            # What only this process knows of, a clip that it cannot read, it says itself.
            if devices.writes or not {"fold", "epoch"} & facts.keys():
                show(facts)
                keep(facts)

        if fold is not None:
            report({"fold": fold})
            train_network(loaded, run_folder(folder, fold), fold, report)
            return
        judgement = cross_validate(loaded, folder, report)
        if not devices.writes:
            return
    card = model_card(loaded, judgement)
    model_file = folder / f"{loaded.name}.onnx"
    difference = export_model(judgement.network, judgement.info.changed(card=card), model_file)
    write_atomically(folder / "card.md", card)
    if not quiet:
        print(f"wrote {model_file} (equal to the network within {difference:.1g})", file=sys.stderr)
