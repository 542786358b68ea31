"""``earmark models`` and ``earmark info``: which models there are, and what is known about one.

Conventions: text for people, ``--json`` for programs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earmark.cli.options import AsJson
from earmark.cli.program import MODELS, command
from earmark.cli.terminal import say
from earmark.errors import extra

if TYPE_CHECKING:
    from earmark.hub.registry import PublishedModel

_COLUMNS = ("", "name", "labels", "parameters", "MACs", "published score")


@command(MODELS)
def models(
    as_json: AsJson = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Plot score against parameters and MACs: .png, .svg or .pdf."),
    ] = None,
) -> None:
    """List the models that have a name."""
    from earmark.hub import registry

    if plot is not None:
        with extra("earmark models --plot", "plot"):
            from earmark.evaluation.plots import plot_models

        plot_models(registry.published().values(), plot)
        return
    own = [_shipped_row(name) for name in registry.shipped()]
    others = [_published_row(known) for known in registry.published().values()]
    if as_json:
        say(json.dumps(own + others, indent=1, ensure_ascii=False))
        return
    for row in own:
        mark = " (default)" if row["default"] else ""
        say(
            f"{row['name']}{mark}: {row['labels']} labels, {row['megabytes']} MB, {row['license']}."
            f" {row['description']}"
        )
    say("\nPublished by others, downloaded on first use (*: on this machine):")
    say(_line(*_COLUMNS))
    for row in others:
        say(_published_line(row))


def _shipped_row(name: str) -> dict[str, Any]:
    from earmark.hub import registry
    from earmark.model_file.onnx_file import read_info

    path = registry.find(name)
    info = read_info(path)
    return {
        "name": name,
        "default": name == registry.DEFAULT,
        "path": str(path),
        "labels": len(info.labels),
        "sample_rate": info.front_end.sample_rate,
        "window_s": info.window_s,
        "megabytes": _megabytes(path),
        "license": info.license,
        "description": info.description,
        "architecture": info.architecture,
        "arguments": dict(info.arguments),
        "front_end": info.front_end.to_dict(),
        "task": info.task,
        "source": info.source,
    }


def _published_row(known: PublishedModel) -> dict[str, Any]:
    path = known.model_file if known.labels else known.checkpoint
    here = known.is_cached
    return {
        "name": known.name,
        "default": False,
        "path": str(path) if here else None,
        "labels": known.num_classes if known.labels else 0,
        "sample_rate": known.front_end.sample_rate,
        "window_s": known.window_s,
        "megabytes": _megabytes(path) if here else None,
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


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 1)


def _published_line(row: dict[str, Any]) -> str:
    params = f"{row['params'] / 1e6:.2f} M" if row["params"] else ""
    macs = f"{row['macs'] / 1e9:.2f} G" if row["macs"] else ""
    scores = ", ".join(f"{name} {value:g}" for name, value in row["scores"].items())
    labels = f"{row['labels']} {row['label_set']}" if row["label_set"] else "none (to train on)"
    return _line("*" if row["path"] else "", row["name"], labels, params, macs, scores)


def _line(mark: str, name: str, labels: str, params: str, macs: str, scores: str) -> str:
    return f"{mark:1} {name:<32}  {labels:<18}  {params:>10}  {macs:>7}  {scores}".rstrip()


@command(MODELS)
def info(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Name or file (default: the model that ships).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's card, labels, front-end and scores."""
    from earmark.hub import registry
    from earmark.model_file.onnx_file import read_info

    info = read_info(registry.find(model))
    if as_json:
        say(json.dumps(json.loads(info.to_json()), indent=1, ensure_ascii=False))
        return
    say(f"{info.name}: {info.description}")
    threshold = "of each label" if isinstance(info.threshold, tuple) else info.threshold
    threshold = f"{threshold} ({info.threshold_rule})" if info.threshold_rule else threshold
    say(f"task: {info.task}, threshold: {threshold}, window: {info.window_s} s, padding: {info.padding}")
    if info.calibration is not None:
        fitted_on = ", ".join(f"{key} {value}" for key, value in info.calibration.fitted_on.items())
        say(f"calibration: {info.calibration.method}; scores are probabilities; fitted on: {fitted_on}")
    arguments = json.dumps(dict(info.arguments))
    say(f"architecture: {info.architecture} {arguments}, embedding: {info.embedding_size}")
    say("front-end: " + ", ".join(f"{key} {value}" for key, value in info.front_end.to_dict().items()))
    say(f"license: {info.license}\nlabels: {', '.join(info.labels)}")
    if info.card:
        say(f"\n{info.card}")
