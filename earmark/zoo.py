"""Published models by name: fetched, checked and converted on first use, then opened like any other.

Conventions: what is made lies in :func:`earmark.weights.cache_folder`: ``NAME.onnx`` (the model file, which
runs without PyTorch), ``NAME.safetensors`` (the weights, to train on) and ``NAME.origin.json`` (what they
were made from). Making them needs the extra "train".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark import weights
from earmark.engines import Engine
from earmark.errors import ModelError, extra
from earmark.files import write_atomically
from earmark.record import Record
from earmark.tagger import Tagger
from earmark.weights import Published

if TYPE_CHECKING:
    from earmark.deploy.export import Exported
    from earmark.deploy.source import Form, Source
    from earmark.download import Report
    from earmark.models import Network

_LARGEST = 8
"""Bytes per parameter that a file of unknown size may have: twice what float32 takes."""


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    engine: Engine = "onnx",
    precision: str | None = None,
    report: Report | None = None,
) -> Tagger:
    """Opens a model; a published one that is not on this machine yet is fetched and converted first.

    Args:
        model: A name (``earmark models`` lists them), the path of a model file or of a checkpoint
            (.safetensors, which runs in PyTorch), several of these with "+" between them (an ensemble: the
            mean of their logits), or None for the default.
        threads: Of the network; None: as many as there are cores. A checkpoint takes PyTorch's own number.
        engine: What computes a model file: "onnx" (ONNX Runtime) or "openvino" (extra "openvino").
        precision: That it computes in: "f32", with OpenVINO also "bf16" or "f16"; None: "f32".
        report: Is told, while something is fetched, how many bytes have arrived, of how many.

    Raises:
        ModelError: If the model is unknown, cannot be fetched, or its file is damaged or too new; if the
            members of an ensemble do not agree on labels, task, window and padding; or if there is no such
            engine or precision, or it is asked of a checkpoint.
        MissingExtraError: If it has to be converted, or is a checkpoint, and PyTorch is not installed; or if
            the engine is not.
    """
    names = () if model is None else weights.members(model)
    for name in names:
        known = None if weights.look(name) else weights.published().get(name)
        if known and known.labels:
            pull(known.name, report=report)
    if not any(map(_is_checkpoint, names)):
        return Tagger(model, threads=threads, engine=engine, precision=precision)
    if engine != "onnx" or precision is not None:
        raise ModelError(f"{model}: a checkpoint runs in PyTorch: engine and precision are for model files")
    return Tagger.together(
        [_in_torch(name) if _is_checkpoint(name) else Tagger(name, threads=threads) for name in names]
    )


def _is_checkpoint(name: str) -> bool:
    return Path(name).suffix == ".safetensors"


def _in_torch(path: str) -> Tagger:
    with extra("running a checkpoint", "train"):
        from earmark.models.checkpoint import load_checkpoint
        from earmark.models.session import NetworkSession
    network, record = load_checkpoint(path)
    return Tagger.around(NetworkSession(network), record)


def pull(
    name: str,
    *,
    source: str | os.PathLike[str] | None = None,
    again: bool = False,
    report: Report | None = None,
) -> Path:
    """Fetches published weights and converts them, unless that was done before.

    The file is checked against the published size and hash. Where no hash is known the first file is
    trusted; its hash is kept, and every later file must have the same.

    Args:
        name: Of the table of published weights.
        source: A file that was brought by hand, instead of a download.
        again: Fetch and convert it even if it is here.
        report: Is told how many bytes have arrived, of how many.

    Returns:
        The model file; of a starting point for training, the checkpoint.

    Raises:
        ModelError: If the name is unknown, or the file cannot be had, is not the published one, or is unsafe.
        MissingExtraError: If PyTorch is not installed.
    """
    if name in weights.shipped():
        return weights.find(name)
    known = weights.entry(name)
    made = known.model_file if known.labels else known.checkpoint
    if known.on_this_machine and not again and source is None:
        return made
    with extra(f"making the model file of {name} (which then runs without PyTorch)", "train"):
        from earmark.deploy.convert import convert
        from earmark.models.registry import configure
    configure(
        known.architecture, num_classes=known.num_classes, **known.arguments
    )  # fails before the download
    path = Path(source) if source is not None else _download(known, again, report)
    try:
        origin = _checked(known, path)
        convert(
            path,
            _record(known, origin),
            checkpoint=known.checkpoint,
            model_file=known.model_file if known.labels else None,
            layout=known.layout,
        )
    except ModelError:
        if source is None:
            path.unlink(missing_ok=True)  # or else it would be taken again
        raise
    write_atomically(_origin_file(known), json.dumps(origin, indent=1) + "\n")
    if source is None:
        path.unlink(missing_ok=True)
    return made


def pretrained(name: str, num_classes: int | None = None) -> tuple[Network, Record]:
    """A published network to start a training from; fetched on first use.

    Args:
        name: Of the table of published weights.
        num_classes: Of a fresh head; None or the published number: the head as published.

    Returns:
        The network on the CPU in evaluation mode, and the record of what was published.

    Raises:
        ModelError: As :func:`pull` does.
        MissingExtraError: If PyTorch is not installed.
    """
    known = weights.entry(name)
    if not known.checkpoint.is_file():
        pull(name, again=True)
    from earmark.models.checkpoint import load_checkpoint
    from earmark.models.published import with_classes

    network, record = load_checkpoint(known.checkpoint)
    if num_classes is not None:
        network = with_classes(network, num_classes)
    return network, record


def join(
    models: Sequence[str],
    out: str | os.PathLike[str],
    name: str | None = None,
    *,
    report: Report | None = None,
) -> float:
    """Writes an ensemble, the mean of several models' logits, as one model file; needs PyTorch.

    Args:
        models: Names of published weights, fetched on first use, or paths of checkpoints (.safetensors).
        out: The model file; :func:`load` runs it like any other, without PyTorch.
        name: Of the ensemble; by default those of its members with "+" between them.
        report: As for :func:`load`.

    Returns:
        The largest difference found between the networks' mean and the file.

    Raises:
        ModelError: If a model is unknown or cannot be had, or they do not agree on labels, task, window and
            padding.
        MissingExtraError: If PyTorch is not installed.
    """
    with extra("writing an ensemble as one file", "train"):
        from earmark.deploy.join import join as join_networks
    return join_networks([trained(model, report) for model in models], out, name)


def export(
    model: str,
    out: str | os.PathLike[str],
    form: Form | None = None,
    *,
    target: str | None = None,
    recordings: Sequence[str | os.PathLike[str]] = (),
    report: Report | None = None,
) -> Exported:
    """Writes a model for another runtime, compared with the model first; needs PyTorch.

    Args:
        model: A name, the path of a checkpoint (.safetensors), or of a model file where the target can do
            with a graph (.onnx, .xml).
        out: The file; its ending says the target: .onnx, .xml (OpenVINO), .tflite or .pt2.
        form: What the graph is to take; None: log-mels of any length.
        target: "onnx", "openvino", "litert" or "pt2"; None: what the ending says.
        recordings: To compare by, besides one that ships.
        report: As for :func:`load`.

    Returns:
        What was written, and how it compared.

    Raises:
        ModelError: If the model cannot be had, the form is not possible, or the answers differ; nothing is
            written then.
        MissingExtraError: If PyTorch or the target's package is not installed.
        AudioError: If a recording cannot be read.
    """
    with extra("an export", "train"):
        from earmark.deploy.export import export as export_source
        from earmark.deploy.source import Form
        from earmark.deploy.targets import target_of
    name = target_of(Path(out), target)
    return export_source(source(model, report), out, name, form or Form(), recordings)


def source(model: str, report: Report | None = None) -> Source:
    """A model that is to be exported or made smaller; needs PyTorch.

    Args:
        model: A name, a checkpoint or a model file: with weights where it has them, else its graph.
        report: Is told what is downloaded; see :func:`earmark.download.download`.

    Raises:
        ModelError: If it is unknown, damaged or several, or its weights cannot be downloaded.
    """
    from earmark.deploy.source import Source
    from earmark.model_file import read_model_file

    if len(weights.members(model)) > 1:
        raise ModelError(f"{model}: several models are no one file: make it with earmark join first")
    known = weights.published().get(model)
    if _is_checkpoint(model) or (known and known.labels and model not in weights.shipped()):
        network, record = trained(model, report)
        return Source(record, network)
    content, record = read_model_file(weights.find(model))
    return Source(record, content=content)


def trained(model: str, report: Report | None = None) -> tuple[Network, Record]:
    """The network behind a name or a checkpoint, to make something of; needs PyTorch.

    Args:
        model: Name of published weights that hear, fetched on first use, or path of a checkpoint.
        report: As for :func:`load`.

    Returns:
        The network on the CPU in evaluation mode, and its record.

    Raises:
        ModelError: If the model is unknown, cannot be had, or is a graph.
    """
    from earmark.models.checkpoint import load_checkpoint

    if _is_checkpoint(model):
        return load_checkpoint(model)
    known = weights.published().get(model)
    if known is None or known.labels is None:
        found = weights.find(model)  # says what is wrong with the name, if anything is
        raise ModelError(
            f"{model}: {found} holds a graph, this takes weights: give a checkpoint (.safetensors) or the "
            "name of published weights"
        )
    pull(model, report=report)
    return pretrained(model)


def _download(known: Published, again: bool, report: Report | None) -> Path:
    from earmark.download import fetch  # the web's libraries, only where something is fetched

    suffix = Path(known.url).suffix
    target = weights.cache_folder() / "downloads" / f"{known.name}{suffix}"
    if again or not target.is_file():  # or a run was killed before it could convert it
        largest = {"largest": _LARGEST * known.params + (1 << 20)} if known.params else {}
        fetch(known.url, target, size=known.size, report=report, **largest)
    return target


def _checked(known: Published, path: Path) -> dict[str, Any]:
    """Compares a file with what is known of it; what is to be kept about it."""
    try:
        with path.open("rb") as file:
            sha256, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read: {error.strerror or error}") from None
    not_it = f"{path}: is not the file that was published as {known.name}"
    if known.size not in (None, size):
        raise ModelError(f"{not_it}: it has {size} bytes instead of {known.size}")
    if not sha256.startswith(known.sha256):
        digits = max(8, len(known.sha256) // 4)
        raise ModelError(
            f"{not_it}: its SHA-256 begins with {sha256[:digits]} instead of {known.sha256[:digits]}"
        )
    trusted = _trusted(known)
    if trusted not in ("", sha256):
        raise ModelError(
            f"{path}: is not the file that was trusted as {known.name} at first (SHA-256 {sha256[:16]} "
            f"instead of {trusted[:16]}): remove {_origin_file(known)} if you trust this one"
        )
    return {"url": known.url, "size": size, "sha256": sha256}


def _origin_file(known: Published) -> Path:
    return weights.cache_folder() / f"{known.name}.origin.json"


def _trusted(known: Published) -> str:
    """The SHA-256 of the file that was trusted at first; "" if there was none."""
    path = _origin_file(known)
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{path}: is damaged: remove it to trust the next file of {known.name}") from None


def _record(known: Published, origin: dict[str, Any]) -> Record:
    from earmark.labels import label_set

    numbered = tuple(f"output {number}" for number in range(known.num_classes))
    return Record(
        name=known.name,
        labels=label_set(known.labels) if known.labels else numbered,
        front_end=known.front_end,
        task=known.task,
        architecture=known.architecture,
        arguments=known.arguments,
        window_s=known.window_s,
        padding=known.padding,
        embedding_size=1,  # filled in where the network is built
        description=known.description,
        license=known.license,
        source=known.source,
        metrics={"published": dict(known.scores), "scored_on": known.scored_on} if known.scores else {},
        provenance=origin,
        card=_card(known, origin),
    )


def _card(known: Published, origin: dict[str, Any]) -> str:
    scores = ", ".join(f"{name} {value:g}" for name, value in known.scores.items())
    lines = [
        f"# {known.name}",
        f"{known.description}. Weights by others, converted: {known.source}.",
        f"Published score: {scores} ({known.scored_on})." if scores else "No score is known.",
        f"Licence: {known.license or 'not known'}"
        + (f", {known.license_note}." if known.license_note else "."),
        f"Made from {known.url}, {origin['size']} bytes, SHA-256 {origin['sha256']}.",
    ]
    return "\n\n".join(lines) + "\n"
