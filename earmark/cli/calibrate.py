"""``earmark calibrate``: a model whose scores are probabilities, fitted on held-out clips.

Conventions: the metrics go to standard output; a clip that cannot be used is named on standard error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from earmark.cli.options import (
    Audio,
    Corpus,
    Dataset,
    Device,
    EngineName,
    Precision,
    Quiet,
    Splits,
    Threads,
)
from earmark.cli.program import TRAIN, command, exit_code, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.cli.terminal import complain, say, warn
from earmark.model_file.atomic import require_other_files

TEST = "Test clips"
"""The panel of the clips that a calibration is measured on."""


@command(TRAIN)
def calibrate(
    dataset: Dataset,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The calibrated model, a file of the same kind."),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Name or file (default: the model that ships)."),
    ] = None,
    audio: Audio = None,
    corpus: Corpus = None,
    split: Splits = None,
    fold: Annotated[int | None, typer.Option(metavar="N", help="Fit on the clips of this fold only.")] = None,
    method: Annotated[
        Literal["temperature", "platt", "shared", "isotonic"] | None,
        typer.Option(help="Default: temperature for single-label models, else platt."),
    ] = None,
    threshold_target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET", help="Choose each label's threshold: precision=0.9, recall=0.8 or f1."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the metrics and a reliability diagram there."),
    ] = None,
    quiet: Quiet = False,
    test_dataset: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Measure on these clips (default: by cross-fitting).",
            rich_help_panel=TEST,
        ),
    ] = None,
    test_split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Measure on this split of the corpus; repeatable.", rich_help_panel=TEST
        ),
    ] = None,
    test_fold: Annotated[
        int | None,
        typer.Option(metavar="N", help="Measure on this fold, and do not fit on it.", rich_help_panel=TEST),
    ] = None,
    device: Device = "cpu",
    engine: EngineName = "onnx",
    precision: Precision = "fp32",
    threads: Threads = None,
) -> None:
    """Calibrate a model's scores to probabilities."""
    one_matrix_thread()
    from earmark.evaluation.calibration.report import summary, write_calibration
    from earmark.evaluation.calibration.run import CalibrationOptions, calibrate_model
    from earmark.evaluation.calibration.thresholds import ThresholdTarget

    require_other_files(
        [output], [dataset, *([test_dataset] if test_dataset else []), *([model] if model else [])]
    )
    options = CalibrationOptions(
        audio=audio,
        corpus=corpus,
        splits=tuple(split or ()),
        fold=fold,
        method=method,
        threshold_target=None if threshold_target is None else ThresholdTarget.parse(threshold_target),
        test_dataset=test_dataset,
        test_splits=tuple(test_split or ()),
        test_fold=test_fold,
        device=device,
        engine=engine,
        precision=precision,
        threads=threads,
    )
    with download_bar(quiet) as bar, status_line(quiet) as show:
        run = calibrate_model(
            model,
            dataset,
            output,
            options,
            progress=lambda number, count, clip: show(f"{number} of {count}  {clip.path}"),
            on_error=complain,
            download_progress=bar,
        )
    count = len(run.predictions.clips)
    say(f"{run.info.name}: {run.result.calibration.method}, fitted on {count} clips of {dataset}\n")
    say(summary(run.result))
    warn(run.warnings, quiet)
    if report is not None:
        write_calibration(run.result, run.origin, report)
    say(f"\nwrote {output}, whose scores are probabilities")
    exit_code(count, run.num_failed)
