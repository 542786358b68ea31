"""``earmark fit``: own recordings in, a tagger for their classes out.

Conventions: the report goes to standard output, progress and what could not be used to standard error. Exit
code 1: some clips could not be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.options import AsJson, Audio, Quiet
from earmark.cli.program import OWN, command, exit_code, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.cli.terminal import complain, note, say

if TYPE_CHECKING:
    from earmark.custom import FitReport

FINE = "Fine-tuning"
"""The panel of what few need."""
MAX_SHOWN = 20
"""Findings of a kind that are printed without --check."""


@command(OWN)
def fit(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder with a folder per class, or with label tables beside recordings; or a CSV file.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The model file to write (.onnx)."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the clips only; write no model.")] = False,
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Base model, a name or file (default: the one that ships)."),
    ] = None,
    depth: Annotated[
        Literal["probe", "head", "full"] | None,
        typer.Option(help="What is trained (default: by the amount of data)."),
    ] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(metavar="DATA", help="More clips or classes, as DATA; repeatable."),
    ] = None,
    keep_base_labels: Annotated[
        bool, typer.Option("--keep-base-labels", help="Answer the base model's labels too, in one pass.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the report there, as a page with players and as JSON."),
    ] = None,
    precision: Annotated[
        float, typer.Option(metavar="SHARE", help="Wanted precision of the labels' thresholds.")
    ] = 0.9,
    audio: Audio = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    task: Annotated[
        Literal["single_label", "multi_label"] | None,
        typer.Option(
            help="Whether classes exclude each other (default: by the labels).", rich_help_panel=FINE
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Folds of the cross-validation (default: by the data).", rich_help_panel=FINE
        ),
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(
            "--augment/--no-augment", help="Vary the clips (default: if they are few).", rich_help_panel=FINE
        ),
    ] = None,
    max_clips: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Use at most N clips, spread over the classes.", rich_help_panel=FINE
        ),
    ] = 20_000,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Keep features in the cache folder.", rich_help_panel=FINE),
    ] = True,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Threads that read clips (default: one per core).", rich_help_panel=FINE
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed.", rich_help_panel=FINE)] = 0,
) -> None:
    """Make a tagger for your own sounds."""
    if (output is None) != check:
        raise typer.BadParameter("give the model file to write, or --check", param_hint="--output")
    one_matrix_thread()
    from earmark.custom import FitOptions, merged, read_dataset, write_report
    from earmark.custom import fit as fit_sounds

    options = FitOptions(
        base=base,
        depth=depth,
        task=task,
        keep_base_labels=keep_base_labels,
        audio=audio,
        folds=folds,
        precision=precision,
        max_clips=max_clips,
        augment=augment,
        cache=cache,
        workers=workers,
        seed=seed,
    )
    with download_bar(quiet) as bar, status_line(quiet) as show:
        found = fit_sounds(
            merged([read_dataset(one, audio) for one in (data, *(add or ()))]),
            output,
            options,
            progress=lambda what, done, total: show(f"{what} {done} of {total}"),
            download_progress=bar,
        )
    _show_findings(found, check, quiet, say if check and not as_json else complain)
    say(json.dumps(found.to_dict(), indent=1, ensure_ascii=False) if as_json else found.summary())
    if report is not None:
        note(f"wrote {write_report(found, report)}")
    if output is not None and not as_json:
        say(f"\nwrote {output}")
    exit_code(found.num_clips, found.num_failed)


def _show_findings(found: FitReport, check: bool, quiet: bool, show: Callable[[str], object]) -> None:
    """Prints what was found about the clips; without --check only what was left out, and the first of it."""
    if quiet and not check:
        return
    shown = 0
    for one in found.findings:
        if check or one.kind in ("input", "unreadable", "conflict", "duplicate", "few"):
            shown += 1
            if check or shown <= MAX_SHOWN:
                show(f"{one.kind}: {one.text}")
    if not check and shown > MAX_SHOWN:
        show(f"{shown - MAX_SHOWN} more: earmark fit --check lists all")
