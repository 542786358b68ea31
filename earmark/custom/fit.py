"""Fits a tagger to own sounds, behind ``earmark fit``.

Conventions: everything that can be wrong with the input is said before anything is written. What ships is
fitted to all clips; its numbers are those of the cross-validation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark.custom import check, measure
from earmark.custom.augment import VARIATIONS
from earmark.custom.base_labels import calibrated_layers, kept_classes, with_base_labels
from earmark.custom.card import model_info
from earmark.custom.classifier import Fitter, LayerClassifier
from earmark.custom.cross_validation import CrossValidation, cross_validate
from earmark.custom.dataset import Dataset, read_dataset
from earmark.custom.features import Base, Clip, Floats, extract, open_base
from earmark.custom.graph_head import with_classifier
from earmark.custom.options import Depth, FitOptions
from earmark.custom.probe import fit_probe
from earmark.custom.report import FitReport
from earmark.custom.table import Table, make_table
from earmark.errors import DataError, EarmarkError, extra
from earmark.evaluation import metrics
from earmark.model_file.atomic import require_other_files, write_atomically
from earmark.model_file.info import Task
from earmark.model_file.onnx_file import attach_info

if TYPE_CHECKING:
    from earmark.hub.download import Progress as DownloadProgress

FEW_CLIPS = 8
"""Clips a class up to which they are varied."""
MANY_CLIPS = 200
"""Clips of the smallest class from which on a hidden layer is fitted."""
Progress = Callable[[str, int, int], object]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Clips that were read and checked.

    Attributes:
        dataset: Those that can be used.
        clips: What is known about each of them.
        findings: Of the check.
        num_failed: Clips that could not be read.
    """

    dataset: Dataset
    clips: tuple[Clip, ...]
    findings: tuple[check.Finding, ...]
    num_failed: int


def fit(
    data: PathLike | Dataset,
    output: PathLike | None = None,
    options: FitOptions | None = None,
    *,
    progress: Progress = lambda what, done, total: None,
    download_progress: DownloadProgress | None = None,
) -> FitReport:
    """Fits a tagger to labelled clips, and tests it by cross-validation.

    Args:
        data: A folder or CSV file (:func:`earmark.custom.read_dataset`), or examples that were read.
        output: The model file to write; None: only check and test.
        options: Options; None: the defaults.
        progress: Called with what is done, how many are done, and how many there are.
        download_progress: As ``progress`` of :func:`earmark.load`, for the base model.

    Returns:
        The report. With no output, its findings include labels that may be wrong.

    Raises:
        DataError: If there are no examples, or nothing to tell apart.
        ModelError: If the base model cannot be used.
        MissingExtraError: If SciPy, or what the depth needs, is not installed.
        OSError: If the output cannot be written.
    """
    options = options or FitOptions()
    dataset = data if isinstance(data, Dataset) else read_dataset(data, options.audio)
    dataset = _limited(dataset, options.max_clips)
    if output is not None:
        require_other_files([output], {example.path for example in dataset.examples})
    base = open_base(options.base, download_progress)
    prepared = prepare(base, dataset, options, progress)
    depth, reason = choose_depth(prepared.dataset, options)
    task = choose_task(prepared.dataset, options)
    if options.keep_base_labels:
        kept_classes(base.info, prepared.dataset.labels)  # refused before the work
    table = _table(base, prepared, task, options, progress)
    fitter = _fitter(depth, base, prepared.dataset, options, progress)
    found = cross_validate(
        table, fitter, options.folds, options.precision, lambda done, total: progress("fold", done, total)
    )
    name = base.info.name if output is None else Path(output).stem
    report = _report(name, base, prepared, (depth, reason), table, found, output)
    if output is not None:
        classifier = fitter(table, np.ones(len(table.targets), bool))
        info = model_info(report, base.info, found, options)
        if options.keep_base_labels and isinstance(classifier, LayerClassifier):
            kept = kept_classes(base.info, info.labels)
            layers = calibrated_layers(classifier.layers, info.calibration)
            info = with_base_labels(info, base.info, kept)
            graph = with_classifier(base.content, base.feature, layers, kept)
        else:
            graph = classifier.graph(base, info)
        write_atomically(output, attach_info(graph, info))
    return report


def prepare(base: Base, dataset: Dataset, options: FitOptions, progress: Progress) -> Prepared:
    """Reads the clips of a dataset and leaves out what cannot be used.

    Raises:
        DataError: If too little is left.
    """
    found = list(
        extract(
            base,
            dataset.examples,
            cache=options.cache,
            workers=options.workers,
            progress=lambda done, total: progress("clips", done, total),
        )
    )
    dropped, findings = check.check_clips(dataset, found)
    kept = dataset.without(dropped)
    clips = tuple(
        one for number, one in enumerate(found) if isinstance(one, Clip) and number not in {*dropped}
    )
    if not clips:
        raise DataError(f"none of the {len(found)} clips can be used: {findings[-1].text}")
    findings += check.check_classes(kept)
    lost = sorted(set(dataset.labels) - set(kept.labels))
    findings += [
        check.Finding("input", f"class {label!r} has no usable clip: it is left out") for label in lost
    ]
    failed = sum(isinstance(one, EarmarkError) for one in found)
    return Prepared(kept, clips, tuple(findings), failed)


def choose_depth(dataset: Dataset, options: FitOptions) -> tuple[Depth, str]:
    """Chooses the depth by the amount of data, unless it was asked for; and says why."""
    if options.depth is not None:
        return options.depth, "as asked"
    counts = dataset.counts()
    smallest = min(count for label, count in counts.items() if label)
    has_torch = find_spec("torch") is not None
    reason = f"the smallest class has {smallest} clip{'s'[: smallest != 1]}"
    if smallest < MANY_CLIPS:
        return "probe", reason
    return ("head", reason) if has_torch else ("probe", f"{reason}, but depth head needs PyTorch")


def choose_task(dataset: Dataset, options: FitOptions) -> Task:
    """Chooses the task by the labels, unless it was asked for.

    Raises:
        DataError: If "single_label" was asked for, and an example has no label or several.
    """
    if options.task == "single_label" and not dataset.exclusive:
        raise DataError("task single_label needs one label for each clip, and no background")
    if options.keep_base_labels:
        return "multi_label"
    return options.task or ("single_label" if dataset.exclusive else "multi_label")


def _limited(dataset: Dataset, most: int) -> Dataset:
    """At most so many examples, as many of each set of labels as of the others."""
    if len(dataset.examples) <= most:
        return dataset
    members: dict[tuple[str, ...], list[int]] = {}
    for number, example in enumerate(dataset.examples):
        members.setdefault(example.labels, []).append(number)
    share, left = most, len(members)
    kept: set[int] = set()
    for numbers in sorted(members.values(), key=len):
        count = min(len(numbers), max(1, share // left))
        kept.update(numbers[index * len(numbers) // count] for index in range(count))
        share, left = share - count, left - 1
    text = f"{len(kept)} of {len(dataset.examples)} clips are used, spread over the classes (--max-clips)"
    return dataset.without(set(range(len(dataset.examples))) - kept, [text])


def _table(base: Base, prepared: Prepared, task: Task, options: FitOptions, progress: Progress) -> Table:
    examples = prepared.dataset.examples
    labels = prepared.dataset.labels
    few = len(examples) <= FEW_CLIPS * len(labels)
    variations: list[tuple[int, Floats]] = []
    if few if options.augment is None else options.augment:
        for variant in range(1, VARIATIONS + 1):
            varied = extract(
                base,
                examples,
                variant=variant,
                seed=options.seed,
                cache=options.cache,
                workers=options.workers,
                progress=lambda done, total: progress("variations", done, total),
            )
            variations += [
                (number, one.features) for number, one in enumerate(varied) if isinstance(one, Clip)
            ]
    return make_table(examples, [clip.features for clip in prepared.clips], variations, labels, task)


def _fitter(depth: Depth, base: Base, dataset: Dataset, options: FitOptions, progress: Progress) -> Fitter:
    if depth == "probe":
        return fit_probe
    with extra(f"earmark fit --depth {depth}", "train"):
        import torch  # noqa: F401
    if depth == "head":
        from earmark.custom.head import head_fitter

        return head_fitter(options.seed)
    from earmark.custom.full import full_fitter

    return full_fitter(
        base,
        dataset.examples,
        options.seed,
        options.cache,
        lambda done, total: progress("training step", done, total),
    )


def _report(
    name: str,
    base: Base,
    prepared: Prepared,
    depth: tuple[Depth, str],
    table: Table,
    found: CrossValidation | None,
    output: PathLike | None,
) -> FitReport:
    dataset = prepared.dataset
    durations = np.array([clip.duration_s for clip in prepared.clips])
    findings = prepared.findings
    values: dict[str, Any] = {"metrics": {}, "by_class": {}, "confusion": None, "reliability": None}
    values |= {"false_alarms_per_hour": None, "wrong": (), "num_folds": 0}
    if found is not None:
        overall, by_class = measure.measure(table, found)
        truth = table.targets[found.clips]
        single = table.task == "single_label"
        curve = metrics.reliability if single else metrics.binary_reliability
        values = {
            "metrics": overall,
            "by_class": by_class,
            "confusion": measure.confusion(table, found),
            "reliability": curve(truth, found.scores, 10),
            "false_alarms_per_hour": measure.false_alarms_per_hour(table, found, durations),
            "wrong": measure.wrong_clips(table, found, dataset.examples),
            "num_folds": found.num_folds,
        }
        if output is None:
            findings += tuple(_suspects(table, found, dataset))
    return FitReport(
        model=name,
        output=None if output is None else Path(output),
        base=base.info.name,
        depth=depth[0],
        depth_reason=depth[1],
        task=table.task,
        labels=table.labels,
        counts=dataset.counts(),
        num_clips=len(durations),
        hours=float(durations.sum()) / 3600,
        num_sources=len(np.unique(table.groups)),
        findings=findings,
        num_failed=prepared.num_failed,
        **values,
    )


def _suspects(table: Table, found: CrossValidation, dataset: Dataset) -> Sequence[check.Finding]:
    truth = table.targets[found.clips]
    single = np.flatnonzero(truth.sum(1) == 1)
    examples = [dataset.examples[int(found.clips[row])] for row in single]
    tested = truth[single].any(0)
    if len(table.labels) < 2 or not len(single) or not tested.all():
        return ()
    return check.label_suspects(examples, truth[single], found.scores[single], table.labels)
