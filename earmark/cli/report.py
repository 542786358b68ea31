"""``earmark report``: size, speed, memory and scores of models side by side.

Conventions: a table for people, ``--json`` for programs; a clip that cannot be evaluated is named on standard
error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earmark.cli.bench import timed_recording
from earmark.cli.options import (
    AsJson,
    Audio,
    Fold,
    Limit,
    Quiet,
    Recording,
    ReportFolder,
    Rounds,
    ThreadCounts,
)
from earmark.cli.program import TRAIN, command, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.cli.terminal import complain, say
from earmark.model_file.atomic import require_other_files

if TYPE_CHECKING:
    from earmark.data.manifest import Clip


@command(TRAIN)
def report(
    models: Annotated[
        list[str], typer.Argument(metavar="MODELS...", help="Names or files of the models to compare.")
    ],
    dataset: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", help="Evaluate on these clips: a CSV file or a pack."),
    ] = None,
    audio: Audio = None,
    fold: Fold = None,
    limit: Limit = None,
    recording: Recording = None,
    threads: ThreadCounts = None,
    rounds: Rounds = 9,
    output: ReportFolder = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare models by size, speed, memory and scores."""
    one_matrix_thread()
    from earmark.evaluation import comparison, speed
    from earmark.evaluation.report import REPORT_FILES, aligned
    from earmark.inference.load import load

    if output is not None:
        written = [output / name for name in REPORT_FILES]
        require_other_files(written, [*models, *filter(None, (dataset, recording))])
    clips = _clips(dataset, audio, fold, limit)
    with download_bar(quiet) as bar:
        for name in models:
            load(name, progress=bar)  # downloaded, and found to be usable
    settings = speed.all_settings(models, threads or speed.thread_counts())
    with timed_recording(recording) as clip, status_line(quiet) as show:
        lines = comparison.compare(settings, clip, clips, rounds, show, complain)
    traced = {
        "clip": str(recording) if recording else None,
        "manifest": _traced(dataset),
        "fold": fold,
        "limit": limit,
    }
    if as_json:
        say(json.dumps(comparison.to_dict(lines, traced), indent=1, ensure_ascii=False))
    else:
        say("\n".join([*aligned(comparison.table(lines)), "", comparison.summary(lines)]))
    if output is not None:
        comparison.write(lines, traced, output)


def _clips(dataset: Path | None, audio: Path | None, fold: int | None, limit: int | None) -> list[Clip]:
    from earmark.data.manifest import read_manifest
    from earmark.data.shards.pack import manifest_of
    from earmark.errors import DataError
    from earmark.evaluation.predictions import select_clips

    if dataset is None:
        return []
    clips = select_clips(read_manifest(manifest_of(dataset), audio), fold, limit)
    if not any(clip.labels for clip in clips):
        raise DataError(f"{dataset}: no clip has a label to evaluate on")
    return clips


def _traced(dataset: Path | None) -> dict[str, str] | None:
    from earmark.data.manifest import file_hash
    from earmark.data.shards.pack import manifest_of

    if dataset is None:
        return None
    return {"path": str(dataset), "sha256": file_hash(manifest_of(dataset))}
