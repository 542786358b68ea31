"""Progress on standard error: a status line, a download bar, the lines of a training.

Conventions: status line and bar appear in a terminal only; nothing here writes to standard output.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from earmark.cli.terminal import complain, note, printable, warn
from earmark.errors import EarmarkError

if TYPE_CHECKING:
    from rich.progress import Progress

    from earmark.inference.result import Result

Counter = Callable[..., None]
SHOW_EVERY_S = 0.5
"""Seconds from one line of progress within a recording to the next."""


@contextmanager
def status_line(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Shows what is being worked on, in a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(printable(text).replace("[", r"\["))


def each_file(
    results: Iterable[Result | EarmarkError],
    use: Callable[[Result, int], object],
    show: Callable[[str], None],
    quiet: bool,
) -> tuple[int, int]:
    """Uses the results of files; an error is printed, and ends the work on its file only.

    Args:
        results: As of :meth:`earmark.Tagger.tag_many`.
        use: Called with each result and the number of those before it; an EarmarkError is the file's.
        show: Shows what was done last.
        quiet: Print no warnings.

    Returns:
        How many files were used, and how many could not be.
    """
    done = failed = 0
    for item in results:
        try:
            if isinstance(item, EarmarkError):
                raise item
            use(item, done)
        except EarmarkError as error:
            failed += 1
            complain(str(error))
            continue
        done += 1
        show(f"{done} files  {item.path}")
        warn(item.warnings, quiet)
    return done, failed


def window_progress(show: Callable[[str], None]) -> Callable[[str, float, float | None], None]:
    """Shows how far a recording is, its speed and the time left.

    Args:
        show: Shows a line.

    Returns:
        As the ``progress`` of :meth:`earmark.Tagger.tag_many`.
    """
    current, began_s, shown_s = "", 0.0, 0.0

    def progress(path: str, end_s: float, total_s: float | None) -> None:
        nonlocal current, began_s, shown_s
        now_s = time.monotonic()
        if path != current:
            current, began_s, shown_s = path, now_s, now_s
        if now_s - shown_s < SHOW_EVERY_S:
            return
        shown_s, speed = now_s, end_s / (now_s - began_s)
        line = (
            f"{path}  {end_s / 60:.1f} of {total_s / 60:.1f} min"
            if total_s
            else f"{path}  {end_s / 60:.1f} min"
        )
        left = f"  {max(0.0, total_s - end_s) / speed:.0f} s left" if total_s else ""
        show(f"{line}  {speed:.0f} x real time{left}")

    return progress


@contextmanager
def clip_counter(quiet: bool, total: int) -> Iterator[Counter]:
    """Shows how many clips are done: a status line in a terminal, else a line for every tenth of them.

    Yields:
        Takes the number of clips done, and what comes next.
    """
    step = max(1, total // 10)
    printed = 0
    with status_line(quiet) as status:

        def show(done: int, following: object = "") -> None:
            nonlocal printed
            status(f"{done} of {total} clips  {following}".rstrip())
            if not quiet and not sys.stderr.isatty() and done >= printed + step:
                printed = done
                note(f"{done} of {total} clips")

        yield show


@contextmanager
def download_bar(quiet: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """Shows how much of a file has arrived, in a terminal only; nothing until something arrives."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    bars: list[Progress] = []

    def show(received: int, total: int | None) -> None:
        if not bars:
            bars.append(_bar())
        bars[0].update(bars[0].task_ids[0], completed=received, total=total)

    try:
        yield show
    finally:
        for bar in bars:
            bar.stop()


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    # What is written to standard output meanwhile goes there, and not to the bar's console.
    bar = Progress(*columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False)
    bar.add_task("download", total=None)
    bar.start()
    return bar


def training_printer() -> Callable[[Mapping[str, Any]], None]:
    """Prints a line for each epoch, with rate and time left; in a terminal each step updates a line too."""
    latest: dict[str, Any] = {}

    def show(facts: Mapping[str, Any]) -> None:
        if "step" in facts:
            latest.update(facts)
            if sys.stderr.isatty():
                print(f"\r\x1b[2K{printable(_as_line(facts))}", end="\r", file=sys.stderr, flush=True)
            return
        pace = ("clips_per_s", "left_min") if "epoch" in facts and latest else ()
        note(_as_line({**facts, **{key: latest[key] for key in pace}}))

    return show


def _as_line(facts: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items()
    )
