"""Calibrates a model on a dataset and writes it, behind ``earmark calibrate``.

Conventions: options, labels and classes are checked before the first clip is read. The model that is written
has the same weights; only its model info differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.data.clip_table import ClipTable, read_clips
from earmark.data.manifest import Clip, targets
from earmark.errors import DataError, ModelError
from earmark.evaluation.calibration import report
from earmark.evaluation.calibration.calibrate import (
    CalibrationResult,
    calibrate,
    calibration_folds,
    require_classes_in_folds,
)
from earmark.evaluation.calibration.data import CalibrationData, require_classes
from earmark.evaluation.calibration.fit import require_method
from earmark.evaluation.calibration.thresholds import ThresholdTarget
from earmark.evaluation.predictions import Predictions, predict_clips, require_labels, select_clips
from earmark.evaluation.run import origin
from earmark.hub import registry
from earmark.inference.engines import Engine, Precision
from earmark.inference.load import load
from earmark.inference.tagger import Tagger
from earmark.model_file.atomic import write_atomically
from earmark.model_file.calibration import METHODS, Method
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file, replace_info

if TYPE_CHECKING:
    from earmark.hub.download import Progress

CHECKPOINT = ".safetensors"
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """Options of a calibration.

    Args:
        audio: Folder of the recordings; None: that of the dataset.
        corpus: Name of the published corpus whose folder the dataset is; None: a manifest or a pack.
        splits: Of the corpus, if it has any.
        fold: Fit on the clips of this fold only.
        method: None: the usual method of the model's task.
        threshold_target: Of the labels' thresholds; None: no new thresholds.
        test_dataset: Measure on these clips; None: by cross-fitting.
        test_splits: Measure on these splits of the corpus.
        test_fold: Measure on this fold, and do not fit on it.
        device: As for :func:`earmark.load`.
        engine: As for :func:`earmark.load`.
        precision: As for :func:`earmark.load`.
        threads: As for :func:`earmark.load`.
    """

    audio: str | Path | None = None
    corpus: str | None = None
    splits: tuple[str, ...] = ()
    fold: int | None = None
    method: Method | None = None
    threshold_target: ThresholdTarget | None = None
    test_dataset: PathLike | None = None
    test_splits: tuple[str, ...] = ()
    test_fold: int | None = None
    device: str = "cpu"
    engine: Engine = "onnx"
    precision: Precision = "fp32"
    threads: int | None = None


@dataclass(frozen=True)
class CalibrationRun:
    """A model that was calibrated.

    Args:
        info: Model info of the calibrated model.
        result: The calibration and its metrics.
        predictions: The predictions that it was fitted on.
        num_failed: Number of clips that could not be processed.
        warnings: Warnings about clips and calibration, one line each.
        origin: Files, settings and versions that the numbers can be traced to.
    """

    info: ModelInfo
    result: CalibrationResult
    predictions: Predictions
    num_failed: int
    warnings: tuple[str, ...]
    origin: dict[str, Any]


def calibrate_model(
    model: PathLike | None,
    dataset: PathLike,
    output: PathLike,
    options: CalibrationOptions,
    *,
    progress: Callable[[int, int, Clip], object] = lambda number, count, clip: None,
    on_error: Callable[[str], object] = lambda reason: None,
    download_progress: Progress | None = None,
) -> CalibrationRun:
    """Calibrates a model and writes it.

    Args:
        model: A name, the path of a model file or checkpoint, or None for the default model.
        dataset: Path of a manifest, a pack, or the folder of a corpus, of clips that the model was not
            trained on.
        output: The calibrated model, a file of the same kind, replaced atomically.
        options: Which clips and method.
        progress: Called before each clip with its number (from 1), the number of clips, and the clip.
        on_error: Called with the reason when a clip cannot be processed; it is left out.
        download_progress: As ``progress`` of :func:`earmark.load`.

    Raises:
        DataError: If the dataset cannot be read, or does not have what the method needs.
        ModelError: If the model cannot be loaded, or ``output`` is of another kind.
    """
    table = read_clips(dataset, audio=options.audio, corpus=options.corpus, splits=options.splits)
    clips, test_clips = _clips(table, options)
    tagger = load(
        model,
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        threads=options.threads,
        progress=download_progress,
    )
    file, info = registry.find(model), tagger.info
    if (file.suffix == CHECKPOINT) != (Path(output).suffix == CHECKPOINT):
        raise ModelError(f"{output}: must be of the same kind as {file.name}")
    method = options.method or METHODS[info.task][0]
    require_method(method, info.task)
    _require_clips(info, clips, test_clips)

    def predict(chosen: Sequence[Clip]) -> tuple[Predictions, CalibrationData]:
        return _predict(tagger.uncalibrated(), chosen, progress, on_error)

    predictions, data = predict(clips)
    test_predictions, test_data = predict(test_clips) if test_clips else (None, None)
    folds = None if test_data else calibration_folds(predictions.clips)
    result = calibrate(data, method, options.threshold_target, folds=folds, validation=test_data)
    source = {"clips": len(predictions.clips), "manifest": table.name, "sha256": table.sha256}
    result = result.with_source(source if options.fold is None else {**source, "fold": options.fold})
    calibrated = report.with_calibration(info, result)
    _write(file, calibrated, Path(output))
    failed = len(predictions.failed) + len(test_predictions.failed if test_predictions else ())
    warnings = (
        *table.rate_warnings(tagger.sample_rate),
        *predictions.warnings,
        *report.warnings(info, result),
    )
    settings = {name: getattr(options, name) for name in ("fold", "test_fold", "engine", "precision")}
    settings["test_dataset"] = None if options.test_dataset is None else str(options.test_dataset)
    traced = origin(info, [file], table, settings)
    return CalibrationRun(calibrated, result, predictions, failed, warnings, traced)


def _clips(table: ClipTable, options: CalibrationOptions) -> tuple[list[Clip], list[Clip]]:
    """The clips to fit on, and those to measure on, if they are others."""
    clips, others = list(table.clips), list[Clip]()
    fold, test_fold = options.fold, options.test_fold
    if options.test_dataset is not None:
        others = select_clips(read_clips(options.test_dataset, audio=options.audio).clips, test_fold)
    elif options.test_splits:
        test_table = read_clips(table.path, corpus=options.corpus, splits=options.test_splits)
        others = select_clips(test_table.clips, test_fold)
    elif test_fold is not None:
        others = select_clips(clips, test_fold)
        clips = clips if fold is not None else [clip for clip in clips if clip.fold != test_fold]
    clips = select_clips(clips, fold)
    fitted = {(clip.path, clip.member) for clip in clips}
    for clip in others:
        if (clip.path, clip.member) in fitted:
            raise DataError(f"{clip.path}: is a clip to fit on and to measure on: choose other clips")
    return clips, others


def _require_clips(info: ModelInfo, clips: Sequence[Clip], others: Sequence[Clip]) -> None:
    require_labels([*clips, *others], info.labels)
    truth = targets(clips, info.labels)
    require_classes(info.labels, truth)
    if not others:
        require_classes_in_folds(info.labels, truth, calibration_folds(clips))


def _predict(
    tagger: Tagger,
    clips: Sequence[Clip],
    progress: Callable[[int, int, Clip], object],
    on_error: Callable[[str], object],
) -> tuple[Predictions, CalibrationData]:
    numbers = iter(range(1, len(clips) + 1))
    predictions = predict_clips(
        tagger, clips, before=lambda clip: progress(next(numbers), len(clips), clip), on_error=on_error
    )
    if not predictions.clips:
        raise DataError(f"none of the {len(clips)} clips could be processed")
    truth = targets(predictions.clips, tagger.labels)
    return predictions, CalibrationData(tagger.labels, tagger.info.task, predictions.windows, truth)


def _write(file: Path, info: ModelInfo, output: Path) -> None:
    """Writes the same weights with other model info."""
    if file.suffix == CHECKPOINT:
        from earmark.models.checkpoint import load_checkpoint, save_checkpoint

        save_checkpoint(output, load_checkpoint(file)[0], info)
    else:
        write_atomically(output, replace_info(read_model_file(file)[0], info))
