"""``earmark suggest`` and ``earmark review``: clips of an archive to sort, and the threshold that follows.

Conventions: nothing is printed to standard output but the result; recordings that cannot be read are named on
standard error and left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earmark.cli.options import Device, EngineName, Hop, Precision, Quiet, Threads, Window, inputs
from earmark.cli.program import OWN, command, exit_code, one_matrix_thread
from earmark.cli.progress import download_bar, each_file, status_line
from earmark.cli.terminal import say, warn

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name or file of a model.")]


@command(OWN)
def suggest(
    model: ModelArgument,
    archive: Annotated[
        list[str], typer.Argument(metavar="ARCHIVE...", help="Audio files, or folders with subfolders.")
    ],
    label: Annotated[str, typer.Option(metavar="LABEL", help="The label to listen for.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where clips to sort are written.")
    ],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Number of clips.")] = 50,
    context: Annotated[
        float, typer.Option(metavar="SECONDS", help="Sound before and after each window.")
    ] = 0.0,
    window: Window = None,
    hop: Hop = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the random samples.")] = 0,
    quiet: Quiet = False,
    device: Device = "cpu",
    engine: EngineName = "onnx",
    precision: Precision = "fp32",
    threads: Threads = None,
) -> None:
    """Write clips of an archive that are worth sorting by ear."""
    one_matrix_thread()
    from earmark.custom.review import OTHER, folder_name, require_new, write_suggestions
    from earmark.custom.suggest import Suggester
    from earmark.inference.load import load

    require_new(output)
    own = folder_name(label)
    with download_bar(quiet) as bar:
        tagger = load(model, device=device, engine=engine, precision=precision, threads=threads, progress=bar)
    suggester = Suggester(tagger, label, top, seed)
    with status_line(quiet) as show:
        results = tagger.tag_many(inputs(archive, True, None), window_s=window, hop_s=hop)
        read, failed = each_file(results, lambda result, number: suggester.add(result), show, quiet)
    suggestions = suggester.suggestions()
    if suggestions:
        warn(write_suggestions(suggestions, suggester.label, output, context), quiet)
        say(f"{len(suggestions)} clips in {output}: move each into {own}/ or {OTHER}/")
    exit_code(read, failed)


@command(OWN)
def review(
    model: ModelArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What earmark suggest wrote, with the clips sorted.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the model with the threshold."),
    ] = None,
    target: Annotated[
        float, typer.Option("--precision", metavar="SHARE", help="Wanted precision, above 0, at most 1.")
    ] = 0.9,
    moved_to: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Folder of classes that clips were moved to; repeatable."),
    ] = None,
) -> None:
    """Set a label's threshold from clips that were sorted by ear."""
    from earmark.custom.review import read_review, with_threshold
    from earmark.hub.registry import find
    from earmark.model_file.atomic import require_other_files

    path = find(model)
    sorted_clips = read_review(folder, moved_to or ())
    found = sorted_clips.threshold(target)
    if output is not None:
        require_other_files([output], [path])
        with_threshold(path, sorted_clips, found, output)
    unsorted = f"; {sorted_clips.num_unsorted} are not sorted" if sorted_clips.num_unsorted else ""
    say(
        f"{sorted_clips.label}: threshold {found.value:.3f}, precision {found.precision:.2f}, recall "
        f"{found.recall:.2f} (estimated from {len(sorted_clips.scores)} clips{unsorted})"
    )
