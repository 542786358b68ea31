"""One run over an archive: recordings in, a folder of tables and a summary out.

Conventions: what was done is kept, however a run ends. Durations are seconds of sound, or of clock where the
name says so.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from earmark.batch.analysis import Analysis, Rows
from earmark.batch.local import Item, work_through
from earmark.batch.resume import Archive, open_archive
from earmark.batch.tables import FILES
from earmark.errors import EarmarkError, RunError, first_line


@dataclass
class Summary:
    """What a run has done so far.

    Attributes:
        files: Recordings that were read in this run.
        failed: Recordings of this run that could not be.
        earlier: Recordings that an earlier run had done.
        audio_s: Duration of those that were read, in seconds.
        failures: Reason -> number of recordings; numbers in reasons are left out.
        began_s: Clock at the start.
        ended_s: Clock at the end; None while it runs.
    """

    files: int = 0
    failed: int = 0
    earlier: int = 0
    audio_s: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    began_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds by the clock."""
        return (self.ended_s or time.monotonic()) - self.began_s

    @property
    def speed(self) -> float:
        """Multiple of real time."""
        return self.audio_s / max(self.elapsed_s, 1e-9)

    def lines(self) -> list[str]:
        """The summary to read: what was done, and why recordings failed, the most frequent reasons first."""
        earlier = f", {self.earlier} done earlier" if self.earlier else ""
        failed = f", {self.failed} failed" if self.failed else ""
        done = (
            f"{self.files} files ({self.audio_s / 3600:.3g} h) in {duration(self.elapsed_s)}, "
            f"{self.speed:.3g} x real time{failed}{earlier}"
        )
        return [done, *(f"  {count} x {reason}" for reason, count in self.failures.most_common(10))]

    def progress(self, total: int | None) -> str:
        """One line while it runs; with the time left if the number of all recordings is known."""
        done = self.files + self.failed
        line = f"{done + self.earlier} of {total or '?'} files  {self.speed:.3g} x real time"
        if total and done:
            left_s = self.elapsed_s / done * max(0, total - done - self.earlier)
            line += f"  {duration(left_s)} left"
        return line + (f"  {self.failed} failed" if self.failed else "")

    def add(self, path: str, duration_s: float | None, error: str | None) -> None:
        """Counts a recording; a failure by its reason, which is the error without path and numbers.

        Args:
            path: Of the recording, or empty.
            duration_s: Its duration in seconds, if it was read.
            error: Why it was not.
        """
        if error is None:
            self.files += 1
            self.audio_s += duration_s or 0.0
            return
        self.failed += 1
        self.failures[re.sub(r"\d+(\.\d+)?", "N", error.removeprefix(f"{path}: "))] += 1


def write_archive(
    analysis: Analysis,
    paths: Iterable[Item],
    folder: Path,
    *,
    workers: int,
    ordered: bool = False,
    resume: bool = False,
    force: bool = False,
    report: Callable[[Summary, str, str | None], object] = lambda summary, path, error: None,
) -> Summary:
    """Analyses recordings in processes, and writes the tables of an archive.

    Args:
        analysis: What is done with each; its tagger opened with one thread.
        paths: Read as they are needed; errors among them are reported, and have no rows.
        folder: For the tables; created if necessary.
        workers: Number of processes.
        ordered: Whether rows keep the order of the paths.
        resume: Go on with the tables that are there.
        force: Replace the tables that are there.
        report: Called after each recording, with the summary so far, its path, and its error if it has one.

    Returns:
        The summary.

    Raises:
        DataError: If there are tables and neither is asked for, or they are of another model or settings.
        RunError: If rows cannot be written, for instance to a full disk; what was done is kept.
        MissingExtraError: If pyarrow is not installed.
    """
    with open_archive(folder, analysis.schemas(), resume=resume, force=force) as archive:
        summary = Summary()
        left = _left(paths, archive, summary)
        try:
            for path, found in work_through(analysis, left, workers=workers, ordered=ordered):
                error = _add(analysis, archive, summary, path, found)
                report(summary, str(path), error)
            archive.finish()
        except OSError as error:
            reason = error.strerror or first_line(error)
            raise RunError(
                f"{folder}: cannot be written ({reason}): what was done is kept, and the same command with "
                "--resume goes on from there"
            ) from error
    summary.ended_s = time.monotonic()
    return summary


def _left(paths: Iterable[Item], archive: Archive, summary: Summary) -> Iterator[Item]:
    """The paths that no earlier run has done."""
    for path in paths:
        if isinstance(path, EarmarkError) or not archive.is_done(path):
            yield path
        else:
            summary.earlier += 1


def _add(
    analysis: Analysis, archive: Archive, summary: Summary, path: Item, found: Rows | EarmarkError
) -> str | None:
    """Adds the rows of a recording; returns its error."""
    if isinstance(path, EarmarkError):
        summary.add("", None, str(path))
        return str(path)
    rows = analysis.failed(path, found) if isinstance(found, EarmarkError) else found
    archive.add(rows)
    [row] = rows[FILES]
    summary.add(row["path"], row["duration_s"], row["error"])
    error: str | None = row["error"]
    return error


def duration(seconds: float) -> str:
    """A duration to read, such as ``12 s`` or ``1:02:03``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02} min"
