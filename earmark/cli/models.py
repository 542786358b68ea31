"""``earmark models`` and ``earmark info``: what models there are, and what they carry.

Conventions: text for people, ``--json`` for programs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earmark.cli.program import app
from earmark.errors import extra

if TYPE_CHECKING:
    from earmark.weights import Published


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw score against parameters and operations: png, svg or pdf.")
    ] = None,
) -> None:
    """Lists the models that are known by name, and which of them are on this machine."""
    from earmark import weights

    if plot is not None:
        with extra("earmark models --plot", "plot"):
            from earmark.plots import plot_models

        plot_models(weights.published().values(), plot)
        return
    own = [_shipped_row(name) for name in weights.shipped()]
    others = [_published_row(known) for known in weights.published().values()]
    if as_json:
        print(json.dumps(own + others, indent=1, ensure_ascii=False))
        return
    for row in own:
        mark = " (default)" if row["default"] else ""
        print(
            f"{row['name']}{mark}: {row['labels']} labels, {row['megabytes']} MB, {row['license']}."
            f" {row['description']}"
        )
    print("\nPublished by others, fetched on first use (*: on this machine):")
    print(_line(" ", "name", "labels", "parameters", "MACs", "published score"))
    for row in others:
        print(_published_line(row))


def _shipped_row(name: str) -> dict[str, Any]:
    from earmark import weights
    from earmark.model_file import read_record

    path = weights.find(name)
    record = read_record(path)
    return {
        "name": name,
        "default": name == weights.DEFAULT,
        "path": str(path),
        "labels": len(record.labels),
        "sample_rate": record.front_end.sample_rate,
        "window_s": record.window_s,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "license": record.license,
        "description": record.description,
        "architecture": record.architecture,
        "arguments": dict(record.arguments),
        "front_end": record.front_end.to_dict(),
        "task": record.task,
        "source": record.source,
    }


def _published_row(known: Published) -> dict[str, Any]:
    path = known.model_file if known.labels else known.checkpoint
    here = known.on_this_machine
    return {
        "name": known.name,
        "default": False,
        "path": str(path) if here else None,
        "labels": known.num_classes if known.labels else 0,
        "sample_rate": known.front_end.sample_rate,
        "window_s": known.window_s,
        "megabytes": round(path.stat().st_size / 1e6, 1) if here else None,
        "license": known.license or None,
        "description": known.description,
        "architecture": known.architecture,
        "arguments": dict(known.arguments),
        "front_end": known.front_end.to_dict(),
        "task": known.task,
        "source": known.source,
        "label_set": known.labels,
        "params": known.params,
        "macs": known.macs,
        "scores": dict(known.scores),
        "scored_on": known.scored_on or None,
        "license_note": known.license_note or None,
        "url": known.url,
        "size": known.size,
        "sha256": known.sha256 or None,
    }


def _published_line(row: dict[str, Any]) -> str:
    params = f"{row['params'] / 1e6:.2f} M" if row["params"] else ""
    macs = f"{row['macs'] / 1e9:.2f} G" if row["macs"] else ""
    scores = ", ".join(f"{name} {value:g}" for name, value in row["scores"].items())
    labels = f"{row['labels']} {row['label_set']}" if row["label_set"] else "none (to train on)"
    return _line("*" if row["path"] else " ", row["name"], labels, params, macs, scores)


def _line(mark: str, name: str, labels: str, params: str, macs: str, scores: str) -> str:
    return f"{mark} {name:<32}  {labels:<18}  {params:>10}  {macs:>7}  {scores}".rstrip()


@app.command()
def info(
    model: Annotated[
        str | None,
        typer.Argument(help="A model's name or file, or several: a+b; by default the one that ships."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole record, as JSON.")] = False,
) -> None:
    """Prints what a model carries: its card, labels, front-end and scores."""
    from earmark import weights
    from earmark.ensemble import joined
    from earmark.model_file import read_record

    names = (None,) if model is None else weights.members(model)
    record = joined([read_record(weights.find(name)) for name in names])
    if as_json:
        print(json.dumps(json.loads(record.to_json()), indent=1, ensure_ascii=False))
        return
    print(f"{record.name}: {record.description}")
    threshold = "of each label" if isinstance(record.threshold, tuple) else record.threshold
    print(
        f"task: {record.task}, threshold: {threshold}, window: {record.window_s} s, padding: {record.padding}"
    )
    if record.calibration is not None:
        fitted_on = ", ".join(f"{key} {value}" for key, value in record.calibration.fitted_on.items())
        print(f"calibration: {record.calibration.method}; scores are probabilities; fitted on: {fitted_on}")
    print(
        f"architecture: {record.architecture} {json.dumps(dict(record.arguments))},"
        f" embedding: {record.embedding_size}"
    )
    for front_end in record.front_ends:
        print("front-end: " + ", ".join(f"{key} {value}" for key, value in front_end.to_dict().items()))
    print(f"license: {record.license}\nlabels: {', '.join(record.labels)}")
    if record.card:
        print(f"\n{record.card}")
