"""``earmark evaluate``: a model and a manifest to numbers.

Conventions: numbers go to standard output; a clip that cannot be evaluated is named on standard error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.options import (
    WINDOWS,
    Audio,
    Corpus,
    Dataset,
    Device,
    EngineName,
    Fold,
    Limit,
    Models,
    Precision,
    Quiet,
    ReportFolder,
    Splits,
    Threads,
)
from earmark.cli.program import TRAIN, command, exit_code, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.cli.terminal import complain, note, say, warn
from earmark.errors import extra
from earmark.model_file.atomic import require_other_files

if TYPE_CHECKING:
    from earmark.evaluation.evaluation import Evaluation


TTA = "Test-time augmentation"
DCASE = "DCASE challenge"


@command(TRAIN)
def evaluate(
    dataset: Dataset,
    model: Models = None,
    audio: Audio = None,
    corpus: Corpus = None,
    split: Splits = None,
    fold: Fold = None,
    limit: Limit = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Scores by group too: a column such as device.")
    ] = None,
    output: ReportFolder = None,
    quiet: Quiet = False,
    windows: Annotated[
        Literal["all", "whole", "center"],
        typer.Option(
            help="All windows, the clip in one pass, or its centre window.", rich_help_panel=WINDOWS
        ),
    ] = "all",
    pooling: Annotated[
        Literal["max", "mean", "logits", "none"] | None,
        typer.Option(help="Pool the windows' scores or logits (default: by task).", rich_help_panel=WINDOWS),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Hop between windows (default: the window length).",
            rich_help_panel=WINDOWS,
        ),
    ] = None,
    crop_to: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Cut longer clips at their end.", rich_help_panel=WINDOWS),
    ] = None,
    pad_to: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Fill up shorter clips with silence.", rich_help_panel=WINDOWS),
    ] = None,
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
        typer.Option(metavar="NAME", help="Write the files of submission NAME.", rich_help_panel=DCASE),
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
    from earmark.evaluation.report import REPORT_FILES, summary, write_report
    from earmark.evaluation.run import EvaluationOptions
    from earmark.evaluation.run import evaluate as run
    from earmark.evaluation.test_time_augmentation import Masking
    from earmark.hub import registry

    if tta is None and (tta_frames or tta_mels):
        raise typer.BadParameter("--tta-frames and --tta-mels need --tta")
    if dcase is not None and pooling == "none":
        raise typer.BadParameter("--dcase needs one prediction for each clip: omit --pooling none")
    if dcase is not None and (not dcase or Path(dcase).name != dcase):
        raise typer.BadParameter(f"{dcase!r} cannot begin a file name", param_hint="--dcase")
    names = model or [registry.DEFAULT]
    if output is not None:
        require_other_files([output / name for name in REPORT_FILES], [dataset, *names])
    options = EvaluationOptions(
        audio=audio,
        corpus=corpus,
        splits=tuple(split or ()),
        fold=fold,
        limit=limit,
        group_by=group_by,
        windows=windows,
        pooling=pooling,
        hop_s=hop,
        crop_to_s=crop_to,
        pad_to_s=pad_to,
        masking=None if tta is None else Masking(tta, tta_frames, tta_mels, seed),
        engine=engine,
        precision=precision,
        threads=threads,
        allow_unlabelled=dcase is not None,
    )
    with download_bar(quiet) as bar, status_line(quiet) as show:
        found = run(
            names,
            dataset,
            device=device,
            options=options,
            progress=lambda number, count, clip: show(f"{number} of {count}  {clip.path}"),
            on_error=complain,
            download_progress=bar,
        )
    warn(found.predictions.warnings, quiet)
    if not found.predictions.clips:
        raise typer.Exit(2)
    say(f"{found.origin['model']['name']}, evaluated on {dataset}\n\n{summary(found)}")
    if output is not None:
        written = write_report(found, output)
        if not quiet and found.by_class and not any(path.suffix == ".png" for path in written):
            complain("plots need an optional part of earmark: pip install 'earmark[plot]'")
    if dcase is not None:
        _write_submission(found, names, dcase, output or Path(), author or [], quiet)
    exit_code(len(found.predictions.clips), len(found.predictions.failed))


def _write_submission(
    found: Evaluation, models: list[str], name: str, folder: Path, authors: list[str], quiet: bool
) -> None:
    from earmark.evaluation.dcase import write_submission

    with extra("earmark evaluate --dcase", "train"):
        from earmark.evaluation.complexity.model_cost import complexity
    cost = complexity(models, found.origin["model"]["window_s"])
    written = write_submission(found, cost, name, folder, authors)
    if not quiet:
        note(f"wrote {', '.join(map(str, written))}")
