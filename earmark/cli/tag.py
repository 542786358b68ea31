"""``earmark tag``: audio files in, tags or events out.

Conventions: results go to standard output as they come, to a file when all is done, or to tables in a folder.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.archive import (
    ArchiveRequest,
    Cluster,
    Force,
    Ordered,
    Resume,
    Workers,
    model_settings,
    run_archive,
    tag_each,
)
from earmark.cli.event_options import (
    AsEvents,
    DetectionMethod,
    EventRequest,
    MergeGap,
    MinDuration,
    OffThreshold,
    Plot,
    Settings,
    Smooth,
    TimeFrom,
    TimeZone,
)
from earmark.cli.find_events import EventFinder, event_writer
from earmark.cli.options import (
    Device,
    EngineName,
    Files,
    Hop,
    Models,
    Precision,
    Quiet,
    Recursive,
    Threads,
    Window,
    inputs,
    parse_threshold,
)
from earmark.cli.program import USE, command, exit_code, one_matrix_thread
from earmark.cli.progress import download_bar, each_file, status_line
from earmark.cli.terminal import has_blocks, table_width
from earmark.cli.write_results import Add, text_writer
from earmark.events.layout import TAG_FORMATS, Format
from earmark.model_file.atomic import require_other_files

if TYPE_CHECKING:
    from earmark.batch.analysis import Analysis
    from earmark.events.options import EventOptions
    from earmark.inference.lengths import WindowLength
    from earmark.inference.result import Result
    from earmark.inference.tagger import Tagger

WINDOWS = "Windows"
"""The panel of what a file is cut into, and whether that is shown."""
TOP = 10
"""Tags per file by default."""


@command(USE)
def tag(
    files: Files,
    model: Models = None,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of tags per file (default: 10).")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(metavar="SCORE", help="Lowest score, 0 to 1, or auto for the model's own threshold."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Show this label only; repeatable.")
    ] = None,
    rollup: Annotated[
        bool, typer.Option("--rollup", help="Add AudioSet's parent labels: a dog is an animal.")
    ] = False,
    window: Window = None,
    hop: Hop = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Tag each file as one window.", rich_help_panel=WINDOWS)
    ] = False,
    windows: Annotated[
        bool, typer.Option("--windows", help="Show the tags of each window.", rich_help_panel=WINDOWS)
    ] = False,
    form: Annotated[
        Format,
        typer.Option("--format", "-f", metavar="FORMAT", help=f"Output format: {', '.join(TAG_FORMATS)}."),
    ] = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="Write to a file, or tables to a folder."),
    ] = None,
    recursive: Recursive = False,
    quiet: Quiet = False,
    events: AsEvents = False,
    off_threshold: OffThreshold = None,
    min_duration: MinDuration = None,
    merge_gap: MergeGap = None,
    smooth: Smooth = None,
    method: DetectionMethod = None,
    settings: Settings = None,
    time_from: TimeFrom = None,
    time_zone: TimeZone = None,
    plot: Plot = None,
    workers: Workers = None,
    resume: Resume = False,
    force: Force = False,
    ordered: Ordered = False,
    engine_cluster: Cluster = None,
    device: Device = "cpu",
    engine: EngineName = "onnx",
    precision: Precision = "fp32",
    threads: Threads = None,
) -> None:
    """Tag sounds in audio files."""
    one_matrix_thread()
    from earmark.inference.load import load

    view = _View(
        tuple(label) if label else None,
        rollup,
        None if threshold is None else parse_threshold(threshold),
        top,
        windows,
    )
    request = EventRequest(
        off_threshold, min_duration, merge_gap, smooth, method, settings, time_from, time_zone, plot
    )
    _refuse_conflicts(view, request, form, events=events, whole=whole, cut=(window, hop) != (None, None))
    archive = ArchiveRequest(workers, resume, force, ordered, engine_cluster)
    is_folder = archive.wants_folder(output, form)
    if output is not None:
        require_other_files([output], model or [])
    threads = archive.threads(threads, is_folder)
    with download_bar(quiet) as bar:
        tagger = load(model, device=device, engine=engine, precision=precision, threads=threads, progress=bar)
    view.check(tagger)
    options = request.options(tagger.labels, view.threshold) if events else None
    tagger, window_s, hop_s = _cut(tagger, window, hop, events=events, whole=whole)
    if is_folder and output is not None:
        _refuse_in_folders(view, request)
        analysis = replace(
            _analysis(tagger, view, options),
            window_s=window_s,
            hop_s=hop_s,
            more_settings=model_settings(model, device, engine, precision),
        )
        exit_code(*run_archive(analysis, lambda: inputs(files, recursive, None), output, archive, quiet))
        return
    if options is not None:
        finder = EventFinder(request, options, files, quiet)
        shown = replace(view, threshold=None)
        writer = event_writer(
            form,
            output,
            lambda result: finder(shown(result)),
            inputs=files,
            model=tagger.info.name,
            times=time_from is not None,
        )
    else:
        writer = _tag_writer(form, output, view)
    with writer as add, status_line(quiet) as show:
        results = tag_each(tagger, inputs(files, recursive, output), window_s, hop_s, archive, show)
        tagged, failed = each_file(results, lambda result, number: add(result), show, quiet)
    exit_code(tagged, failed)


@dataclass(frozen=True)
class _View:
    """What is shown of a result."""

    labels: tuple[str, ...] | None
    rollup: bool
    threshold: float | Literal["auto"] | None
    top: int | None
    windows: bool

    def __call__(self, result: Result) -> Result:
        return result.filter(self.labels, rollup=self.rollup, threshold=self.threshold, top=self.top or TOP)

    def check(self, tagger: Tagger) -> None:
        """Raises the error of an impossible filter, before the first file."""
        from earmark.inference.result import Result

        self(Result(tagger.labels, (), 0.0, 1, tagger.info.name, "max", thresholds=tagger.info.thresholds))


def _refuse_conflicts(
    view: _View, request: EventRequest, form: Format, *, events: bool, whole: bool, cut: bool
) -> None:
    """Refuses options that exclude each other; ``cut``: a window or hop was given."""
    if not events:
        request.refuse(form)
    for name, given, other in (
        ("--whole", whole and cut, "--window and --hop"),
        ("--whole", whole and events, "--events"),
        ("--windows", view.windows and events, "--events"),
        ("--top", view.top and events, "--events: use --threshold or --label"),
    ):
        if given:
            raise typer.BadParameter(f"cannot be combined with {other}", param_hint=name)


def _refuse_in_folders(view: _View, request: EventRequest) -> None:
    """Refuses options that have no meaning for tables."""
    given = {"--windows": view.windows, "--plot": request.plot, "--time-from": request.time_from}
    for name, value in given.items():
        if value:
            raise typer.BadParameter("is not possible where --output is a folder of tables", param_hint=name)


def _analysis(tagger: Tagger, view: _View, options: EventOptions | None) -> Analysis:
    """What is done with each recording of an archive."""
    from earmark.batch.analysis import Analysis, Filter

    if options is not None:
        return Analysis(tagger, "events", filter=Filter(view.labels, view.rollup), events=options)
    return Analysis(tagger, filter=Filter(view.labels, view.rollup, view.threshold, view.top or TOP))


def _cut(
    tagger: Tagger, window_s: float | None, hop_s: float | None, *, events: bool, whole: bool
) -> tuple[Tagger, WindowLength, float | None]:
    """The tagger of tags, of events, or of whole files, its window and its hop."""
    from earmark.events.windows import event_lengths
    from earmark.inference.local_scores import finest_scores

    if not events:
        return tagger, "whole" if whole else window_s, hop_s
    if (window_s, hop_s) == (None, None):
        return finest_scores(tagger)
    return tagger, *event_lengths(window_s, hop_s, tagger.info.window_s, tagger.info.fixed_window)


def _tag_writer(form: Format, output: Path | None, view: _View) -> AbstractContextManager[Add]:
    from earmark.inference.formats import layout

    size = (80, True) if output else (table_width(), has_blocks())
    parts = layout(form, *size, windows=view.windows)
    return text_writer(replace(parts, render=lambda result: parts.render(view(result))), form, output)
