"""``earmark calibrate``: a model whose scores are probabilities, by what it says of held-out clips.

Conventions: numbers go to standard output; a clip that cannot be used is named on standard error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from earmark.cli.program import (
    EngineOption,
    PrecisionOption,
    app,
    complain,
    download_bar,
    one_matrix_thread,
    progress,
)
from earmark.files import write_atomically

if TYPE_CHECKING:
    from earmark.data.manifest import Clip
    from earmark.evaluate.answers import Answers
    from earmark.evaluate.calibrate import Evidence
    from earmark.record import Record
    from earmark.tagger import Tagger

CHECKPOINT = ".safetensors"


@app.command()
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
    precision: PrecisionOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")] = False,
) -> None:
    """Turns a model's scores into probabilities, by clips that it was not trained on."""
    one_matrix_thread()
    from earmark.calibration import METHODS
    from earmark.data.manifest import file_hash
    from earmark.evaluate import calibration_report as words
    from earmark.evaluate.calibrate import require_method
    from earmark.evaluate.cross_fit import calibrate as fit_and_measure
    from earmark.evaluate.cross_fit import parts_of
    from earmark.evaluate.report import traces
    from earmark.evaluate.thresholds import Target

    wanted = None if target is None else Target.parse(target)
    clips, others = _clips(manifest, audio, fold, judge, judge_fold)
    how: dict[str, Any] = {"threads": threads, "engine": engine, "precision": precision}
    file, tagger = _open(model, out, how, quiet)
    record = tagger.record
    method = method or METHODS[record.task][0]
    require_method(method, record.task)
    _require_clips(record, clips, others)
    hear = _listener(tagger.uncalibrated(), quiet)
    heard, evidence = hear(clips)
    judged_heard, judged = hear(others) if others else (None, None)
    parts = None if judged else parts_of(heard.clips)
    found = fit_and_measure(evidence, method, wanted, parts=parts, judged=judged)
    origin = {"clips": len(heard.clips), "manifest": manifest.name, "sha256": file_hash(manifest)}
    found = found.said_of(origin if fold is None else {**origin, "fold": fold})
    print(f"{record.name}: {method}, fitted to {len(heard.clips)} clips of {manifest}\n")
    print(words.in_words(found))
    if not quiet:
        for warning in [*heard.warnings, *words.warnings(record, found)]:
            complain(f"warning: {warning}")
    if report is not None:
        settings = {"fold": fold, "judge": judge and str(judge), "judge_fold": judge_fold}
        settings |= {"engine": engine, "precision": precision}
        words.write_calibration(found, traces(record, [file], manifest, settings), report)
    _write(file, words.entered(record, found), out)
    print(f"\nwrote {out}, whose scores are probabilities")
    if heard.failed or (judged_heard and judged_heard.failed):
        raise typer.Exit(1)


def _clips(
    manifest: Path, audio: Path | None, fold: int | None, judge: Path | None, judge_fold: int | None
) -> tuple[list[Clip], list[Clip]]:
    """The clips to fit to, and those to measure by, where they are others."""
    from earmark.data.manifest import read_manifest
    from earmark.errors import DataError
    from earmark.evaluate.answers import choose

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
    from earmark import weights
    from earmark.errors import ModelError
    from earmark.zoo import load

    if len(weights.members(model)) > 1:
        raise ModelError(f"{model}: an ensemble is calibrated as one file: make it with earmark join first")
    with download_bar(quiet) as report:
        tagger = load(model, report=report, **how)
    file = weights.find(model)
    if (file.suffix == CHECKPOINT) != (out.suffix == CHECKPOINT):
        raise typer.BadParameter(f"{out} must be of the same kind as {file.name}", param_hint="--out")
    return file, tagger


def _require_clips(record: Record, clips: Sequence[Clip], others: Sequence[Clip]) -> None:
    """Finds out before anything is heard whether these clips can calibrate this model."""
    from earmark.data.manifest import targets
    from earmark.evaluate.answers import require_labels
    from earmark.evaluate.calibrate import require_classes
    from earmark.evaluate.cross_fit import parts_of, require_parts

    require_labels([*clips, *others], record.labels)
    truth = targets(clips, record.labels)
    require_classes(record.labels, truth)
    if not others:
        require_parts(record.labels, truth, parts_of(clips))


def _listener(tagger: Tagger, quiet: bool) -> Callable[[Sequence[Clip]], tuple[Answers, Evidence]]:
    """What hears clips and says what is true of them."""
    from earmark.data.manifest import targets
    from earmark.errors import DataError
    from earmark.evaluate.answers import answer
    from earmark.evaluate.calibrate import Evidence

    def hear(clips: Sequence[Clip]) -> tuple[Answers, Evidence]:
        numbers = itertools.count(1)
        with progress(quiet) as show:
            answers = answer(
                tagger,
                clips,
                before=lambda clip: show(f"{next(numbers)} of {len(clips)}  {clip.path}"),
                complain=complain,
            )
        if not answers.clips:
            raise DataError("not one of the clips could be heard")
        truth = targets(answers.clips, tagger.labels)
        return answers, Evidence(tagger.labels, tagger.record.task, answers.windows, truth)

    return hear


def _write(file: Path, record: Record, out: Path) -> None:
    """The same weights with another record."""
    if file.suffix == CHECKPOINT:
        from earmark.models.checkpoint import load_checkpoint, save_checkpoint

        save_checkpoint(out, load_checkpoint(file)[0], record)
    else:
        from earmark.model_file import read_model_file, resealed

        write_atomically(out, resealed(read_model_file(file)[0], record))
