"""``earmark tag``: audio files in, tags out.

Conventions: results go to standard output as they come, or to a file when all is done.
"""

from __future__ import annotations

import locale
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

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
)
from earmark.cli.program import COULD_NOTHING, USE, command, exit_code, one_matrix_thread
from earmark.cli.progress import download_bar, each_file, status_line
from earmark.cli.terminal import printable, say_raw
from earmark.events.layout import Format
from earmark.model_file.atomic import atomic_writer, require_other_files


@command(USE)
def tag(
    files: Files,
    model: Models = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Number of tags per file.")] = 10,
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
    form: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.TABLE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file.")
    ] = None,
    recursive: Recursive = False,
    quiet: Quiet = False,
    device: Device = "cpu",
    engine: EngineName = "onnx",
    precision: Precision = "fp32",
    threads: Threads = None,
) -> None:
    """Tag sounds in audio files."""
    one_matrix_thread()
    from earmark.inference.formats import layout
    from earmark.inference.load import load
    from earmark.inference.result import Result

    limit = _threshold(threshold)
    if output is not None:
        require_other_files([output], model or [])
    with download_bar(quiet) as bar:
        tagger = load(model, device=device, engine=engine, precision=precision, threads=threads, progress=bar)
    empty = Result(tagger.labels, (), 0.0, 1, tagger.info.name, "max", thresholds=tagger.info.thresholds)
    empty.filter(label, rollup=rollup, threshold=limit)  # an impossible filter fails before the first file
    parts = layout(form) if output else layout(form, _width(), _has_blocks())
    with _writer(output, raw=form is Format.CSV) as write, status_line(quiet) as show:

        def add(result: Result, number: int) -> None:
            text = parts.render(result.filter(label, rollup=rollup, threshold=limit, top=top))
            write((parts.between if number else parts.head) + text)

        results = tagger.tag_many(inputs(files, recursive, output), window_s=window, hop_s=hop)
        tagged, failed = each_file(results, add, show, quiet)
        write(parts.tail if tagged else parts.head + parts.tail)
        if output is not None and not tagged:
            raise typer.Exit(COULD_NOTHING)  # the file that is there stays
    exit_code(tagged, failed)


def _width() -> int:
    """Characters in a line of a table: those of the terminal, within reason."""
    return min(100, max(40, shutil.get_terminal_size().columns))


def _has_blocks() -> bool:
    """Whether the terminal has block characters; what is written to it is UTF-8 all the same."""
    if os.name == "nt" and sys.stdout.isatty():
        return True
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0] or locale.getencoding()
    try:
        return bool("\u258f\u2588".encode(encoding))
    except (UnicodeEncodeError, LookupError):
        return False


def _threshold(text: str | None) -> float | Literal["auto"] | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise typer.BadParameter(
            f"must be a number from 0 to 1 or auto, got {text!r}", param_hint="--threshold"
        )
    return value


@contextmanager
def _writer(output: Path | None, raw: bool) -> Iterator[Callable[[str], object]]:
    """Writes to standard output as results come, or to a file that is there when all is done."""
    if output is None:
        yield say_raw if raw else lambda text: say_raw(printable(text))
        return
    with atomic_writer(output) as stream:
        yield lambda text: stream.write((text if raw else printable(text)).encode("utf-8", "surrogateescape"))
