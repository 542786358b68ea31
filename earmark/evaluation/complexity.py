"""What a network costs: parameters, multiply-accumulate operations, memory for its maps, receptive field.

Source: the rules of EfficientAT's complexity tools; golden efficientat/pipeline/complexity.json.

Conventions: one log-mel (1, mel, frame) goes through the network, and all costs follow from the operations
that this causes (:mod:`earmark.evaluation.operations`). So no network needs code for this, and on the meta
device nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from itertools import combinations
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.evaluation.operations import Call, Step, follow, storage_of
from earmark.features.front_end import EFFICIENTAT
from earmark.features.learned import AnyFrontEnd
from earmark.hub import registry
from earmark.inference import ensemble
from earmark.model_file.onnx_file import read_info
from earmark.models import Network, architectures, create_model
from earmark.models.checkpoint import load_checkpoint
from earmark.models.mobilenet import InvertedResidual
from earmark.models.registry import configure

BYTES_PER_VALUE = 2
"""Of the peak memory: maps in 16 bits."""
SLICES = 8
"""Parts in which the memory-efficient rule computes the channels within a block."""

_POOLINGS = {"avg_pool2d", "max_pool2d_with_indices"}
_OVER_THE_CLIP = {"mean", "sum", "amax", "amin", "max", "min", "_adaptive_avg_pool2d", "adaptive_max_pool2d"}
"""Operations behind which a value depends on the whole clip, so that no receptive field is left."""


@dataclass(frozen=True)
class Cost:
    """What a network costs for one clip.

    Args:
        parameters: Their number; buffers, such as the statistics of batch norms, are none.
        macs: Multiply-accumulate operations of convolutions, linear layers and products of matrices, biases
            counted as one per value; norms, activations and poolings count nothing. A linear layer counts
            once, however many frames it is applied to, unless it is applied to each position of a map.
        peak_memory_kb: The most that is held while a convolution, linear layer or product is computed: what
            goes in, what comes out, and what is needed later; in 1000 bytes, 16 bits a value.
        peak_memory_efficient_kb: The same where inverted residual blocks are computed an eighth of their
            channels at a time; the first convolution counts with the first block, what follows the last
            block is left out. None where the network is not made of such blocks.
        peak_memory_efficient_note: Why there is none.
        receptive_field: Mel bands and frames that a value of the last map sees, whatever looks at the clip as
            a whole left out.
    """

    parameters: int
    macs: int
    peak_memory_kb: float
    peak_memory_efficient_kb: float | None
    peak_memory_efficient_note: str
    receptive_field: tuple[int, int]


@dataclass(frozen=True)
class Complexity:
    """What a model costs for a clip of some seconds.

    Args:
        name: As it was asked for.
        architecture: Name in the registry.
        seconds: Length of the clip.
        n_mels: Mel bands of its log-mel.
        num_frames: Frames of its log-mel.
        cost: What the network costs.
        file_bytes: Size of the model's file; None where there is none on this machine.
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
    members: tuple[Complexity, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields, those of ``cost`` among them, as JSON can hold them."""
        values = asdict(self)
        values |= values.pop("cost") | {"members": [member.to_dict() for member in self.members]}
        mels, frames = values.pop("receptive_field")
        return values | {"receptive_field": {"mels": mels, "frames": frames}}

    def summary(self) -> str:
        """The same for people, in a few lines."""
        if self.members:
            own = [self._sum_in_words(), *self._file_in_words()]
            return "\n".join([*own, "Its members:", *(member.summary() for member in self.members)])
        cost, (mels, frames) = self.cost, self.cost.receptive_field
        sliced = cost.peak_memory_efficient_kb
        lines = [
            self._sum_in_words(),
            f"Its input is {self.n_mels} mel bands by {self.num_frames} frames; "
            f"its receptive field is {mels} bands by {frames} frames.",
            f"Its feature maps take up to {cost.peak_memory_kb:g} kB in 16 bits; with the channels of its "
            "blocks computed in slices, "
            + (f"{sliced:g} kB." if sliced is not None else f"no answer: {cost.peak_memory_efficient_note}."),
        ]
        return "\n".join([*lines, *self._file_in_words()])

    def _sum_in_words(self) -> str:
        return (
            f"Model '{self.name}' has {self.cost.parameters / 1e6:.2f} million parameters and inference of a "
            f"single {self.seconds:g}-seconds audio clip requires {self.cost.macs / 1e9:.2f} billion "
            "multiply-accumulate operations."
        )

    def _file_in_words(self) -> list[str]:
        return [] if self.file_bytes is None else [f"Its file has {self.file_bytes / 1e6:.1f} MB."]


def complexity(model: str, seconds: float = 10.0) -> Complexity:
    """Says what a model costs; its weights need not be on this machine.

    Args:
        model: A name that ``earmark models`` lists, the path of a model file or a checkpoint, or the name of
            an architecture; or several of these with "+" between them, an ensemble. An architecture is taken
            as it is by default, behind the front-end of the first published model of it, or else behind
            EfficientAT's.
        seconds: Length of the clip.

    Raises:
        ModelError: If there is no such model, file or architecture, or its network cannot take such a clip.
        AudioError: If the clip is shorter than the front-end needs.
    """
    if not 0 < seconds < inf:
        raise ModelError(f"a clip of {seconds:g} s is not possible: give a positive number of seconds")
    names = registry.members(model)
    if len(names) > 1:
        found = [complexity(name, seconds) for name in names]
        sizes = [one.file_bytes for one in found if one.file_bytes is not None]
        return _together(model, found, sum(sizes) if len(sizes) == len(found) else None)
    architecture, arguments, front_ends, file = _described(model)
    size = file.stat().st_size if file else None
    if architecture != ensemble.ARCHITECTURE:
        return _measured(model, architecture, arguments, front_ends[0], seconds, size)
    found = []
    for member in arguments["members"]:
        own = member["arguments"] | {"num_classes": arguments["num_classes"]}
        [index] = member["front_ends"]
        found.append(_measured(member["name"], member["architecture"], own, front_ends[index], seconds))
    return _together(model, found, size)


def _measured(
    name: str,
    architecture: str,
    arguments: dict[str, Any],
    front_end: AnyFrontEnd,
    seconds: float,
    size: int | None = None,
) -> Complexity:
    with torch.device("meta"):
        network = create_model(architecture, **arguments)
    num_frames = front_end.num_frames(round(seconds * front_end.sample_rate))
    cost = measure(network, front_end.n_mels, num_frames)
    return Complexity(name, architecture, seconds, front_end.n_mels, num_frames, cost, size)


def _together(name: str, members: list[Complexity], size: int | None) -> Complexity:
    costs = [member.cost for member in members]
    notes = [cost.peak_memory_efficient_note for cost in costs if cost.peak_memory_efficient_note]
    sliced = [cost.peak_memory_efficient_kb or 0 for cost in costs]
    cost = Cost(
        parameters=sum(cost.parameters for cost in costs),
        macs=sum(cost.macs for cost in costs),
        peak_memory_kb=max(cost.peak_memory_kb for cost in costs),
        peak_memory_efficient_kb=None if notes else max(sliced),
        peak_memory_efficient_note=notes[0] if notes else "",
        receptive_field=_widest(cost.receptive_field for cost in costs),
    )
    first = members[0]
    return Complexity(
        name,
        ensemble.ARCHITECTURE,
        first.seconds,
        first.n_mels,
        first.num_frames,
        cost,
        size,
        tuple(members),
    )


def _described(model: str) -> tuple[str, dict[str, Any], tuple[AnyFrontEnd, ...], Path | None]:
    """Architecture, what it is built with, front-ends, and file of whatever a name stands for."""
    path = registry.look(model)
    if path:
        info = load_checkpoint(path)[1] if path.suffix == ".safetensors" else read_info(path)
        arguments = {**info.arguments, "num_classes": len(info.labels)}
        return info.architecture, arguments, info.front_ends, path
    published = registry.published()
    if model in published:
        known = published[model]
        arguments = {**known.arguments, "num_classes": known.num_classes}
        file = known.checkpoint if known.on_this_machine else None
        return known.architecture, arguments, (known.front_end,), file
    if model in architectures():
        kin = (known.front_end for known in published.values() if known.architecture == model)
        front_end = next(kin, EFFICIENTAT)
        n_mels = getattr(configure(model), "n_mels", front_end.n_mels)
        return model, {}, (replace(front_end, n_mels=n_mels),), None
    known_names = list(dict.fromkeys([*registry.names(), *published, *architectures()]))
    near = get_close_matches(model, known_names, n=3, cutoff=0.5)
    guess = f": did you mean {' or '.join(near)}?" if near else " (earmark models lists models)"
    raise ModelError(f"there is no model, file or architecture named {model!r}{guess}")


def measure(network: Network, n_mels: int, num_frames: int) -> Cost:
    """Says what a network costs, by running it once.

    Args:
        network: Best built on the meta device; its mode is left as it is found.
        n_mels: Mel bands of the log-mel.
        num_frames: Frames of the log-mel.

    Raises:
        ModelError: If the network cannot take such a log-mel.
    """
    log_mel = torch.zeros(1, n_mels, num_frames, device=next(network.parameters()).device)
    steps = follow(network, log_mel, (nn.Linear, InvertedResidual))
    held = {storage_of(tensor) for tensor in (*network.parameters(), *network.buffers())}
    sliced = _peak_in_slices(steps)
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=sum(map(_macs, steps)),
        peak_memory_kb=_kilobytes(_peak(steps, held)),
        peak_memory_efficient_kb=None if isinstance(sliced, str) else _kilobytes(sliced),
        peak_memory_efficient_note=sliced if isinstance(sliced, str) else "",
        receptive_field=_receptive_field(steps, log_mel),
    )


def _macs(step: Step) -> int:
    """Multiply-accumulate operations of one step; the rule is that of Cost."""
    if step.operator == "convolution":
        weight, bias = step.arguments[1:3]
        per_value: int = weight[0].numel() + (bias is not None)
        return step.outputs[0].numel() * per_value
    if not step.multiplies:
        return 0
    call = step.within(nn.Linear)
    if call:
        positions = call.given[..., 0].numel() if call.given.ndim == 4 else 1
        return positions * sum(parameter.numel() for parameter in call.module.parameters())
    left, right = step.inputs[-2:]
    return left.numel() * right.shape[-1]


def _kilobytes(values: float) -> float:
    return values * BYTES_PER_VALUE / 1000


def _peak(steps: list[Step], held: set[int]) -> int:
    """The most values that are needed, now or later, at any convolution or product; weights left out."""
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        last |= dict.fromkeys(map(storage_of, (*step.inputs, *step.outputs)), index)
    alive: dict[int, int] = {}
    peak = 0
    for index, step in enumerate(steps):
        for tensor in (*step.inputs, *step.outputs):
            if storage_of(tensor) not in held:
                alive[storage_of(tensor)] = tensor.untyped_storage().nbytes() // tensor.element_size()
        if step.multiplies:
            peak = max(peak, sum(alive.values()))
        alive = {storage: size for storage, size in alive.items() if last[storage] > index}
    return peak


def _peak_in_slices(steps: list[Step]) -> float | str:
    """The most values in any inverted residual block, computed in slices; or why there is no answer."""
    layers = [step for step in steps if step.multiplies and not step.within(nn.Linear)]
    owners = [step.within(InvertedResidual) for step in layers]
    inside = [index for index, owner in enumerate(owners) if owner]
    if not inside:
        return "the network has no inverted residual blocks"
    if inside[0] != 1 or None in owners[1 : inside[-1]]:
        return "not all of the network is made of inverted residual blocks"
    blocks = list(dict.fromkeys(owner for owner in owners if owner))
    return max(
        _block_in_slices(block, steps, None if index else layers[0]) for index, block in enumerate(blocks)
    )


def _block_in_slices(block: Call, steps: list[Step], stem: Step | None) -> float:
    """Values that a block holds; the stem is computed with it where that is given.

    Squeeze-excitation needs all of a map, so what it scales is held whole.
    """
    own = [step for step in steps if block in step.around]
    *wide, projection = [step for step in own if step.operator == "convolution"]
    result = projection.outputs[0].numel()
    if any(step.within(nn.Linear) for step in own):
        return block.given.numel() + projection.inputs[0].numel() + result
    given = block.given
    if stem:
        wide, given = [stem, *wide], stem.inputs[0]
    return given.numel() + result + sum(step.outputs[0].numel() for step in wide) / SLICES


class _Reach(NamedTuple):
    """What a value sees of the log-mel, and how far the next value's view lies; along a map's two axes."""

    size: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    turned: bool = False  # whether frames come before mel bands


def _receptive_field(steps: list[Step], log_mel: Tensor) -> tuple[int, int]:
    reaches = {id(log_mel): _Reach()}
    largest = (1, 1)
    for step in steps:
        known = [reaches[id(tensor)] for tensor in step.inputs if id(tensor) in reaches]
        if not known or step.operator in _OVER_THE_CLIP:
            continue
        reach = _passed_on(step, known)
        reaches |= dict.fromkeys(map(id, step.outputs), reach)
        mels, frames = reversed(reach.size) if reach.turned else reach.size
        largest = max(largest[0], mels), max(largest[1], frames)
    return largest


def _passed_on(step: Step, known: list[_Reach]) -> _Reach:
    """The reach behind a step: the widest of those before it, wider by the step's own window."""
    sizes, strides = _widest(reach.size for reach in known), _widest(reach.step for reach in known)
    reach = _Reach(sizes, strides, known[0].turned)
    if step.operator == "convolution":
        weight, stride, dilation = (step.arguments[index] for index in (1, 3, 5))
        return _widened(reach, weight.shape[2:], stride, dilation)
    if step.operator in _POOLINGS:
        _, kernel, *more = step.arguments
        return _widened(reach, kernel, more[0] if more and more[0] else kernel, (1, 1))
    if _is_odd(step):
        return _Reach(reach.size[::-1], reach.step[::-1], not reach.turned)
    return reach


def _widest(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    first, second = map(max, zip(*pairs, strict=True))
    return first, second


def _widened(reach: _Reach, kernel: Any, stride: Any, dilation: Any) -> _Reach:
    # a single number is meant for both axes
    pairs = [(*values, *values)[:2] for values in (kernel, stride, dilation)]
    (k0, k1), (s0, s1), (d0, d1) = pairs
    size = reach.size[0] + (k0 - 1) * d0 * reach.step[0], reach.size[1] + (k1 - 1) * d1 * reach.step[1]
    return reach._replace(size=size, step=(reach.step[0] * s0, reach.step[1] * s1))


def _is_odd(step: Step) -> bool:
    """Whether a step turns a map: an odd permutation of its axes puts frames before mel bands, or back."""
    if step.operator == "transpose":
        first, second = (axis % step.inputs[0].ndim for axis in step.arguments[1:3])
        return bool(first != second)
    if step.operator == "permute":
        order = [axis % step.inputs[0].ndim for axis in step.arguments[1]]
        return bool(sum(first > second for first, second in combinations(order, 2)) % 2)
    return False
