"""``earmark calibrate``: a model whose scores are probabilities, by what it says of held-out clips.

Conventions: numbers go to standard output; a clip that cannot be used is named on standard error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from earmark.cli.options import EngineOption, PrecisionOption
from earmark.cli.program import TRAIN, command, complain, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    from earmark.data.manifest import Clip
    from earmark.evaluation.calibration.data import CalibrationData
    from earmark.evaluation.predictions import Answers
    from earmark.inference.tagger import Tagger
    from earmark.model_file.info import ModelInfo

CHECKPOINT = ".safetensors"


@command(TRAIN)
def calibrate(
    model: Annotated[str, typer.Argument(help="A model's name, file or checkpoint.", show_default=False)],
    manifest: Annotated[
        Path, typer.Argument(help="Clips that the model was not trained on.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The calibrated model: a file of the same kind.")],
    audio: Annotated[
        Path | None, typer.Option(help="Folder of the recordings; by default the manifest's own.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Fit to this fold only.")] = None,
    method: Annotated[
        Literal["temperature", "platt", "shared", "isotonic"] | None,
        typer.Option(
            help="temperature where classes exclude each other; else platt (default), shared, isotonic."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Choose each label's threshold for it: precision=0.9, recall=0.8 or f1."),
    ] = None,
    judge: Annotated[
        Path | None, typer.Option(help="Measure by the clips of this manifest, not by cross-fitting.")
    ] = None,
    judge_fold: Annotated[
        int | None, typer.Option(help="Measure by this fold, which is not fitted to then.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for the numbers as JSON and a reliability diagram.")
    ] = None,
    engine: EngineOption = "onnx",
    precision: PrecisionOption = "fp32",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")] = False,
) -> None:
    """Turns a model's scores into probabilities, by clips that it was not trained on."""
    one_matrix_thread()
    from earmark.data.manifest import file_hash
    from earmark.evaluation.calibration import report as words
    from earmark.evaluation.calibration.calibrate import calibrate as fit_and_measure
    from earmark.evaluation.calibration.calibrate import calibration_folds
    from earmark.evaluation.calibration.fit import require_method
    from earmark.evaluation.calibration.thresholds import ThresholdTarget
    from earmark.evaluation.report import traces
    from earmark.model_file.calibration import METHODS

    wanted = None if target is None else ThresholdTarget.parse(target)
    clips, others = _clips(manifest, audio, fold, judge, judge_fold)
    how: dict[str, Any] = {"threads": threads, "engine": engine, "precision": precision}
    file, tagger = _open(model, out, how, quiet)
    info = tagger.info
    method = method or METHODS[info.task][0]
    require_method(method, info.task)
    _require_clips(info, clips, others)
    hear = _listener(tagger.uncalibrated(), quiet)
    heard, evidence = hear(clips)
    judged_heard, judged = hear(others) if others else (None, None)
    folds = None if judged else calibration_folds(heard.clips)
    found = fit_and_measure(evidence, method, wanted, folds=folds, validation=judged)
    origin = {"clips": len(heard.clips), "manifest": manifest.name, "sha256": file_hash(manifest)}
    found = found.with_source(origin if fold is None else {**origin, "fold": fold})
    print(f"{info.name}: {method}, fitted to {len(heard.clips)} clips of {manifest}\n")
    print(words.summary(found))
    if not quiet:
        for warning in [*heard.warnings, *words.warnings(info, found)]:
            complain(f"warning: {warning}")
    if report is not None:
        settings = {"fold": fold, "judge": judge and str(judge), "judge_fold": judge_fold}
        settings |= {"engine": engine, "precision": precision}
        words.write_calibration(found, traces(info, [file], manifest, settings), report)
    _write(file, words.with_calibration(info, found), out)
    print(f"\nwrote {out}, whose scores are probabilities")
    if heard.failed or (judged_heard and judged_heard.failed):
        raise typer.Exit(1)


def _clips(
    manifest: Path, audio: Path | None, fold: int | None, judge: Path | None, judge_fold: int | None
) -> tuple[list[Clip], list[Clip]]:
    """The clips to fit to, and those to measure by, where they are others."""
    from earmark.data.manifest import read_manifest
    from earmark.errors import DataError
    from earmark.evaluation.predictions import choose

    clips, others = read_manifest(manifest, audio), []
    if judge is not None or judge_fold is not None:
        others = choose(clips if judge is None else read_manifest(judge, audio), judge_fold)
    if judge is None and judge_fold is not None and fold is None:
        clips = [clip for clip in clips if clip.fold != judge_fold]
    clips = choose(clips, fold)
    seen = {(clip.path, clip.member) for clip in clips}
    for clip in others:
        if (clip.path, clip.member) in seen:
            raise DataError(f"{clip.path}: would be fitted to and measured by: name other clips to judge by")
    return clips, others


def _open(model: str, out: Path, how: dict[str, Any], quiet: bool) -> tuple[Path, Tagger]:
    from earmark.errors import ModelError
    from earmark.hub import registry
    from earmark.inference.load import load

    if len(registry.members(model)) > 1:
        raise ModelError(f"{model}: an ensemble is calibrated as one file: make it with earmark join first")
    with download_bar(quiet) as report:
        tagger = load(model, progress=report, **how)
    file = registry.find(model)
    if (file.suffix == CHECKPOINT) != (out.suffix == CHECKPOINT):
        raise typer.BadParameter(f"{out} must be of the same kind as {file.name}", param_hint="--out")
    return file, tagger


def _require_clips(info: ModelInfo, clips: Sequence[Clip], others: Sequence[Clip]) -> None:
    """Finds out before anything is heard whether these clips can calibrate this model."""
    from earmark.data.manifest import targets
    from earmark.evaluation.calibration.calibrate import calibration_folds, require_classes_in_folds
    from earmark.evaluation.calibration.data import require_classes
    from earmark.evaluation.predictions import require_labels

    require_labels([*clips, *others], info.labels)
    truth = targets(clips, info.labels)
    require_classes(info.labels, truth)
    if not others:
        require_classes_in_folds(info.labels, truth, calibration_folds(clips))


def _listener(tagger: Tagger, quiet: bool) -> Callable[[Sequence[Clip]], tuple[Answers, CalibrationData]]:
    """What hears clips and says what is true of them."""
    from earmark.data.manifest import targets
    from earmark.errors import DataError
    from earmark.evaluation.calibration.data import CalibrationData
    from earmark.evaluation.predictions import answer

    def hear(clips: Sequence[Clip]) -> tuple[Answers, CalibrationData]:
        numbers = itertools.count(1)
        with status_line(quiet) as show:
            answers = answer(
                tagger,
                clips,
                before=lambda clip: show(f"{next(numbers)} of {len(clips)}  {clip.path}"),
                complain=complain,
            )
        if not answers.clips:
            raise DataError("not one of the clips could be heard")
        truth = targets(answers.clips, tagger.labels)
        return answers, CalibrationData(tagger.labels, tagger.info.task, answers.windows, truth)

    return hear


def _write(file: Path, info: ModelInfo, out: Path) -> None:
    """The same weights with another record."""
    if file.suffix == CHECKPOINT:
        from earmark.models.checkpoint import load_checkpoint, save_checkpoint

        save_checkpoint(out, load_checkpoint(file)[0], info)
    else:
        from earmark.model_file.onnx_file import read_model_file, replace_info

        write_atomically(out, replace_info(read_model_file(file)[0], info))
