"""Converts the weights of any registered architecture into a model file.

Conventions: what is not given is taken from the published models of the same architecture. The conversion
itself is :func:`earmark.hub.build.build`. Needs the extra "train"; published models do not
(:func:`earmark.hub.pull.pull`).
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from earmark.errors import ModelError, extra
from earmark.features.learned import LEARNED_FRONT_ENDS, AnyFrontEnd, NetworkFrontEnd, front_end_from_dict
from earmark.features.presets import FRONT_ENDS
from earmark.hub.registry import PublishedModel, published
from earmark.model_file.atomic import require_other_files
from earmark.model_file.info import ModelInfo, Padding
from earmark.model_file.labels import read_labels


def convert(
    weights: str | PathLike[str],
    output: str | PathLike[str],
    *,
    architecture: str,
    arguments: Mapping[str, Any] | None = None,
    labels: str | None = None,
    front_end: str | None = None,
    front_end_args: Mapping[str, Any] | None = None,
    task: str | None = None,
    window_s: float | None = None,
    padding: Padding = "zero",
    license: str = "",  # noqa: A002
) -> tuple[Path, Path]:
    """Writes a model file, and beside it a checkpoint to train on, from a file of weights.

    Args:
        weights: A PyTorch checkpoint, a safetensors file, or a checkpoint of audax, which flax wrote.
        output: Path of the model file; its name without the ending becomes the model's name.
        architecture: Name in the registry of networks.
        arguments: Arguments of the architecture; ``num_classes`` if there are no labels.
        labels: A label set's name or a label file (:func:`~earmark.model_file.labels.read_labels`); None:
            classes are numbered.
        front_end: Name of a front-end preset, or leaf or sincnet; None: that of the published models.
        front_end_args: Fields in which the front-end differs from the preset.
        task: "multi_label" or "single_label"; None: that of the published models with these labels.
        window_s: Window length in seconds; None: that of the published models.
        padding: How a clip shorter than the window is padded; the authors of all published models used zero.
        license: Licence of the weights.

    Returns:
        The paths of the model file and of the checkpoint.

    Raises:
        ModelError: If the weights do not fit the architecture, or an argument is invalid or missing.
        DataError: If the label file cannot be read, or an output is an input.
        MissingExtraError: If PyTorch is not installed.
    """
    with extra("earmark convert", "train"):
        from earmark.hub.build import build
        from earmark.models.registry import create_config

    model_file = Path(output)
    given = dict(arguments or {})
    create_config(architecture, **given)
    names = _labels(labels, given.pop("num_classes", None))
    similar = _published_like(architecture, labels)
    info = ModelInfo(
        name=model_file.stem,
        labels=names,
        front_end=_front_end(front_end, front_end_args or {}, similar),
        task=task or _required(_task_of(labels), "a task (multi_label or single_label)"),  # type: ignore[arg-type]
        architecture=architecture,
        arguments=given,
        window_s=window_s or _required(similar and similar.window_s, "a window length"),
        padding=padding,
        embedding_size=1,  # filled in where the network is built
        license=license,
        source=f"converted from {Path(weights).name}",
    )
    checkpoint = model_file.with_suffix(".safetensors")
    if checkpoint == model_file:
        raise ModelError(f"{model_file}: the checkpoint is written there: name the model file .onnx")
    require_other_files([model_file, checkpoint], [weights, *([labels] if labels else [])])
    build(weights, info, checkpoint=checkpoint, model_file=model_file)
    return model_file, checkpoint


def _published_like(architecture: str, labels: str | None) -> PublishedModel | None:
    """The first published model of an architecture, if possible with these labels."""
    same = [known for known in published().values() if known.architecture == architecture]
    return min(same, key=lambda known: known.labels != labels, default=None)


def _task_of(labels: str | None) -> Any:
    tasks = (known.task for known in published().values() if labels and known.labels == labels)
    return next(tasks, None)


def _required(value: Any, what: str) -> Any:
    if not value:
        raise ModelError(f"{what} is needed: the published models have none for this architecture and labels")
    return value


def _labels(labels: str | None, num_classes: Any) -> tuple[str, ...]:
    if labels is None:
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ModelError("labels are needed: a label set, a label file, or the argument num_classes=N")
        return tuple(f"output {number}" for number in range(num_classes))
    names = read_labels(labels)
    if num_classes not in (None, len(names)):
        raise ModelError(f"num_classes must be the number of labels, {len(names)}, got {num_classes}")
    return names


def _front_end(name: str | None, changes: Mapping[str, Any], similar: PublishedModel | None) -> AnyFrontEnd:
    known: Mapping[str, NetworkFrontEnd] = {**FRONT_ENDS, **LEARNED_FRONT_ENDS}
    if name is not None and name not in known:
        raise ModelError(f"front_end must be one of {', '.join(known)}, got {name!r}")
    base = known[name] if name else _required(similar and similar.front_end, "a front-end")
    return front_end_from_dict({**base.to_dict(), **changes})
