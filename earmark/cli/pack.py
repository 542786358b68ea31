"""``earmark pack``: clips into a folder of few large files that training reads fast.

Conventions: progress and skipped clips go to standard error. Each shard is written whole or not at all, and
the same command continues an interrupted run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from earmark.cli.options import Audio, Corpus, Quiet, Splits
from earmark.cli.program import TRAIN, command, exit_code, one_matrix_thread
from earmark.cli.progress import clip_counter
from earmark.cli.terminal import complain, note
from earmark.model_file.atomic import require_other_files


@command(TRAIN)
def pack(
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASETS...", help="CSV files with the columns path and labels, packs, or a corpus."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Write the pack there.")],
    form: Annotated[
        Literal["shards", "hdf5", "memmap"],
        typer.Option("--format", help="WebDataset tar files, MP3 in HDF5, or memory-mapped arrays."),
    ] = "shards",
    codec: Annotated[
        Literal["flac", "mp3", "opus"] | None, typer.Option(help="Codec of tar files (default: flac).")
    ] = None,
    sample_rate: Annotated[
        int, typer.Option(min=1, metavar="HZ", help="Resample all clips to this rate.")
    ] = 32000,
    shard_clips: Annotated[int, typer.Option(min=1, metavar="N", help="Clips per file.")] = 2000,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS", help="A label set's name, or a text file of labels (default: the clips')."
        ),
    ] = None,
    audio: Audio = None,
    corpus: Corpus = None,
    split: Splits = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes (default: one per core).")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Pack clips into few large files that training reads fast."""
    one_matrix_thread()
    import os

    from earmark.data.clip_table import read_clips
    from earmark.data.shards.pack import MANIFEST_FILE, SKIPPED_FILE
    from earmark.data.shards.writer import PackOptions
    from earmark.data.shards.writer import pack as write_pack

    require_other_files([output / name for name in (MANIFEST_FILE, SKIPPED_FILE)], datasets)
    splits = tuple(split or ())
    clips = [
        clip
        for dataset in datasets
        for clip in read_clips(dataset, audio=audio, corpus=corpus, splits=splits).clips
    ]
    packing = PackOptions(form, codec, sample_rate, shard_clips, _labels(labels, corpus))
    with clip_counter(quiet, len(clips)) as show:
        heading = write_pack(
            clips, output, packing, workers=workers or os.cpu_count() or 1, on_error=complain, progress=show
        )
    if not quiet:
        written = f"wrote {output}: {heading.clips} of {len(clips)} clips, {heading.seconds / 3600:.3g} h"
        note(written)
    if heading.bad:
        complain(f"skipped {heading.bad} clips, see {output / SKIPPED_FILE}")
    exit_code(heading.clips, heading.bad)


def _labels(labels: str | None, corpus: str | None) -> tuple[str, ...] | None:
    """The labels that were asked for; else those of the corpus, where they are published."""
    from earmark.errors import ModelError
    from earmark.model_file.labels import label_set, read_labels

    if labels is not None:
        return read_labels(labels)
    try:
        return label_set((corpus or "").removesuffix("_hdf5"))
    except ModelError:
        return None
