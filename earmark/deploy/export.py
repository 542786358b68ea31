"""Writes what runs elsewhere: a model's graph with its record, in the form that a runtime takes.

Conventions: a graph's inputs are those of the record (``graph_inputs``), its outputs ``logits``
(batch, class) and ``embedding`` (batch, channel); batch and length are free unless a length was asked for.
What is written was compared with the model first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from earmark.deploy.source import Form, Source, onnx_session
from earmark.deploy.storage import TOLERANCES
from earmark.deploy.targets import TARGETS, Name
from earmark.deploy.verify import TOLERANCE, Check, Model, Recording, verify
from earmark.errors import ModelError
from earmark.files import write_together
from earmark.models.network import Network
from earmark.record import Record


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        record: Of the export.
        check: How it compared with its source.
        files: The file itself, and what lies beside it.
    """

    record: Record
    check: Check
    files: tuple[Path, ...]

    def in_words(self) -> str:
        """For people: what it takes, what was compared, what was written."""
        record = self.record
        length = f"{record.window_s:g} s" if record.fixed_window else "any length"
        sizes = ", ".join(f"{path} ({path.stat().st_size / 1e6:.2f} MB)" for path in self.files)
        return (
            f"{record.name} takes {_takes(record)}, of {length}\ncompared with the model:\n"
            f"{self.check.in_words()}\nwrote {sizes}"
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
    record = _noted(form.applied(source.record, runtime.any_length), target, form)
    files = runtime.make(source, record)
    made = Model(runtime.open(files, record), record)
    same = record.precision == source.record.precision and (source.network is None or not runtime.narrow)
    tolerance = TOLERANCE if same else TOLERANCES[record.precision]
    check = verify(source, made, recordings, tolerance)
    if not check.holds:
        error = ModelError(
            f"{record.name}: what was exported differs from the model by {check.difference:.2g}, more than "
            f"{tolerance:g}: nothing was written"
        )
        error.add_note(check.in_words())
        raise error
    contents = {Path(path): files.pop(runtime.suffix)}
    contents |= {Path(path).with_suffix(suffix): content for suffix, content in files.items()}
    write_together(contents)
    return Exported(record, check, tuple(contents))


def _takes(record: Record) -> str:
    """What goes into a graph, in words."""
    rates = " and ".join(
        f"{front_end.sample_rate} Hz"
        for front_end in record.front_ends
        if front_end.graph_input == "waveform"
    )
    return f"waveforms at {rates}, resampling not included" if rates else "log-mels"


def _noted(record: Record, target: Name, form: Form) -> Record:
    """The record with a note on how the export came about, unless it is a model file as any other."""
    if target == "onnx" and form == Form():
        return record
    note = {"target": target, "takes": _takes(record)}
    return record.changed(provenance={**record.provenance, "export": note})


def export_model(network: Network, record: Record, path: str | PathLike[str]) -> float:
    """Exports a network and writes it, with its record, as a model file.

    Args:
        network: From the registry; it is put into evaluation mode.
        record: What the file is to carry.
        path: Of the file, replaced whole.

    Returns:
        The largest difference found between network and file.

    Raises:
        ModelError: As :func:`export`.
    """
    return export(Source(record, network.eval()), path).check.difference


def compare(network: Network, content: bytes, record: Record) -> float:
    """The largest difference between a network and the content of a model file, over batches and lengths.

    Returns:
        Of logits and embedding, relative to the largest value where that is above 1.
    """
    made = Model(onnx_session(content), record)
    return verify(Source(record, network), made).difference
