"""``earmark clips``: events in, a folder of short audio files out.

Conventions: relative paths of recordings start in the current folder, as in the command that wrote them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.options import Quiet
from earmark.cli.program import USE, command, exit_code
from earmark.cli.progress import status_line
from earmark.cli.terminal import complain, note, warn
from earmark.errors import contained

if TYPE_CHECKING:
    from earmark.events.event import Event


@command(USE)
def clips(
    events: Annotated[
        Path,
        typer.Argument(metavar="EVENTS", help="What earmark tag --events wrote: csv, jsonl, parquet."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where clips go.")],
    context: Annotated[
        float, typer.Option(metavar="SECONDS", help="Sound before and after each event.")
    ] = 0.5,
    form: Annotated[
        Literal["flac", "wav"], typer.Option("--format", "-f", help="Format of the clips.")
    ] = "flac",
    label: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Cut this label only; repeatable.")
    ] = None,
    min_score: Annotated[
        float, typer.Option(metavar="SCORE", help="Cut events with at least this peak.")
    ] = 0.0,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cut the N highest peaks of each label.")
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where relative paths start (default: here)."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Cut events out of recordings as short files."""
    from earmark.events.clips import ClipFolder
    from earmark.events.read import read_events

    chosen = _chosen(read_events(events), label, min_score, top)
    folder = ClipFolder(output, context, form)
    done = failed = 0
    with status_line(quiet) as show:
        for source, own in chosen.items():
            show(f"{done + failed} of {len(chosen)} recordings  {source}")
            try:
                warn(folder.add((audio or Path()) / source, source, own), quiet)
                done += 1
            except OSError:
                raise  # a full disk is no fault of the recording
            except Exception as error:
                complain(str(contained(error, source)))
                failed += 1
        count = folder.finish()
    if not quiet:
        note(f"{count} clips of {done} recordings in {output}")
    exit_code(done, failed)


def _chosen(
    found: dict[str, list[Event]], labels: list[str] | None, min_score: float, top: int | None
) -> dict[str, list[Event]]:
    """The events to cut, by recording.

    Raises:
        DataError: If a label does not occur, or no event is left.
    """
    from earmark.errors import DataError
    from earmark.model_file.label_selection import select_labels

    everything = [(source, event) for source, own in found.items() for event in own]
    occurring = list(dict.fromkeys(event.label for _, event in everything))
    wanted = {occurring[index] for index in select_labels(occurring, labels)} if labels else set(occurring)
    ranks: dict[str, int] = {}
    kept: dict[str, list[Event]] = {}
    for source, event in sorted(everything, key=lambda item: -item[1].peak):
        if event.label in wanted and event.peak >= min_score:
            ranks[event.label] = ranks.get(event.label, 0) + 1
            if top is None or ranks[event.label] <= top:
                kept.setdefault(source, []).append(event)
    if not kept:
        raise DataError("no event is left to cut: lower --min-score")
    return {source: kept[source] for source in found if source in kept}
