"""Where results go: standard output as they come, a file that is there when all is done, or a file each.

Conventions: a writer is a context that yields a function, which takes each result. Files are written whole or
not at all; a file that is there stays if nothing could be tagged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from earmark.cli.program import COULD_NOTHING
from earmark.cli.terminal import printable, say_raw
from earmark.events.layout import Format, Layout
from earmark.model_file.atomic import atomic_writer, require_other_files, write_atomically

if TYPE_CHECKING:
    from earmark.events.event import RecordingEvents
    from earmark.inference.result import Result

Add = Callable[["Result"], None]
RAW = (Format.CSV,)
"""Formats whose paths keep their bytes."""


@contextmanager
def text_writer(parts: Layout[Result], form: Format, output: Path | None) -> Iterator[Add]:
    """Writes one text: to standard output as results come, or to a file."""
    with _open(output, raw=form in RAW) as write:
        count = 0

        def add(result: Result) -> None:
            nonlocal count
            write((parts.between if count else parts.head) + parts.render(result))
            count += 1

        yield add
        write(parts.tail if count else parts.head + parts.tail)
        if output is not None and not count:
            raise typer.Exit(COULD_NOTHING)


@contextmanager
def texts_writer(
    layout: Callable[[], Layout[Result]], output: Path | None, inputs: Sequence[str]
) -> Iterator[Add]:
    """Writes a text for each recording: to standard output, a file for the only one, or files in a folder."""
    from earmark.events.targets import Targets

    targets = Targets(output or Path("/dev/stdout"), layout().suffix, inputs)

    def add(result: Result) -> None:
        parts, target = layout(), targets.of(result.path or "-")
        text = printable(parts.head + parts.render(result) + parts.tail)
        if output is None:
            say_raw(text)
        else:
            require_other_files([target], [result.path or "-"])
            write_atomically(target, text)

    yield add


@contextmanager
def events_table_writer(
    output: Path | None, model: str, events_of: Callable[[Result], RecordingEvents]
) -> Iterator[Add]:
    """Writes a Parquet file of events."""
    from earmark.events.parquet import parquet_writer

    if output is None:
        raise typer.BadParameter("parquet needs a file: add --output", param_hint="--format")
    with atomic_writer(output) as stream, parquet_writer(stream, model) as write:
        count = 0

        def add(result: Result) -> None:
            nonlocal count
            write(events_of(result))
            count += 1

        yield add
        if not count:
            raise typer.Exit(COULD_NOTHING)


@contextmanager
def _open(output: Path | None, raw: bool) -> Iterator[Callable[[str], object]]:
    """Writes to standard output as results come, or to a file that is there when all is done."""
    if output is None:
        yield say_raw if raw else lambda text: say_raw(printable(text))
        return
    with atomic_writer(output) as stream:
        yield lambda text: stream.write((text if raw else printable(text)).encode("utf-8", "surrogateescape"))
