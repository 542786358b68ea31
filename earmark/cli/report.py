"""``earmark report``: what models cost and how well they do, side by side, and which one to ship.

Conventions: a table for people, ``--json`` for programs; a clip that cannot be judged is named on standard
error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earmark.cli.program import TRAIN, command, complain, one_matrix_thread
from earmark.cli.progress import download_bar, status_line

if TYPE_CHECKING:
    from earmark.data.manifest import Clip

MANIFESTS = (".csv", ".tsv")


@command(TRAIN)
def report(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS... [MANIFEST]",
            help="Models' names or files; last a CSV file of path and labels, or a pack, to judge by.",
            show_default=False,
        ),
    ],
    audio: Annotated[
        Path | None, typer.Option(help="Folder of the recordings; by default the manifest's own.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Judge by this fold only.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Judge by so many clips, spread over the manifest.")
    ] = None,
    clip: Annotated[
        Path | None, typer.Option(help="The recording to time; by default 10 s of noise, 16 bit at 44.1 kHz.")
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Numbers of threads; by default 1, 2, 4 ... up to one per core."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each one's turn comes.")] = 9,
    out: Annotated[Path | None, typer.Option(help="Folder for the report: JSON, Markdown, plot.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Compares models by size, speed, memory and scores, with each engine and precision."""
    one_matrix_thread()
    from earmark.cli.bench import recording
    from earmark.evaluation import comparison, speed
    from earmark.evaluation.report import aligned
    from earmark.inference.load import load

    names, manifest = _parted(models)
    clips = _clips(manifest, audio, fold, limit)
    with download_bar(quiet) as arriving:
        for name in names:
            load(name, report=arriving)  # fetched, and found to be usable
    settings = speed.settings_of(names, threads or speed.thread_counts())
    with recording(clip) as heard, status_line(quiet) as show:
        lines = comparison.compare(settings, heard, clips, rounds, show, complain)
    traced = {
        "clip": str(clip) if clip else None,
        "manifest": _traced(manifest),
        "fold": fold,
        "limit": limit,
    }
    if as_json:
        print(json.dumps(comparison.to_dict(lines, traced), indent=1, ensure_ascii=False))
    else:
        print("\n".join(aligned(comparison.table(lines))), comparison.summary(lines), sep="\n\n")
    if out is not None:
        comparison.write(lines, traced, out)


def _parted(models: Sequence[str]) -> tuple[list[str], Path | None]:
    """Models and the manifest, which comes last and is a table or a folder."""
    *names, last = models
    if Path(last).suffix.lower() not in MANIFESTS and not Path(last).is_dir():
        return list(models), None
    if not names:
        raise typer.BadParameter(f"{last} is a manifest: name a model before it", param_hint="MODELS")
    return names, Path(last)


def _clips(manifest: Path | None, audio: Path | None, fold: int | None, limit: int | None) -> list[Clip]:
    from earmark.data.manifest import read_manifest
    from earmark.data.shards.pack import table_of
    from earmark.errors import DataError
    from earmark.evaluation.predictions import choose

    if manifest is None:
        return []
    clips = choose(read_manifest(table_of(manifest), audio), fold, limit)
    if not any(clip.labels for clip in clips):
        raise DataError(f"{manifest}: no clip to judge by has a label")
    return clips


def _traced(manifest: Path | None) -> dict[str, str] | None:
    from earmark.data.manifest import file_hash
    from earmark.data.shards.pack import table_of

    if manifest is None:
        return None
    return {"path": str(manifest), "sha256": file_hash(table_of(manifest))}
