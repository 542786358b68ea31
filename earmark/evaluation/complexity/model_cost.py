"""Cost of a model that is named: a published model, a file, an architecture, or an ensemble.

Conventions: the network is built on the meta device, so its weights need not be on this machine and nothing
is computed; the numbers are those of :mod:`earmark.evaluation.complexity.network_cost`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from earmark.errors import ModelError
from earmark.evaluation.complexity.network_cost import BITS_PER_VALUE, Cost, measure
from earmark.evaluation.complexity.receptive_field import largest_pair
from earmark.features.learned import AnyFrontEnd
from earmark.features.presets import EFFICIENTAT
from earmark.hub import registry
from earmark.inference import ensemble
from earmark.model_file.onnx_file import read_info
from earmark.models import architectures, create_model
from earmark.models.checkpoint import load_checkpoint
from earmark.models.registry import create_config


@dataclass(frozen=True)
class Complexity:
    """Cost of a model for a clip of some seconds.

    Args:
        name: As requested.
        architecture: Name in the registry of networks.
        seconds: Length of the clip.
        n_mels: Mel bands of its log-mel.
        num_frames: Frames of its log-mel.
        cost: Of the network.
        file_bytes: Size of the model's file; None where it is not on this machine.
        bits: Bits of each value of a feature map, for the memory.
        members: Of an ensemble. Its own numbers are their sums, of memory and receptive field the largest,
            since they run one after the other; its input is that of the first.
    """

    name: str
    architecture: str
    seconds: float
    n_mels: int
    num_frames: int
    cost: Cost
    file_bytes: int | None
    bits: int = BITS_PER_VALUE
    members: tuple[Complexity, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields, those of ``cost`` among them, for JSON."""
        values = asdict(self)
        values |= values.pop("cost") | {"members": [member.to_dict() for member in self.members]}
        mels, frames = values.pop("receptive_field")
        return values | {"receptive_field": {"mels": mels, "frames": frames}}

    def summary(self) -> str:
        """The numbers in a few lines of text."""
        if self.members:
            own = [self._headline(), *self._file_line()]
            return "\n".join([*own, "Its members:", *(member.summary() for member in self.members)])
        cost, (mels, frames) = self.cost, self.cost.receptive_field
        sliced = cost.peak_memory_efficient_kb
        lines = [
            self._headline(),
            f"Its input is {self.n_mels} mel bands by {self.num_frames} frames; "
            f"its receptive field is {mels} bands by {frames} frames.",
            f"Its feature maps take up to {cost.peak_memory_kb:g} kB in {self.bits} bits; with the channels "
            "of its blocks computed in slices, "
            + (f"{sliced:g} kB." if sliced is not None else f"unknown: {cost.peak_memory_efficient_note}."),
        ]
        return "\n".join([*lines, *self._file_line()])

    def _headline(self) -> str:
        return (
            f"Model '{self.name}' has {self.cost.parameters / 1e6:.2f} million parameters and inference of a "
            f"single {self.seconds:g}-seconds audio clip requires {self.cost.macs / 1e9:.2f} billion "
            "multiply-accumulate operations."
        )

    def _file_line(self) -> list[str]:
        return [] if self.file_bytes is None else [f"Its file has {self.file_bytes / 1e6:.1f} MB."]


def complexity(
    model: str | os.PathLike[str] | Sequence[str],
    seconds: float = 10.0,
    changes: Mapping[str, Any] = MappingProxyType({}),
    bits: int = BITS_PER_VALUE,
) -> Complexity:
    """Computes the cost of a model; its weights need not be on this machine.

    Args:
        model: A name that ``earmark models`` lists, the path of a model file or a checkpoint, the name of an
            architecture, or a list of these, an ensemble. An architecture is built with its default
            arguments, behind the front-end of the first published model of it, or else EfficientAT's.
        seconds: Length of the clip, above 0.
        changes: Arguments of the architecture and constants of the front-end that differ from the model's,
            by name, such as ``{"n_mels": 64, "head": "fc"}``.
        bits: Bits of each value of a feature map, for the memory.

    Raises:
        ModelError: If there is no such model, file, architecture, argument or constant, a value is invalid,
            or the network cannot take such a clip.
        AudioError: If the clip is shorter than the front-end needs.
    """
    if not 0 < seconds < inf:
        raise ModelError(f"seconds must be above 0 and finite, got {seconds:g}")
    if not isinstance(model, str | os.PathLike):
        members = [complexity(name, seconds, changes, bits) for name in model]
        if len(members) == 1:
            return members[0]
        sizes = [one.file_bytes for one in members if one.file_bytes is not None]
        return _ensemble("+".join(model), members, sum(sizes) if len(sizes) == len(members) else None)
    name = os.fspath(model)
    architecture, arguments, front_end, file = _described(name)
    size = file.stat().st_size if file and not changes else None
    if architecture != ensemble.ARCHITECTURE:
        return _measured(name, *_changed(architecture, arguments, front_end, changes), seconds, bits, size)
    found = []
    for member in arguments["members"]:
        own = member["arguments"] | {"num_classes": arguments["num_classes"]}
        described = _changed(member["architecture"], own, front_end, changes)
        found.append(_measured(member["name"], *described, seconds, bits))
    return _ensemble(name, found, size)


def _changed(
    architecture: str, arguments: Mapping[str, Any], front_end: AnyFrontEnd, changes: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any], AnyFrontEnd]:
    """Architecture, arguments and front-end after changes, each of which goes where its name is known."""
    constants = {field.name for field in fields(front_end)}
    known = {field.name for field in fields(create_config(architecture, **arguments))}
    own = {name: value for name, value in changes.items() if name in known or name not in constants}
    changed = {name: value for name, value in changes.items() if name in constants}
    return architecture, {**arguments, **own}, replace(front_end, **changed) if changed else front_end


def _measured(
    name: str,
    architecture: str,
    arguments: Mapping[str, Any],
    front_end: AnyFrontEnd,
    seconds: float,
    bits: int,
    size: int | None = None,
) -> Complexity:
    with torch.device("meta"):
        network = create_model(architecture, **arguments)
    num_frames = front_end.num_frames(round(seconds * front_end.sample_rate))
    cost = measure(network, front_end.n_mels, num_frames, bits)
    return Complexity(name, architecture, seconds, front_end.n_mels, num_frames, cost, size, bits)


def _ensemble(name: str, members: Sequence[Complexity], size: int | None) -> Complexity:
    costs = [member.cost for member in members]
    notes = [cost.peak_memory_efficient_note for cost in costs if cost.peak_memory_efficient_note]
    sliced = [cost.peak_memory_efficient_kb or 0 for cost in costs]
    cost = Cost(
        parameters=sum(cost.parameters for cost in costs),
        macs=sum(cost.macs for cost in costs),
        peak_memory_kb=max(cost.peak_memory_kb for cost in costs),
        peak_memory_efficient_kb=None if notes else max(sliced),
        peak_memory_efficient_note=notes[0] if notes else "",
        receptive_field=largest_pair(cost.receptive_field for cost in costs),
    )
    first = replace(members[0], name=name, architecture=ensemble.ARCHITECTURE, cost=cost, file_bytes=size)
    return replace(first, members=tuple(members))


def _described(model: str) -> tuple[str, dict[str, Any], AnyFrontEnd, Path | None]:
    """Architecture, arguments, front-end and file of whatever a name stands for."""
    path = registry.lookup(model)
    if path:
        info = load_checkpoint(path)[1] if path.suffix == ".safetensors" else read_info(path)
        arguments = {**info.arguments, "num_classes": len(info.labels)}
        return info.architecture, arguments, info.front_end, path
    published = registry.published()
    if model in published:
        known = published[model]
        arguments = {**known.arguments, "num_classes": known.num_classes}
        file = known.checkpoint if known.is_cached else None
        return known.architecture, arguments, known.front_end, file
    if model in architectures():
        of_published = (known.front_end for known in published.values() if known.architecture == model)
        front_end = next(of_published, EFFICIENTAT)
        n_mels = getattr(create_config(model), "n_mels", front_end.n_mels)
        return model, {}, replace(front_end, n_mels=n_mels), None
    known_names = list(dict.fromkeys([*registry.list_models(), *published, *architectures()]))
    near = get_close_matches(model, known_names, n=3, cutoff=0.5)
    guess = f": did you mean {' or '.join(near)}?" if near else " (earmark models lists models)"
    raise ModelError(f"unknown model, file or architecture {model!r}{guess}")
