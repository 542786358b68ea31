"""``earmark calibrate``: a model whose scores are probabilities, fitted on held-out clips.

Conventions: the metrics go to standard output; a clip that cannot be used is named on standard error.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.options import Audio, Dataset, Device, EngineName, Precision, Quiet, Threads
from earmark.cli.program import TRAIN, command, complain, exit_code, one_matrix_thread, warn
from earmark.cli.progress import download_bar, status_line
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    from earmark.data.manifest import Clip
    from earmark.evaluation.calibration.data import CalibrationData
    from earmark.evaluation.predictions import Predictions
    from earmark.inference.tagger import Tagger
    from earmark.model_file.info import ModelInfo

CHECKPOINT = ".safetensors"


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
    test_dataset: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", help="Measure on these clips (default: by cross-fitting)."),
    ] = None,
    test_fold: Annotated[
        int | None, typer.Option(metavar="N", help="Measure on this fold, and do not fit on it.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the metrics and a reliability diagram there."),
    ] = None,
    quiet: Quiet = False,
    device: Device = "cpu",
    engine: EngineName = "onnx",
    precision: Precision = "fp32",
    threads: Threads = None,
) -> None:
    """Calibrate a model's scores to probabilities."""
    one_matrix_thread()
    from earmark.data.manifest import file_hash
    from earmark.evaluation.calibration import report as words
    from earmark.evaluation.calibration.calibrate import calibrate as fit_and_measure
    from earmark.evaluation.calibration.calibrate import calibration_folds
    from earmark.evaluation.calibration.fit import require_method
    from earmark.evaluation.calibration.thresholds import ThresholdTarget
    from earmark.evaluation.run import origin
    from earmark.hub import registry
    from earmark.inference.load import load
    from earmark.model_file.calibration import METHODS

    target = None if threshold_target is None else ThresholdTarget.parse(threshold_target)
    clips, test_clips = _clips(dataset, audio, fold, test_dataset, test_fold)
    with download_bar(quiet) as bar:
        tagger = load(model, device=device, engine=engine, precision=precision, threads=threads, progress=bar)
    file, info = registry.find(model), tagger.info
    if (file.suffix == CHECKPOINT) != (output.suffix == CHECKPOINT):
        raise typer.BadParameter(
            f"must be of the same kind as {file.name}, got {output}", param_hint="--output"
        )
    method = method or METHODS[info.task][0]
    require_method(method, info.task)
    _require_clips(info, clips, test_clips)
    plain = tagger.uncalibrated()
    predictions, data = _predict(plain, clips, quiet)
    tested, validation = _predict(plain, test_clips, quiet) if test_clips else (None, None)
    folds = None if validation else calibration_folds(predictions.clips)
    found = fit_and_measure(data, method, target, folds=folds, validation=validation)
    source = {"clips": len(predictions.clips), "manifest": dataset.name, "sha256": file_hash(dataset)}
    found = found.with_source(source if fold is None else {**source, "fold": fold})
    print(f"{info.name}: {method}, fitted on {len(predictions.clips)} clips of {dataset}\n")
    print(words.summary(found))
    warn([*predictions.warnings, *words.warnings(info, found)], quiet)
    if report is not None:
        settings = {"fold": fold, "test_fold": test_fold, "engine": engine, "precision": precision}
        settings["test_dataset"] = test_dataset and str(test_dataset)
        words.write_calibration(found, origin(info, [file], dataset, settings), report)
    _write(file, words.with_calibration(info, found), output)
    print(f"\nwrote {output}, whose scores are probabilities")
    exit_code(len(predictions.clips), len(predictions.failed) + len(tested.failed if tested else ()))


def _clips(
    dataset: Path, audio: Path | None, fold: int | None, test_dataset: Path | None, test_fold: int | None
) -> tuple[list[Clip], list[Clip]]:
    """The clips to fit on, and those to measure on, if they are others."""
    from earmark.data.manifest import read_manifest
    from earmark.errors import DataError
    from earmark.evaluation.predictions import select_clips

    clips: list[Clip] = read_manifest(dataset, audio)
    others: list[Clip] = []
    if test_dataset is not None or test_fold is not None:
        others = select_clips(
            clips if test_dataset is None else read_manifest(test_dataset, audio), test_fold
        )
    if test_dataset is None and test_fold is not None and fold is None:
        clips = [clip for clip in clips if clip.fold != test_fold]
    clips = select_clips(clips, fold)
    fitted = {(clip.path, clip.member) for clip in clips}
    for clip in others:
        if (clip.path, clip.member) in fitted:
            raise DataError(
                f"{clip.path}: is among the clips to fit on and to measure on: choose other clips"
            )
    return clips, others


def _require_clips(info: ModelInfo, clips: Sequence[Clip], others: Sequence[Clip]) -> None:
    """Checks, before the first clip is read, that these clips can calibrate this model."""
    from earmark.data.manifest import targets
    from earmark.evaluation.calibration.calibrate import calibration_folds, require_classes_in_folds
    from earmark.evaluation.calibration.data import require_classes
    from earmark.evaluation.predictions import require_labels

    require_labels([*clips, *others], info.labels)
    truth = targets(clips, info.labels)
    require_classes(info.labels, truth)
    if not others:
        require_classes_in_folds(info.labels, truth, calibration_folds(clips))


def _predict(tagger: Tagger, clips: Sequence[Clip], quiet: bool) -> tuple[Predictions, CalibrationData]:
    """Predictions for clips, and the same with the targets."""
    from earmark.data.manifest import targets
    from earmark.errors import DataError
    from earmark.evaluation.calibration.data import CalibrationData
    from earmark.evaluation.predictions import predict_clips

    numbers = itertools.count(1)
    with status_line(quiet) as show:
        predictions = predict_clips(
            tagger,
            clips,
            before=lambda clip: show(f"{next(numbers)} of {len(clips)}  {clip.path}"),
            on_error=complain,
        )
    if not predictions.clips:
        raise DataError(f"none of the {len(clips)} clips could be read")
    truth = targets(predictions.clips, tagger.labels)
    return predictions, CalibrationData(tagger.labels, tagger.info.task, predictions.windows, truth)


def _write(file: Path, info: ModelInfo, out: Path) -> None:
    """Writes the same weights with other model info."""
    if file.suffix == CHECKPOINT:
        from earmark.models.checkpoint import load_checkpoint, save_checkpoint

        save_checkpoint(out, load_checkpoint(file)[0], info)
    else:
        from earmark.model_file.onnx_file import read_model_file, replace_info

        write_atomically(out, replace_info(read_model_file(file)[0], info))
