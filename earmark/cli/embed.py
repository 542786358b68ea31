"""``earmark embed``: recordings in, a file of embeddings out.

Conventions: the file is written when all is done, whole or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earmark.cli.options import EngineOption, ModelOption, PrecisionOption
from earmark.cli.program import USE, command, complain, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.errors import EarmarkError

if TYPE_CHECKING:
    from earmark.inference.tagger import Tagger


@command(USE)
def embed(
    files: Annotated[
        list[str], typer.Argument(help="Recordings, folders, or - for standard input.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: .npz or .parquet.", show_default=False)
    ],
    model: ModelOption = None,
    by_window: Annotated[
        bool, typer.Option("--by-window", help="A row for each window, not for each recording.")
    ] = False,
    stages: Annotated[
        str | None,
        typer.Option(help="Embed by inner stages, with commas between them: mel_avgs,b5,b13; or: best"),
    ] = None,
    pool: Annotated[str, typer.Option(help="How feature maps of inner stages become vectors.")] = "mean",
    window: Annotated[
        float | None, typer.Option(help="Length of a window, in seconds; by default the model's.")
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="From one window to the next, in seconds; by default the window.")
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
    """Writes what a model makes of recordings before it names sounds, one vector each."""
    one_matrix_thread()
    from earmark.audio.find import find_recordings
    from earmark.inference.embeddings import file_writer
    from earmark.inference.load import load

    write = file_writer(output)
    if stages is not None:
        if engine != "onnx" or precision is not None:
            raise typer.BadParameter("inner stages run in PyTorch", param_hint="--engine and --precision")
        tagger = _by_stages(model, stages, pool, threads)
    else:
        with download_bar(quiet) as report:
            tagger = load(model, threads=threads, engine=engine, precision=precision, report=report)
    embeddings = []
    failed = 0
    with status_line(quiet) as show:
        for found in find_recordings(files, recursive):
            show(found if isinstance(found, str) else "")
            try:
                if isinstance(found, EarmarkError):
                    raise found
                embeddings.append(tagger.embed(found, window_s=window, hop_s=hop))
            except (EarmarkError, OSError) as error:
                failed += 1
                complain(str(error))
                continue
            for warning in () if quiet else embeddings[-1].warnings:
                complain(f"warning: {warning}")
    if not embeddings:
        raise typer.Exit(2)
    write(embeddings, by_window)
    if failed:
        raise typer.Exit(1)


def _by_stages(model: str | None, stages: str, pool: str, threads: int | None) -> Tagger:
    """A tagger in PyTorch; "best" stands for the stages that served best."""
    from earmark.inference.stages import load_stages

    if model is None:
        raise typer.BadParameter("give a checkpoint or published weights", param_hint="--model")
    tagger = load_stages(model, [] if stages == "best" else stages.split(","), pool)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return tagger
