"""``earmark pack``: a manifest to a folder of few large files that training reads fast.

Conventions: progress and clips that are left out go to standard error. Each shard is written whole or not at
all, and the same command goes on where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.program import TRAIN, command, complain, one_matrix_thread
from earmark.cli.progress import status_line

if TYPE_CHECKING:
    from earmark.data.manifest import Clip

Format = Literal["shards", "hdf5", "memmap"]
Codec = Literal["flac", "mp3", "opus"]


@command(TRAIN)
def pack(
    manifests: Annotated[
        list[Path],
        typer.Argument(
            help="CSV files with the columns path, labels; or a corpus's folder.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the pack.", show_default=False)],
    form: Annotated[
        Format, typer.Option("--format", help="Tar files in WebDataset's layout, mp3 in HDF5, or arrays.")
    ] = "shards",
    codec: Annotated[
        Codec | None, typer.Option(help="Of shards; by default flac.", show_default=False)
    ] = None,
    sample_rate: Annotated[int, typer.Option(min=1, help="Of all clips, in Hz.")] = 32000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes to use; by default one per core.")
    ] = None,
    shard_clips: Annotated[int, typer.Option(min=1, help="Clips for each shard.")] = 2000,
    labels: Annotated[
        str | None,
        typer.Option(help="A label set's name, or a file of one name a line; by default the clips'."),
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Folder that relative paths start from; by default each manifest's.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="The folders are this published corpus, in its own layout.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the corpus, where it has several.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Puts the clips of a manifest into few large files for training, and lists those that cannot be."""
    one_matrix_thread()
    import os

    from earmark.data.shards.pack import BAD
    from earmark.data.shards.writer import Packing
    from earmark.data.shards.writer import pack as write_pack

    clips = _clips(manifests, audio, corpus, split)
    packing = Packing(form, codec, sample_rate, shard_clips, _chosen(labels, corpus))
    with status_line(quiet) as status:

        def show(done: int) -> None:
            status(f"{done} of {len(clips)} clips")
            if not quiet and not sys.stderr.isatty():
                print(f"{done} of {len(clips)} clips", file=sys.stderr)

        heading = write_pack(
            clips, out, packing, workers=workers or os.cpu_count() or 1, complain=complain, show=show
        )
    if not quiet:
        said = f"wrote {out}: {heading.clips} of {len(clips)} clips, {heading.seconds / 3600:.3g} h"
        print(said, file=sys.stderr)
    if heading.bad:
        complain(f"{heading.bad} clips are left out: {out / BAD} says why")
        raise typer.Exit(1)


def _clips(manifests: list[Path], audio: Path | None, corpus: str | None, split: str) -> list[Clip]:
    from earmark.data.corpora import load_corpus
    from earmark.data.manifest import read_manifest
    from earmark.data.shards.pack import table_of

    if corpus is not None:
        if audio is not None:
            raise typer.BadParameter("--audio does not go with --corpus: leave it out")
        return [clip for folder in manifests for clip in load_corpus(corpus, folder, split)]
    if split:
        raise typer.BadParameter("--split is for --corpus: leave it out")
    return [clip for manifest in manifests for clip in read_manifest(table_of(manifest), audio)]


def _chosen(labels: str | None, corpus: str | None) -> tuple[str, ...] | None:
    """The labels that were asked for; else those of the corpus, where they are published."""
    from earmark.errors import ModelError
    from earmark.model_file.labels import label_set, read_labels

    if labels is not None:
        return read_labels(labels)
    try:
        return label_set((corpus or "").removesuffix("_hdf5"))
    except ModelError:
        return None
