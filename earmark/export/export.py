"""Writes what runs elsewhere: a model's graph with its record, in the form that a runtime takes.

Conventions: a graph's input is that of the model info (``graph_input``), its outputs ``logits``
(batch, class) and ``embedding`` (batch, channel); batch and length are free unless a length was asked for.
What is written was compared with the model first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from earmark.errors import ModelError
from earmark.export.source import Form, Source, onnx_session
from earmark.export.targets import TARGETS, Name
from earmark.export.verify import TOLERANCE, Check, Model, Recording, verify
from earmark.export.weight_precision import TOLERANCES
from earmark.model_file.atomic import write_all_atomically
from earmark.model_file.info import ModelInfo
from earmark.models.network import Network


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        info: Of the export.
        check: How it compared with its source.
        files: The file itself, and what lies beside it.
    """

    info: ModelInfo
    check: Check
    files: tuple[Path, ...]

    def summary(self) -> str:
        """For people: what it takes, what was compared, what was written."""
        info = self.info
        length = f"{info.window_s:g} s" if info.fixed_window else "any length"
        sizes = ", ".join(f"{path} ({path.stat().st_size / 1e6:.2f} MB)" for path in self.files)
        return (
            f"{info.name} takes {_takes(info)}, of {length}\ncompared with the model:\n"
            f"{self.check.summary()}\nwrote {sizes}"
        )


def export(
    source: Source,
    path: str | PathLike[str],
    target: Name = "onnx",
    form: Form = Form(),  # noqa: B008
    recordings: Sequence[Recording] = (),
) -> Exported:
    """Makes an export, compares it with its source, and writes it.

    Args:
        source: The model.
        path: Of the file, replaced whole; what a target has beside it gets the same name with other endings.
        target: The runtime.
        form: What the graph takes.
        recordings: To compare by besides the one that ships.

    Returns:
        What was written, and how it compared.

    Raises:
        ModelError: If the form is not possible, or the answers differ by more than ``TOLERANCE`` or, with
            weights in 16 bits, their own tolerance; nothing is written then.
        MissingExtraError: If the target's package is not installed.
        AudioError: If a recording cannot be read.
    """
    runtime = TARGETS[target]
    if form.precision is not None and not runtime.narrow:
        raise ModelError(f"{Path(path)}: a file of this kind holds float32 only: leave the precision out")
    info = _noted(form.applied(source.info, runtime.any_length), target, form)
    files = runtime.make(source, info)
    made = Model(runtime.open(files, info), info)
    same = info.precision == source.info.precision and (source.network is None or not runtime.narrow)
    tolerance = TOLERANCE if same else TOLERANCES[info.precision]
    check = verify(source, made, recordings, tolerance)
    if not check.holds:
        error = ModelError(
            f"{info.name}: what was exported differs from the model by {check.difference:.2g}, more than "
            f"{tolerance:g}: nothing was written"
        )
        error.add_note(check.summary())
        raise error
    contents = {Path(path): files.pop(runtime.suffix)}
    contents |= {Path(path).with_suffix(suffix): content for suffix, content in files.items()}
    write_all_atomically(contents)
    return Exported(info, check, tuple(contents))


def _takes(info: ModelInfo) -> str:
    """What goes into a graph, in words."""
    if info.graph_input == "log_mel":
        return "log-mels"
    return f"waveforms at {info.front_end.sample_rate} Hz, resampling not included"


def _noted(info: ModelInfo, target: Name, form: Form) -> ModelInfo:
    """The record with a note on how the export came about, unless it is a model file as any other."""
    if target == "onnx" and form == Form():
        return info
    note = {"target": target, "takes": _takes(info)}
    return info.changed(provenance={**info.provenance, "export": note})


def export_model(network: Network, info: ModelInfo, path: str | PathLike[str]) -> float:
    """Exports a network and writes it, with its record, as a model file.

    Args:
        network: From the registry; it is put into evaluation mode.
        info: What the file is to carry.
        path: Of the file, replaced whole.

    Returns:
        The largest difference found between network and file.

    Raises:
        ModelError: As :func:`export`.
    """
    return export(Source(info, network.eval()), path).check.difference


def compare(network: Network, content: bytes, info: ModelInfo) -> float:
    """The largest difference between a network and the content of a model file, over batches and lengths.

    Returns:
        Of logits and embedding, relative to the largest value where that is above 1.
    """
    made = Model(onnx_session(content), info)
    return verify(Source(info, network), made).difference
