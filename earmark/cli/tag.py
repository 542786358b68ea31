"""``earmark tag``: audio files in, tags out.

Conventions: results go to standard output as they come, or to a file when all is done.
"""

from __future__ import annotations

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
)
from earmark.cli.program import USE, command, complain, exit_code, one_matrix_thread, warn
from earmark.cli.progress import download_bar, status_line
from earmark.errors import EarmarkError
from earmark.inference.formats import Format
from earmark.model_file.atomic import write_atomically


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
    from earmark.audio.find import find_recordings
    from earmark.inference.formats import layout
    from earmark.inference.load import load
    from earmark.inference.result import Result

    limit = _threshold(threshold)
    with download_bar(quiet) as bar:
        tagger = load(model, device=device, engine=engine, precision=precision, threads=threads, progress=bar)
    empty = Result(tagger.labels, (), 0.0, 1, tagger.info.name, "max", thresholds=tagger.info.thresholds)
    empty.filter(label, rollup=rollup, threshold=limit)  # an impossible filter fails before the first file
    parts = layout(form)
    tagged = failed = 0
    with _writer(output) as write, status_line(quiet) as show:
        for item in tagger.tag_many(find_recordings(files, recursive), window_s=window, hop_s=hop):
            if isinstance(item, EarmarkError):
                failed += 1
                complain(str(item))
                continue
            result = item.filter(label, rollup=rollup, threshold=limit, top=top)
            write((parts.between if tagged else parts.head) + parts.render(result))
            tagged += 1
            show(f"{tagged} files  {item.path}")
            warn(item.warnings, quiet)
        write(parts.tail if tagged else parts.head + parts.tail)
    exit_code(tagged, failed)


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
def _writer(output: Path | None) -> Iterator[Callable[[str], object]]:
    """Writes to standard output as results come, or to a file when all is done."""
    if output is None:
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
        yield sys.stdout.write
        sys.stdout.flush()
        return
    pieces: list[str] = []
    yield pieces.append
    write_atomically(output, "".join(pieces).encode("utf-8", "surrogateescape"))
