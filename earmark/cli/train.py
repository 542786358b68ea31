"""``earmark train``: a recipe to a model file.

Conventions: progress goes to standard error, one line an epoch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.cli.program import TRAIN, command
from earmark.errors import extra
from earmark.model_file.atomic import write_atomically


@command(TRAIN)
def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file.", show_default=False)],
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Replace a value: optimizer.epochs=5")
    ] = None,
    fold: Annotated[int | None, typer.Option(min=1, help="Train and judge this fold only.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/<name of the recipe>.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; by default one per core.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, or one GPU such as cuda:0; by default a GPU where there is one."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    log: Annotated[
        list[str] | None, typer.Option(help="Show the numbers there too: tensorboard or wandb.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the whole recipe and what it comes to, write nothing.")
    ] = False,
) -> None:
    """Trains a network as a recipe says, or goes on where a killed run stopped; ends with a model file."""
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
        print(to_toml(loaded.model_dump(mode="json")))
        print("\n".join(f"# {line}" for line in planned))
        return
    folder = out or Path("runs") / loaded.name
    show = _silent if quiet else _progress_printer()
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


def _silent(facts: Mapping[str, Any]) -> None:
    """Reports nothing."""


def _progress_printer() -> Callable[[Mapping[str, Any]], None]:
    """One line an epoch, with rate and time left; on a terminal also a line that moves with each step."""
    latest: dict[str, Any] = {}

    def show(facts: Mapping[str, Any]) -> None:
        if "step" in facts:
            latest.update(facts)
            if sys.stderr.isatty():
                print(f"\r\x1b[2K{_as_line(facts)}", end="\r", file=sys.stderr, flush=True)
            return
        pace = ("clips_per_s", "left_min") if "epoch" in facts and latest else ()
        print(_as_line({**facts, **{key: latest[key] for key in pace}}), file=sys.stderr)

    return show


def _as_line(facts: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items()
    )
