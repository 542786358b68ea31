"""The options of archives, for commands that work through many recordings, and the run that they ask for.

Conventions: an output is a folder of tables if it is a folder already, or does not exist and has no suffix.
The summary goes to standard error.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.progress import status_line, window_progress
from earmark.cli.terminal import complain, note
from earmark.errors import EarmarkError
from earmark.events.layout import Format

if TYPE_CHECKING:
    from earmark.batch.analysis import Analysis
    from earmark.batch.run import Summary
    from earmark.inference.lengths import WindowLength
    from earmark.inference.result import Result
    from earmark.inference.tagger import Tagger

_ADDRESS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):/(?=[^/])")
"""The start of an address that pathlib has shortened."""
ARCHIVES = "Archives (--output names a folder: Parquet tables)"

Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes of one thread each (default for a folder: one per core).",
        rich_help_panel=ARCHIVES,
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the tables that are there.", rich_help_panel=ARCHIVES)
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace the tables that are there.", rich_help_panel=ARCHIVES)
]
Ordered = Annotated[
    bool,
    typer.Option("--ordered", help="Keep the order of the recordings in tables.", rich_help_panel=ARCHIVES),
]
Cluster = Annotated[
    Literal["ray"] | None,
    typer.Option(
        "--engine-cluster",
        help="Work on a Ray cluster; --output may be an address, such as s3://bucket/results.",
        rich_help_panel=ARCHIVES,
    ),
]


@dataclass(frozen=True)
class ArchiveRequest:
    """What the options of archives ask for."""

    workers: int | None
    resume: bool
    force: bool
    ordered: bool
    cluster: Literal["ray"] | None = None

    def wants_folder(self, output: Path | None, form: Format = Format.TABLE) -> bool:
        """Whether an output is a folder of tables.

        Raises:
            typer.BadParameter: If it is not, and an option asks for one.
        """
        is_folder = output is not None and (output.is_dir() or not (output.suffix or output.exists()))
        if is_folder and form in (Format.TABLE, Format.PARQUET):
            return True
        given = {"--resume": self.resume, "--force": self.force, "--engine-cluster": self.cluster}
        for name, value in given.items():
            if value:
                raise typer.BadParameter("needs an --output that is a folder", param_hint=name)
        return False

    def threads(self, threads: int | None, folder: bool) -> int | None:
        """Threads of the network: one where there are several processes, unless a number was given."""
        return 1 if threads is None and (folder or self.workers) else threads


def model_settings(
    model: Sequence[str] | None, device: str, engine: str, precision: str
) -> dict[str, object]:
    """What rows depend on besides an analysis: the files of the models, and what computes them."""
    from earmark.batch.analysis import model_digests

    return {
        "model_sha256": model_digests(model),
        "device": device,
        "engine": engine,
        "precision": precision,
    }


def tag_each(
    tagger: Tagger,
    paths: Iterable[str | EarmarkError],
    window_s: WindowLength,
    hop_s: float | None,
    request: ArchiveRequest,
    show: Callable[[str], None],
) -> Iterator[Result | EarmarkError]:
    """Tags recordings, in processes if a number of them was given; as :meth:`earmark.Tagger.tag_many`."""
    if request.workers is None:
        return tagger.tag_many(paths, window_s=window_s, hop_s=hop_s, progress=window_progress(show))
    from functools import partial

    from earmark.batch.local import work_through

    work = partial(tagger.tag, window_s=window_s, hop_s=hop_s)
    done = work_through(work, paths, workers=request.workers)
    return (result for _, result in done)


def run_archive(
    analysis: Analysis,
    paths: Callable[[], Iterator[str | EarmarkError]],
    folder: Path,
    request: ArchiveRequest,
    quiet: bool,
) -> tuple[int, int]:
    """Writes the tables of an archive, with progress and a summary.

    Args:
        analysis: What is done with each recording.
        paths: Lists the recordings; called again to count them, in a terminal.
        folder: For the tables.
        request: The options.
        quiet: Print no progress and no summary.

    Returns:
        How many recordings are done, those of earlier runs included, and how many of this run failed.
    """
    write = _writer(analysis, folder, request)
    with status_line(quiet) as show:
        total = _Total(paths) if sys.stderr.isatty() and not quiet else None
        shown_at = 0.0

        def report(summary: Summary, path: str, error: str | None) -> None:
            nonlocal shown_at
            if error is not None:
                complain(error)
            if total is not None and time.monotonic() - shown_at > 0.1:
                show(f"{summary.progress(total.count)}  {path}")
                shown_at = time.monotonic()

        summary = write(paths(), resume=request.resume, force=request.force, report=report)
    for line in () if quiet else summary.lines():
        note(line)
    return summary.files + summary.earlier, summary.failed


def _writer(analysis: Analysis, folder: Path, request: ArchiveRequest) -> Callable[..., Summary]:
    """What writes the tables: processes of this machine, or a cluster."""
    from functools import partial

    address = _ADDRESS.sub(r"\1://", str(folder))
    if request.cluster:
        from earmark.batch.ray_cluster import write_archive_on_ray

        return partial(write_archive_on_ray, analysis, folder=address, workers=request.workers)
    if "://" in address:
        raise typer.BadParameter("an address needs --engine-cluster ray", param_hint="--output")
    from earmark.batch.run import write_archive

    workers = request.workers or _cores()
    return partial(write_archive, analysis, folder=folder, workers=workers, ordered=request.ordered)


class _Total:
    """Counts recordings in a thread, while the first of them are processed."""

    def __init__(self, paths: Callable[[], Iterable[object]]) -> None:
        self.count: int | None = None
        self._paths = paths
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.count = sum(1 for _ in self._paths())


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
