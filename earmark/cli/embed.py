"""``earmark embed``: recordings in, a file of embeddings out.

Conventions: the file is written when all is done, whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from earmark.cli.program import ModelOption, app, complain, download_bar, progress
from earmark.errors import EarmarkError


@app.command()
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
    window: Annotated[
        float | None, typer.Option(help="Length of a window, in seconds; by default the model's.")
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="From one window to the next, in seconds; by default the window.")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search folders within folders.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")] = False,
) -> None:
    """Writes what a model makes of recordings before it names sounds, one vector each."""
    # NumPy's matrix library reads this when it is loaded; the front-end's products are too small to share
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from earmark.audio.find import find_recordings
    from earmark.embeddings import file_writer
    from earmark.zoo import load

    write = file_writer(output)
    with download_bar(quiet) as report:
        tagger = load(model, threads=threads, report=report)
    embeddings = []
    failed = 0
    with progress(quiet) as show:
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
