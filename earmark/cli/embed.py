"""``earmark embed``: audio files in, a file or a folder of embeddings out.

Conventions: a file is written when all is done, whole or not at all; tables in a folder as results come.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from earmark.cli.program import USE, command, exit_code, one_matrix_thread
from earmark.cli.progress import download_bar, each_file, status_line
from earmark.model_file.atomic import require_other_files

if TYPE_CHECKING:
    from earmark.inference.tagger import Tagger

STAGES = "Inner stages (in PyTorch)"


@command(USE)
def embed(
    files: Files,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PATH", help="A file, .npz or .parquet, or a folder for tables."
        ),
    ],
    model: Models = None,
    by_window: Annotated[
        bool, typer.Option("--by-window", help="Write a row per window, not per file.")
    ] = False,
    window: Window = None,
    hop: Hop = None,
    recursive: Recursive = False,
    quiet: Quiet = False,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Embed by this stage of the network, such as b13, or best; repeatable.",
            rich_help_panel=STAGES,
        ),
    ] = None,
    pool: Annotated[
        str, typer.Option(help="How feature maps of stages become vectors.", rich_help_panel=STAGES)
    ] = "mean",
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
    """Extract embeddings."""
    one_matrix_thread()
    from earmark.inference.embeddings import Embeddings, file_writer
    from earmark.inference.load import load
    from earmark.inference.result import Result

    archive = ArchiveRequest(workers, resume, force, ordered, engine_cluster)
    is_folder = archive.wants_folder(output)
    write = None if is_folder else file_writer(output)
    require_other_files([output], model or [])
    if stage:
        if (device, engine, precision) != ("cpu", "onnx", "fp32"):
            raise typer.BadParameter("cannot be combined with --stage", param_hint="--device, --engine, ...")
        if is_folder or workers:
            raise typer.BadParameter("cannot be combined with --workers or a folder", param_hint="--stage")
        tagger = _by_stages(model, stage, pool, threads)
    else:
        threads = archive.threads(threads, is_folder)
        with download_bar(quiet) as bar:
            tagger = load(
                model, device=device, engine=engine, precision=precision, threads=threads, progress=bar
            )
    if write is None:
        from earmark.batch.analysis import Analysis

        more = model_settings(model, device, engine, precision)
        analysis = Analysis(tagger, "embeddings", window, hop, by_window=by_window, more_settings=more)
        exit_code(*run_archive(analysis, lambda: inputs(files, recursive, None), output, archive, quiet))
        return
    embeddings: list[Embeddings] = []

    def add(result: Result, number: int) -> None:
        embeddings.append(Embeddings.from_result(result))

    with status_line(quiet) as show:
        results = tag_each(tagger, inputs(files, recursive, output), window, hop, archive, show)
        embedded, failed = each_file(results, add, show, quiet)
    if embeddings:
        write(embeddings, by_window)
    exit_code(embedded, failed)


def _by_stages(models: list[str] | None, stages: list[str], pool: str, threads: int | None) -> Tagger:
    """A tagger that embeds by inner stages, in PyTorch."""
    from earmark.inference.engines import check_threads
    from earmark.inference.stages import load_stages

    if models is None or len(models) > 1:
        raise typer.BadParameter("--stage needs one checkpoint or published model", param_hint="--model")
    tagger = load_stages(models[0], [] if stages == ["best"] else stages, pool)
    check_threads(threads)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return tagger
