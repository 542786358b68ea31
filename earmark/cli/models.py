"""``earmark models`` and ``earmark info``: which models there are, and what is known about one.

Conventions: text for people, ``--json`` for programs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earmark.cli.options import AsJson
from earmark.cli.program import MODELS, command
from earmark.cli.terminal import say
from earmark.errors import extra

if TYPE_CHECKING:
    from earmark.hub.registry import PublishedModel

_COLUMNS = ("", "name", "labels", "size", "speed", "published score")


@command(MODELS)
def models(
    as_json: AsJson = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Plot score against size, MACs and memory: .png, .svg or .pdf."),
    ] = None,
    highlight: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Mark this model in the plot; repeatable.")
    ] = None,
) -> None:
    """List the models that have a name."""
    from earmark.hub import registry
    from earmark.hub.predictions import published_predictions

    if highlight and plot is None:
        raise typer.BadParameter("needs --plot", param_hint="--highlight")
    if plot is not None:
        with extra("earmark models --plot", "plot"):
            from earmark.plots.cost import plot_models

        plot_models(registry.published().values(), plot, registry.compared().values(), highlight or ())
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
    say(
        "\nPublished by others (*: on this machine; earmark pull NAME, or the first use, fetches the others):"
    )
    _table(row for row in others if row["labels"])
    say("\nInitial weights for training, fetched in the same way:")
    _table(row for row in others if not row["labels"])
    for known in published_predictions().values():
        say(f"\nPredictions of a teacher, fetched in the same way:\n  {known.name}: {known.description}")
    say(f"\nspeed, by the multiply-accumulates for a clip of 10 s: {_speeds()}")


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
    path = known.cached_file
    return {
        "name": known.name,
        "default": False,
        "path": str(path) if path else None,
        "labels": known.num_classes if known.labels else 0,
        "sample_rate": known.front_end.sample_rate,
        "window_s": known.window_s,
        "megabytes": _megabytes(path) if path else None,
        "download_megabytes": round(known.download_size / 1e6, 1) if known.download_size else None,
        "speed": known.speed or None,
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
        "peak_memory_kb": known.peak_memory_kb,
        "scores": dict(known.scores),
        "scored_on": known.scored_on or None,
        "license_note": known.license_note or None,
        "url": known.url,
        "size": known.size,
        "sha256": known.sha256 or None,
    }


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 1)


def _table(rows: Iterable[dict[str, Any]]) -> None:
    say(_line(*_COLUMNS))
    for row in rows:
        megabytes = row["megabytes"] or row["download_megabytes"]
        scores = ", ".join(f"{name} {value:g}" for name, value in row["scores"].items())
        say(
            _line(
                "*" if row["path"] else "",
                row["name"],
                f"{row['labels']} {row['label_set']}" if row["label_set"] else "none",
                f"{megabytes:.1f} MB" if megabytes else "",
                row["speed"] or "",
                scores,
            )
        )


def _line(mark: str, name: str, labels: str, size: str, speed: str, scores: str) -> str:
    return f"{mark:1} {name:<32}  {labels:<13}  {size:>8}  {speed:<9}  {scores}".rstrip()


def _speeds() -> str:
    from earmark.hub.registry import SPEEDS

    return ", ".join(f"{name} up to {most / 1e9:g} G" for name, most in SPEEDS.items()) + ", very slow above"


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
