"""``earmark teach``: clips and teacher models to a file of predictions that students train on.

Conventions: progress goes to standard error. A file is written whole or not at all; a folder's files are
written one after the other, and the same command continues an interrupted run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earmark.cli.options import Audio, Corpus, Datasets, Device, Quiet, Splits, Threads
from earmark.cli.program import TRAIN, command, exit_code
from earmark.cli.progress import clip_counter, download_bar
from earmark.cli.terminal import complain, note, warn
from earmark.errors import extra
from earmark.model_file.atomic import require_other_files

if TYPE_CHECKING:
    from earmark.training.distill.losses import Kind

LITERT = "LiteRT teachers"
"""The panel of options for what a LiteRT file does not store."""


@command(TRAIN)
def teach(
    datasets: Datasets,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Teacher: a name, a model file, a checkpoint, a LiteRT file or hf:FOLDER; "
            "repeat it for an ensemble.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="PATH", help="A file (.npz) or a folder of files."),
    ],
    scores: Annotated[
        bool | None, typer.Option("--scores/--logits", help="What to store (default: logits).")
    ] = None,
    audio: Audio = None,
    corpus: Corpus = None,
    split: Splits = None,
    shard_clips: Annotated[
        int, typer.Option(min=1, metavar="N", help="Clips per file of a folder.")
    ] = 10_000,
    quiet: Quiet = False,
    sample_rate: Annotated[
        int | None, typer.Option(min=1, metavar="HZ", help="Its sample rate.", rich_help_panel=LITERT)
    ] = None,
    tensor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Read this tensor, not the output.", rich_help_panel=LITERT),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS", help="A label set's name, or a text file of labels.", rich_help_panel=LITERT
        ),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Precompute teacher predictions for distillation."""
    with extra("earmark teach", "train"):
        import torch

        from earmark.data.clip_table import read_clips
        from earmark.inference.engines import check_threads
        from earmark.training.distill.precompute import precompute
        from earmark.training.distill.teacher_model import open_teacher_model

    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    splits = tuple(split or ())
    tables = [read_clips(dataset, audio=audio, corpus=corpus, splits=splits) for dataset in datasets]
    require_other_files([output], [*(table.path for table in tables), *model])
    clips = [clip for table in tables for clip in table.clips]
    kind: Kind | None = None if scores is None else "scores" if scores else "logits"
    _pull(model, quiet)
    teacher = open_teacher_model(
        model,
        sample_rate=sample_rate,
        tensor=tensor,
        labels=labels,
        kind=kind if any(name.endswith(".tflite") for name in model) else None,
    )
    warn([line for table in tables for line in table.rate_warnings(teacher.sample_rate)], quiet)
    with clip_counter(quiet, len(clips)) as show:
        skipped = precompute(
            teacher,
            clips,
            output,
            kind=kind,
            manifests=[table.sha256 for table in tables],
            shard_clips=shard_clips,
            device=device,
            on_error=complain,
            progress=show,
        )
    stored = len(clips) - skipped
    if not quiet:
        note(f"wrote {output}: {teacher.name}, {stored} of {len(clips)} clips")
    exit_code(stored, skipped)


def _pull(models: list[str], quiet: bool) -> None:
    """Downloads the published models that are not on this machine."""
    from earmark.hub import registry
    from earmark.hub.pull import pull

    with download_bar(quiet) as bar:
        for name in models:
            known = None if registry.lookup(name) else registry.published().get(name)
            if known and known.labels:
                pull(known.name, progress=bar)
