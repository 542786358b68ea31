"""``earmark complexity``: the cost of a network, and a recipe for one that fits a budget.

Conventions: text for people, ``--json`` for programs.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from earmark.cli.options import AsJson
from earmark.cli.program import TRAIN, command
from earmark.cli.terminal import say
from earmark.errors import extra
from earmark.model_file.atomic import require_other_files, write_atomically

if TYPE_CHECKING:
    from earmark.evaluation.complexity.budget import Budget
    from earmark.model_file.info import Precision

RECIPE = "Recipe of a smaller network"


@command(TRAIN)
def complexity(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name or file of a model, or name of an architecture.")
    ],
    seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Clip length (default: the budget's, or 10).")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGET",
            help="Exit with code 1 if the model exceeds it: dcase2021 to dcase2025, or "
            "params=128kB,macs=30M,seconds=1.",
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change an argument of the architecture or a constant of the front-end, such as n_mels=64; "
            "repeatable.",
        ),
    ] = None,
    bits: Annotated[int, typer.Option(min=1, max=64, help="Bits of a value, for the memory.")] = 16,
    as_json: AsJson = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a recipe (.toml) that distils MODEL into the largest network within --budget.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    dataset: Annotated[
        list[Path] | None,
        typer.Option(metavar="DATASET", help="Train on this CSV file; repeatable.", rich_help_panel=RECIPE),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where relative paths start (default: the dataset's folder).",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"],
        typer.Option(help="Storage format that the budget is counted in.", rich_help_panel=RECIPE),
    ] = "fp16",
) -> None:
    """Count parameters, MACs and memory of a network."""
    with extra("earmark complexity", "train"):
        from earmark.evaluation.complexity.budget import budget_use, parse_budget
        from earmark.evaluation.complexity.model_cost import complexity as cost_of

    limits = None if budget is None else parse_budget(budget)
    if output is not None:
        if limits is None or not dataset:
            raise typer.BadParameter("needs --budget and --dataset", param_hint="--output")
        say(_write_recipe(model, limits, precision, (dataset, audio), output))
        return
    cost = cost_of(model, seconds or (limits and limits.seconds) or 10.0, _values(change or []), bits)
    used = None if limits is None else budget_use(limits, cost)
    if as_json:
        exceeded = {"exceeded": list(used.exceeded)} if used else {}
        say(json.dumps(cost.to_dict() | exceeded, indent=1, ensure_ascii=False))
    else:
        say("\n".join([cost.summary(), *([used.summary()] if used else [])]))
    if used and used.exceeded:
        raise typer.Exit(1)


def _values(changes: list[str]) -> dict[str, Any]:
    """Names and values of KEY=VALUE, as TOML has them; a word needs no quotation marks."""
    values = {}
    for change in changes:
        name, equals, text = (part.strip() for part in change.partition("="))
        if not name or not equals or not text:
            raise typer.BadParameter(f"must be like n_mels=64, got {change!r}", param_hint="--set")
        try:
            values[name] = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            values[name] = text
    return values


def _write_recipe(
    model: str, budget: Budget, precision: Precision, clips: tuple[list[Path], Path | None], output: Path
) -> str:
    from earmark.export.budget_recipe import propose, recipe, require_manifests
    from earmark.export.calibration_set import find_clips
    from earmark.export.source import open_source
    from earmark.hub import registry

    if output.suffix != ".toml":
        raise typer.BadParameter(f"must end in .toml, got {output}", param_hint="--output")
    require_other_files([output], [model, *clips[0]])
    file = registry.find(model)
    info = open_source(str(file)).info
    require_manifests(clips[0], find_clips(clips[0], info, clips[1]))
    found = propose(info, budget, precision)
    write_atomically(output, recipe(found, info, file, clips, output))
    return f"{found.summary()}\nwrote {output}; train it with: earmark train {output}"
