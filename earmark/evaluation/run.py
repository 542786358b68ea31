"""Evaluates a model on a dataset: the public function ``earmark.evaluate``, and the command of the same name.

Conventions: options, labels and columns are checked before the first clip is read.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.data.clip_table import ClipTable, read_clips
from earmark.data.manifest import Clip, file_hash
from earmark.errors import DataError, ModelError
from earmark.evaluation.evaluation import Evaluation, evaluate_predictions, groups_of
from earmark.evaluation.predictions import (
    ClipLengths,
    ClipPooling,
    WindowMode,
    predict_clips,
    require_labels,
    select_clips,
)
from earmark.evaluation.test_time_augmentation import MaskedTagger, Masking
from earmark.hub import registry
from earmark.inference.engines import Engine, Precision
from earmark.inference.load import load
from earmark.inference.tagger import Tagger
from earmark.model_file.info import ModelInfo
from earmark.version import __version__

if TYPE_CHECKING:
    from earmark.hub.download import Progress

ModelName = str | os.PathLike[str]
Dataset = str | os.PathLike[str] | Sequence[Clip]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of an evaluation.

    Args:
        audio: Folder of the recordings; None: that of the manifest.
        corpus: Name of the published corpus whose folder the dataset is; None: a manifest or a pack.
        splits: Of the corpus, if it has any.
        fold: Only clips of this fold.
        limit: At most this many clips, evenly spread over the manifest.
        group_by: Also by group: a column of the manifest, or "fold".
        windows: "all": one window after the other; "whole": one window as long as the clip; "center": one
            window from the clip's centre.
        pooling: Of the windows' scores, "max" or "mean"; "logits": the score of their mean logit; "none":
            each window counts as a clip; None: that of the model's task.
        hop_s: Hop between windows in seconds, for "all" only; None: the model's window.
        crop_to_s: Only the first seconds of longer clips; None: whole clips.
        pad_to_s: Shorter clips are filled up with silence to these seconds; None: as the model pads.
        masking: Test-time augmentation; None: none.
        engine: As for :func:`earmark.load`.
        precision: As for :func:`earmark.load`.
        threads: As for :func:`earmark.load`.
        allow_unlabelled: Whether a dataset without any label is accepted, for its scores alone.
    """

    audio: str | Path | None = None
    corpus: str | None = None
    splits: tuple[str, ...] = ()
    fold: int | None = None
    limit: int | None = None
    group_by: str | None = None
    windows: WindowMode = "all"
    pooling: ClipPooling | None = None
    hop_s: float | None = None
    crop_to_s: float | None = None
    pad_to_s: float | None = None
    masking: Masking | None = None
    engine: Engine = "onnx"
    precision: Precision = "fp32"
    threads: int | None = None
    allow_unlabelled: bool = False


_DEFAULTS = EvaluationOptions()


def evaluate(
    model: ModelName | Sequence[ModelName] | Tagger,
    dataset: Dataset,
    *,
    device: str = "cpu",
    options: EvaluationOptions = _DEFAULTS,
    progress: Callable[[int, int, Clip], object] | None = None,
    on_error: Callable[[str], object] | None = None,
    download_progress: Progress | None = None,
) -> Evaluation:
    """Evaluates a model on a dataset.

    Args:
        model: A name, the path of a model file or checkpoint, a list of these (an ensemble), or a tagger.
        dataset: Path of a manifest, of a pack, or of the folder of a corpus; or a list of clips.
        device: As for :func:`earmark.load`; a tagger keeps its own.
        options: Which clips are evaluated, and how.
        progress: Called before each clip with its number (from 1), the number of clips, and the clip.
        on_error: Called with the reason when a clip cannot be processed; it is left out.
        download_progress: As ``progress`` of :func:`earmark.load`.

    Returns:
        The metrics, and the predictions that they are of.

    Raises:
        DataError: If the dataset cannot be read, has a label that the model lacks or no label at all, or no
            column to group by.
        ModelError: If the model cannot be loaded.
    """
    clips, table = _clips(dataset, options)
    tagger, files = _tagger(model, device, options, download_progress)
    require_labels(clips, tagger.labels)
    groups_of(clips, options.group_by)
    done = 0

    def before(clip: Clip) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(clips), clip)
        if isinstance(tagger, MaskedTagger):
            tagger.restart(clip.id)

    predictions = predict_clips(
        tagger,
        clips,
        windows=options.windows,
        pooling=options.pooling,
        hop_s=options.hop_s,
        lengths=ClipLengths(options.crop_to_s, options.pad_to_s),
        before=before,
        on_error=on_error or (lambda reason: None),
    )
    info = tagger.info
    if table is not None:
        warned = (*table.rate_warnings(tagger.sample_rate), *predictions.warnings)
        predictions = replace(predictions, warnings=warned)
    found = evaluate_predictions(
        predictions, info.labels, info.task, group_by=options.group_by, threshold=info.threshold
    )
    settings = _settings(tagger, options)
    return replace(found, info=info, origin=origin(info, files, table, settings))


def _clips(dataset: Dataset, options: EvaluationOptions) -> tuple[list[Clip], ClipTable | None]:
    """The selected clips, and the table that they are from."""
    if isinstance(dataset, str | os.PathLike):
        table = read_clips(dataset, audio=options.audio, corpus=options.corpus, splits=options.splits)
        given: Sequence[Clip] = table.clips
    else:
        table, given = None, dataset
    clips = select_clips(given, options.fold, options.limit)
    if not options.allow_unlabelled and not any(clip.labels for clip in clips):
        raise DataError(f"{table.path if table else 'dataset'}: no clip has a label to evaluate by")
    return clips, table


def _tagger(
    model: ModelName | Sequence[ModelName] | Tagger,
    device: str,
    options: EvaluationOptions,
    progress: Progress | None,
) -> tuple[Tagger, list[Path]]:
    """The tagger, and its files as far as they are known."""
    if isinstance(model, Tagger):
        if options.masking is not None:
            raise ModelError("test-time augmentation reads the model's file: give its name or path")
        return model, []
    names = [model] if isinstance(model, str | os.PathLike) else list(model)
    how: dict[str, Any] = {
        "device": device,
        "engine": options.engine,
        "precision": options.precision,
        "threads": options.threads,
        "progress": progress,
    }
    if options.masking is None:
        tagger = load(names, **how)
        return tagger, [registry.find(name) for name in names]
    members = [load(name, **how) for name in names]
    files = [registry.find(name) for name in names]
    return MaskedTagger(members, files, options.masking), files


def _settings(tagger: Tagger, options: EvaluationOptions) -> dict[str, Any]:
    names = (
        "fold",
        "limit",
        "group_by",
        "windows",
        "pooling",
        "hop_s",
        "crop_to_s",
        "pad_to_s",
        "engine",
        "precision",
    )
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    if isinstance(tagger, MaskedTagger) and options.masking is not None:
        masks = [asdict(passes.masks) for passes in tagger.passes]
        settings |= {"passes": options.masking.passes, "seed": options.masking.seed, "masks": masks}
    return settings


def origin(
    info: ModelInfo, files: Sequence[Path], table: ClipTable | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Files, settings and versions that numbers can be traced to.

    Args:
        info: Of the model.
        files: Of the model, several for an ensemble.
        table: Of the clips; None: they were given as a list.
        settings: Options of the run.
    """
    packages = ["numpy", "openvino" if settings.get("engine") == "openvino" else "onnxruntime"]
    packages += ["torch"] if any(path.suffix == ".safetensors" for path in files) else []
    return {
        "model": {
            "name": info.name,
            "architecture": info.architecture,
            "task": info.task,
            "window_s": info.window_s,
            "threshold": info.threshold,
            "calibration": info.calibration.method if info.calibration else None,
            "files": [{"path": str(path), "sha256": file_hash(path)} for path in files],
        },
        "manifest": None if table is None else table.origin,
        "settings": dict(settings),
        "versions": {
            "earmark": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }
