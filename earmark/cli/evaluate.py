"""``earmark evaluate``: a model and a manifest to numbers.

Conventions: numbers go to standard output; a clip that cannot be judged is named on standard error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from earmark.cli.options import (
    Audio,
    Dataset,
    Device,
    EngineName,
    Fold,
    Limit,
    Models,
    Precision,
    Quiet,
    ReportFolder,
    Threads,
)
from earmark.cli.program import TRAIN, command, complain, exit_code, one_matrix_thread, warn
from earmark.cli.progress import download_bar, status_line
from earmark.errors import extra
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    from earmark.data.manifest import Clip
    from earmark.evaluation.evaluation import Evaluation
    from earmark.evaluation.test_time_augmentation import MaskedPasses
    from earmark.inference.tagger import Tagger


TTA = "Test-time augmentation"
DCASE = "DCASE challenge"


@command(TRAIN)
def evaluate(
    dataset: Dataset,
    model: Models = None,
    audio: Audio = None,
    fold: Fold = None,
    limit: Limit = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Scores by group too: a column such as device.")
    ] = None,
    windows: Annotated[
        Literal["average", "whole", "center"] | None,
        typer.Option(help="Average the windows, take the clip in one pass, or only its centre window."),
    ] = None,
    output: ReportFolder = None,
    quiet: Quiet = False,
    tta: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Average N masked passes.", rich_help_panel=TTA)
    ] = None,
    tta_frames: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Limit of a mask's frames.", rich_help_panel=TTA)
    ] = None,
    tta_mels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Limit of a mask's mel bands.", rich_help_panel=TTA)
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the masks.", rich_help_panel=TTA)
    ] = 0,
    dcase: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write NAME.output.csv and NAME.meta.yaml.", rich_help_panel=DCASE),
    ] = None,
    author: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help='An author, "Given Last"; repeatable.', rich_help_panel=DCASE),
    ] = None,
    device: Device = "cpu",
    engine: EngineName = "onnx",
    precision: Precision = "fp32",
    threads: Threads = None,
) -> None:
    """Evaluate a model on a dataset."""
    one_matrix_thread()
    from earmark.data.shards.pack import table_of
    from earmark.evaluation.evaluation import evaluate as judge
    from earmark.evaluation.report import summary, traces, write_report
    from earmark.hub import registry

    names = model or [registry.DEFAULT]
    way: Any = {None: "tagger", "average": "windows"}.get(windows, windows)
    manifest = table_of(dataset)
    clips = _clips(manifest, audio, fold, limit, unlabelled=dcase is not None)
    masks = _masks(tta, frames=tta_frames, mels=tta_mels)
    how: dict[str, Any] = {"device": device, "threads": threads, "engine": engine, "precision": precision}
    tagger, passes = _open(names, how, quiet, tta, masks, seed)
    challenge = _challenge(dcase, names, tagger)
    with status_line(quiet) as show:
        before = _announcer(passes, show, len(clips))
        found = judge(tagger, clips, way=way, by=group_by, before=before, complain=complain)
    warn(found.answers.warnings, quiet)
    if not found.answers.clips:
        raise typer.Exit(2)
    print(f"{tagger.info.name}, evaluated on {manifest}\n\n{summary(found)}")
    if output is not None:
        settings: dict[str, Any] = {"way": way, "fold": fold, "limit": limit, "by": group_by, "tta": tta}
        settings |= {"engine": engine, "precision": precision}
        if passes:
            settings |= {"seed": seed, "masks": [asdict(masked.masks) for masked in passes]}
        files = [registry.find(name) for name in names]
        written = write_report(found, traces(tagger.info, files, manifest, settings), output)
        if not quiet and found.by_class and not any(path.suffix == ".png" for path in written):
            complain("plots need an optional part of earmark: pip install 'earmark[plot]'")
    if challenge is not None:
        challenge(found, tta, author or [], output or Path())
    exit_code(len(found.answers.clips), len(found.answers.failed))


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
    names: list[str], how: dict[str, Any], quiet: bool, tta: int | None, masks: dict[str, int], seed: int
) -> tuple[Tagger, list[MaskedPasses]]:
    """The model, and what masks its members, where that was asked for."""
    from earmark.hub import registry
    from earmark.inference.ensemble import ensemble
    from earmark.inference.load import load

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
    name: str | None, models: list[str], tagger: Tagger
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
    cost = complexity(models, tagger.info.window_s)

    def write(found: Evaluation, passes: int | None, authors: Sequence[str], folder: Path) -> None:
        table = output_table(found.answers, found.labels)
        write_atomically(folder / f"{name}.output.csv", table)
        meta = meta_yaml(name, tagger.info, cost, found, passes, authors)
        write_atomically(folder / f"{name}.meta.yaml", meta)

    return write
