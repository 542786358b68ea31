"""``earmark teach``: a manifest and models in, a file of what the models make of the clips out.

Conventions: progress goes to standard error. The file is written whole or not at all; a folder's files are
written one after the other, and the same command goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earmark.cli.program import TRAIN, command, complain
from earmark.cli.progress import download_bar, status_line
from earmark.errors import extra

if TYPE_CHECKING:
    from earmark.training.distill.losses import Kind


@command(TRAIN)
def teach(
    manifests: Annotated[
        list[Path],
        typer.Argument(help="CSV files of path and labels, or packs.", show_default=False),
    ],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="A model's name or file, a checkpoint, a LiteRT file, or hf:FOLDER; several: an ensemble.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The file to write (.npz), or a folder of files.", show_default=False)
    ],
    kind: Annotated[
        bool | None, typer.Option("--scores/--logits", help="What is stored; by default logits.")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Folder that relative paths start from; by default each manifest's.")
    ] = None,
    shard_clips: Annotated[int, typer.Option(min=1, help="Clips for each file of a folder.")] = 10_000,
    sample_rate: Annotated[
        int | None, typer.Option(min=1, help="Of a LiteRT file: the rate that it expects, in Hz.")
    ] = None,
    tensor: Annotated[
        str | None, typer.Option(help="Of a LiteRT file: the tensor to read instead of its output.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Of a LiteRT file: a label set's name, or a file of names.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Stores what models make of the clips of a manifest, for students to learn from."""
    with extra("earmark teach", "train"):
        import torch

        from earmark.data.manifest import file_hash, read_manifest
        from earmark.data.shards.pack import table_of
        from earmark.training.distill.precompute import teach as ask
        from earmark.training.distill.teacher_model import open_listener

    if threads is not None:
        torch.set_num_threads(threads)
    manifests = [table_of(manifest) for manifest in manifests]
    clips = [clip for manifest in manifests for clip in read_manifest(manifest, audio)]
    wanted: Kind | None = None if kind is None else "scores" if kind else "logits"
    listener = open_listener(
        _fetched(model, quiet),
        sample_rate=sample_rate,
        tensor=tensor,
        labels=labels,
        kind=wanted if any(name.endswith(".tflite") for name in model) else None,
    )
    with _shown(len(clips), quiet) as show:
        left_out = ask(
            listener,
            clips,
            out,
            kind=wanted,
            manifests=[file_hash(manifest) for manifest in manifests],
            shard_clips=shard_clips,
            complain=complain,
            show=show,
        )
    if not quiet:
        said = f"wrote {out}: {listener.name} about {len(clips) - left_out} of {len(clips)} clips"
        print(said, file=sys.stderr)
    if left_out:
        raise typer.Exit(1)


def _fetched(models: list[str], quiet: bool) -> list[str]:
    """The models, "a+b" apart; published ones are fetched where they are not on this machine."""
    from earmark.hub import registry
    from earmark.hub.pull import pull

    names = [name for model in models for name in (_parts(model))]
    with download_bar(quiet) as report:
        for name in names:
            known = None if registry.look(name) else registry.published().get(name)
            if known and known.labels:
                pull(known.name, report=report)
    return names


def _parts(model: str) -> tuple[str, ...]:
    from earmark.hub import registry

    return (model,) if Path(model).exists() or model.startswith("hf:") else registry.members(model)


@contextmanager
def _shown(clips: int, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """On a terminal the clip that is heard; elsewhere a line now and then."""
    with status_line(quiet) as status:

        def show(done: int, path: str) -> None:
            status(f"{done} of {clips} clips: {path}")
            if not quiet and not sys.stderr.isatty() and done and done % max(1, clips // 10) == 0:
                print(f"{done} of {clips} clips", file=sys.stderr)

        yield show
