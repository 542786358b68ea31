"""``earmark tag``: recordings in, tags out.

Conventions: results go to standard output as they come, or to a file when all is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earmark.cli.options import EngineOption, ModelOption, PrecisionOption
from earmark.cli.program import USE, command, complain, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.errors import EarmarkError
from earmark.inference.formats import Format
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    from earmark.inference.tagger import Limit, Result, Tagger


@command(USE)
def tag(
    files: Annotated[
        list[str], typer.Argument(help="Recordings, folders, or - for standard input.", show_default=False)
    ],
    model: ModelOption = None,
    top: Annotated[int, typer.Option(min=1, help="Tags shown of each recording.")] = 10,
    threshold: Annotated[
        str | None,
        typer.Option(help="Only tags of at least this score, 0 to 1; auto: the model's own threshold."),
    ] = None,
    rollup: Annotated[
        bool, typer.Option("--rollup", help="With AudioSet's parents: a dog is a pet is an animal.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only these labels, with commas between them: Dog,Siren")
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="Length of a window, in seconds; by default the model's.")
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="From one window to the next, in seconds; by default the window.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Of the output.")] = Format.TABLE,  # noqa: A002
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, whole or not at all.")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search folders within folders.")
    ] = False,
    engine: EngineOption = "onnx",
    precision: PrecisionOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")] = False,
) -> None:
    """Says what is heard in recordings."""
    one_matrix_thread()
    from earmark.audio.find import find_recordings
    from earmark.inference.formats import layout
    from earmark.inference.load import load

    with download_bar(quiet) as report:
        tagger = load(model, threads=threads, engine=engine, precision=precision, report=report)
    view = _view(tagger, rollup, only)
    parts = layout(format, top, _threshold(threshold, tagger))
    tagged = failed = 0
    with _writer(output) as write, status_line(quiet) as show:
        write(parts.head)
        for found in find_recordings(files, recursive):
            show(found if isinstance(found, str) else "")
            try:
                if isinstance(found, EarmarkError):
                    raise found
                result = view(tagger.tag(found, window_s=window, hop_s=hop))
            except (EarmarkError, OSError) as error:
                failed += 1
                complain(str(error))
                continue
            write((parts.between if tagged else "") + parts.render(result))
            tagged += 1
            if not quiet:
                for warning in result.warnings:
                    complain(f"warning: {warning}")
        write(parts.tail)
    if failed:
        raise typer.Exit(1 if tagged else 2)


def _view(tagger: Tagger, rollup: bool, only: list[str] | None) -> Callable[[Result], Result]:
    """What is to be seen of a result; labels that cannot be are found out before anything is tagged."""
    from earmark.model_file.label_selection import select_labels
    from earmark.model_file.ontology import rollup_labels

    labels = rollup_labels(tagger.labels) if rollup else tagger.labels
    wanted = None if only is None else ",".join(only)
    if wanted is not None:
        select_labels(labels, wanted)

    def view(result: Result) -> Result:
        seen = result.rolled_up() if rollup else result
        return seen if wanted is None else seen.only(wanted)

    return view


def _threshold(text: str | None, tagger: Tagger) -> Limit | None:
    if text is None:
        return None
    if text == "auto":
        if tagger.info.threshold is None:
            raise typer.BadParameter(
                f"model {tagger.info.name} has no threshold of its own: give a number",
                param_hint="--threshold",
            )
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise typer.BadParameter(
            f"{text!r} is neither a number from 0 to 1 nor auto", param_hint="--threshold"
        )
    return value


@contextmanager
def _writer(output: Path | None) -> Iterator[Callable[[str], object]]:
    """Writes to standard output as it goes, or to a file when all is done."""
    if output is None:
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
        yield sys.stdout.write
        sys.stdout.flush()
        return
    pieces: list[str] = []
    yield pieces.append
    write_atomically(output, "".join(pieces).encode("utf-8", "surrogateescape"))
