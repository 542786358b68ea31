"""``earmark evaluate``: a model and a manifest to numbers.

Conventions: numbers go to standard output; a clip that cannot be judged is named on standard error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earmark.cli.options import EngineOption, PrecisionOption
from earmark.cli.program import TRAIN, command, complain, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.errors import extra
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    from earmark.data.manifest import Clip
    from earmark.evaluation.evaluation import Evaluation
    from earmark.evaluation.predictions import Way
    from earmark.evaluation.test_time_augmentation import MaskedPasses
    from earmark.inference.tagger import Tagger


@command(TRAIN)
def evaluate(
    model: Annotated[
        str,
        typer.Argument(help="A model's name, file or checkpoint, or several: a+b.", show_default=False),
    ],
    manifest: Annotated[
        Path,
        typer.Argument(help="A CSV file of path and labels, or a pack.", show_default=False),
    ],
    audio: Annotated[
        Path | None, typer.Option(help="Folder of the recordings; by default the manifest's own.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Judge by this fold only.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Judge by so many clips, spread over the manifest.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Also by group: a column of the manifest, such as device.")
    ] = None,
    windows: Annotated[
        bool, typer.Option("--windows", help="A clip scores the mean over its windows, whatever the task.")
    ] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Hear a clip in one pass, however long.")] = False,
    center: Annotated[bool, typer.Option("--center", help="Hear one window in a clip's middle.")] = False,
    tta: Annotated[
        int | None, typer.Option(min=1, help="Passes over masked copies, whose scores are averaged.")
    ] = None,
    tta_frames: Annotated[
        int | None, typer.Option(min=1, help="Masked stripes of frames are narrower than this.")
    ] = None,
    tta_mels: Annotated[
        int | None, typer.Option(min=1, help="Masked stripes of mel bands are narrower than this.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the masks.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report: JSON, Markdown, scores, plots.")
    ] = None,
    dcase: Annotated[
        str | None, typer.Option(help="Write the challenge's NAME.output.csv and NAME.meta.yaml.")
    ] = None,
    author: Annotated[
        list[str] | None, typer.Option(help="Of the challenge's submission: Given-name Last-name.")
    ] = None,
    engine: EngineOption = "onnx",
    precision: PrecisionOption = "fp32",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")] = False,
) -> None:
    """Judges a model by the clips of a manifest."""
    one_matrix_thread()
    from earmark.data.shards.pack import table_of
    from earmark.evaluation.evaluation import evaluate as judge
    from earmark.evaluation.report import summary, traces, write_report

    way = _way(windows=windows, whole=whole, center=center)
    manifest = table_of(manifest)
    clips = _clips(manifest, audio, fold, limit, unlabelled=dcase is not None)
    masks = _masks(tta, frames=tta_frames, mels=tta_mels)
    how: dict[str, Any] = {"threads": threads, "engine": engine, "precision": precision}
    tagger, passes = _open(model, how, quiet, tta, masks, seed)
    challenge = _challenge(dcase, model, tagger)
    with status_line(quiet) as show:
        before = _announcer(passes, show, len(clips))
        found = judge(tagger, clips, way=way, by=by, before=before, complain=complain)
    for warning in () if quiet else found.answers.warnings:
        complain(f"warning: {warning}")
    if not found.answers.clips:
        raise typer.Exit(2)
    print(f"{tagger.info.name}, judged by {manifest}\n\n{summary(found)}")
    if out is not None:
        settings: dict[str, Any] = {"way": way, "fold": fold, "limit": limit, "by": by, "tta": tta}
        settings |= {"engine": engine, "precision": precision}
        if passes:
            settings |= {"seed": seed, "masks": [asdict(masked.masks) for masked in passes]}
        from earmark.hub import registry

        files = [registry.find(name) for name in registry.members(model)]
        written = write_report(found, traces(tagger.info, files, manifest, settings), out)
        if not quiet and found.by_class and not any(path.suffix == ".png" for path in written):
            complain("plots need an optional part of earmark: pip install 'earmark[plot]'")
    if challenge is not None:
        challenge(found, tta, author or [], out or Path())
    if found.answers.failed:
        raise typer.Exit(1)


def _way(**chosen: bool) -> Way:
    named: list[Any] = [name for name, on in chosen.items() if on]
    if len(named) > 1:
        options = " and ".join(f"--{name}" for name in named)
        raise typer.BadParameter(f"{options} exclude each other: give one of them")
    way: Way = named[0] if named else "tagger"
    return way


def _clips(
    manifest: Path, audio: Path | None, fold: int | None, limit: int | None, *, unlabelled: bool
) -> list[Clip]:
    from earmark.data.manifest import read_manifest
    from earmark.errors import DataError
    from earmark.evaluation.predictions import choose

    clips = choose(read_manifest(manifest, audio), fold, limit)
    if not unlabelled and not any(clip.labels for clip in clips):
        raise DataError(f"{manifest}: no clip to judge by has a label (--dcase writes answers without)")
    return clips


def _masks(tta: int | None, **widths: int | None) -> dict[str, int]:
    """The limits that were given."""
    given = {name: width for name, width in widths.items() if width is not None}
    if given and tta is None:
        raise typer.BadParameter(f"--tta-{next(iter(given))} says how --tta masks: give --tta too")
    return given


def _open(
    model: str, how: dict[str, Any], quiet: bool, tta: int | None, masks: dict[str, int], seed: int
) -> tuple[Tagger, list[MaskedPasses]]:
    """The model, and what masks its members, where that was asked for."""
    from earmark.hub import registry
    from earmark.inference.ensemble import ensemble
    from earmark.inference.load import load

    names = registry.members(model)
    with download_bar(quiet) as report:
        members = [load(name, progress=report, **how) for name in names]
    if how["threads"] is not None and any(Path(name).suffix == ".safetensors" for name in names):
        import torch

        torch.set_num_threads(how["threads"])
    passes: list[MaskedPasses] = []
    if tta is not None:
        from earmark.evaluation.test_time_augmentation import augmented

        for index, name in enumerate(names):
            members[index], masked = augmented(members[index], registry.find(name), tta, masks, seed)
            passes.append(masked)
    return ensemble(members), passes


def _announcer(
    passes: Sequence[MaskedPasses], show: Callable[[str], object], count: int
) -> Callable[[Clip], None]:
    """What is done before each clip: draws of its own, and a word on how far the run is."""
    numbers = itertools.count(1)

    def before(clip: Clip) -> None:
        show(f"{next(numbers)} of {count}  {clip.path}")
        for masked in passes:
            masked.restart(clip.id)

    return before


def _challenge(
    name: str | None, model: str, tagger: Tagger
) -> Callable[[Evaluation, int | None, Sequence[str], Path], None] | None:
    """What writes the challenge's files, if they were asked for; what stands in the way is said here."""
    if name is None:
        return None
    if not name or Path(name).name != name:
        raise typer.BadParameter(
            f"{name!r} is no name: it becomes the start of two files' names", param_hint="--dcase"
        )
    from earmark.evaluation.dcase import meta_yaml, output_table, require_exclusive

    require_exclusive(tagger.info)
    with extra("earmark evaluate --dcase", "train"):
        from earmark.evaluation.complexity.model_cost import complexity
    cost = complexity(model, tagger.info.window_s)

    def write(found: Evaluation, passes: int | None, authors: Sequence[str], folder: Path) -> None:
        table = output_table(found.answers, found.labels)
        write_atomically(folder / f"{name}.output.csv", table)
        meta = meta_yaml(name, tagger.info, cost, found, passes, authors)
        write_atomically(folder / f"{name}.meta.yaml", meta)

    return write
