"""Parameters, multiply-accumulate operations, peak memory and receptive field of a PyTorch network.

Source: the rules of EfficientAT's complexity tools; golden efficientat/pipeline/complexity.json.

Conventions: one log-mel (1, mel, frame) is traced through the network, and all costs follow from the
operations that this causes (:mod:`earmark.evaluation.complexity.operations`), so no network needs code of its
own; on the meta device nothing is computed. ``torch.utils.flop_counter`` is not used: it leaves out biases
(541,078,208 operations of mn10 where the golden has 541,085,095) and counts a linear layer once for each
frame, where the reference counts it once; and it has no memory or receptive field.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from earmark.evaluation.complexity.operations import ModuleCall, Operation, storage_of, trace
from earmark.evaluation.complexity.receptive_field import receptive_field
from earmark.models import Network
from earmark.models.mobilenet import InvertedResidual

BITS_PER_VALUE = 16
"""Of feature maps, for the peak memory."""
SLICES = 8
"""Slices in which the memory-efficient rule computes the channels within a block."""


@dataclass(frozen=True)
class Cost:
    """Cost of a network for one clip.

    Args:
        parameters: Number of parameters; buffers, such as the statistics of batch norms, do not count.
        macs: Multiply-accumulate operations of convolutions, linear layers and products of matrices, biases
            counted as one per value; norms, activations and poolings count nothing. A linear layer counts
            once, however many frames it is applied to, unless it is applied to each position of a map.
        peak_memory_kb: Peak over convolutions, linear layers and products of the feature maps in memory:
            input, output, and what later operations need; in 1000 bytes.
        peak_memory_efficient_kb: The same where inverted residual blocks are computed an eighth of their
            channels at a time; the first convolution counts with the first block, what follows the last
            block is left out. None where the network is not made of such blocks.
        peak_memory_efficient_note: Why it is None.
        receptive_field: Mel bands and frames that a value of the last feature map depends on, global pooling
            left out.
    """

    parameters: int
    macs: int
    peak_memory_kb: float
    peak_memory_efficient_kb: float | None
    peak_memory_efficient_note: str
    receptive_field: tuple[int, int]


def measure(network: Network, n_mels: int, num_frames: int, bits: int = BITS_PER_VALUE) -> Cost:
    """Computes the cost of a network by tracing it once.

    Args:
        network: Best built on the meta device; its mode (training or evaluation) is restored.
        n_mels: Mel bands of the log-mel.
        num_frames: Frames of the log-mel.
        bits: Bits of each value of a feature map, for the peak memory.

    Raises:
        ModelError: If the network cannot take such a log-mel.
    """
    log_mel = torch.zeros(1, n_mels, num_frames, device=next(network.parameters()).device)
    operations = trace(network, log_mel, (nn.Linear, InvertedResidual))
    weights = {storage_of(tensor) for tensor in (*network.parameters(), *network.buffers())}
    sliced = _peak_in_slices(operations)
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=sum(map(_macs, operations)),
        peak_memory_kb=_kilobytes(_peak(operations, weights), bits),
        peak_memory_efficient_kb=None if isinstance(sliced, str) else _kilobytes(sliced, bits),
        peak_memory_efficient_note=sliced if isinstance(sliced, str) else "",
        receptive_field=receptive_field(operations, log_mel),
    )


def _macs(operation: Operation) -> int:
    """Multiply-accumulate operations of one operation, by the rule of Cost."""
    if operation.operator == "convolution":
        weight, bias = operation.arguments[1:3]
        per_value: int = weight[0].numel() + (bias is not None)
        return operation.outputs[0].numel() * per_value
    if not operation.multiplies:
        return 0
    call = operation.call_of(nn.Linear)
    if call:
        positions = call.input[..., 0].numel() if call.input.ndim == 4 else 1
        return positions * sum(parameter.numel() for parameter in call.module.parameters())
    left, right = operation.inputs[-2:]
    return left.numel() * right.shape[-1]


def _kilobytes(values: float, bits: int) -> float:
    return values * bits / 8 / 1000


def _peak(operations: list[Operation], weights: set[int]) -> int:
    """The most values in memory at any convolution or product, weights left out."""
    last_use: dict[int, int] = {}
    for index, operation in enumerate(operations):
        last_use |= dict.fromkeys(map(storage_of, (*operation.inputs, *operation.outputs)), index)
    alive: dict[int, int] = {}
    peak = 0
    for index, operation in enumerate(operations):
        for tensor in (*operation.inputs, *operation.outputs):
            if storage_of(tensor) not in weights:
                alive[storage_of(tensor)] = tensor.untyped_storage().nbytes() // tensor.element_size()
        if operation.multiplies:
            peak = max(peak, sum(alive.values()))
        alive = {storage: size for storage, size in alive.items() if last_use[storage] > index}
    return peak


def _peak_in_slices(operations: list[Operation]) -> float | str:
    """The most values in any inverted residual block computed in slices, or why there is no number."""
    layers = [one for one in operations if one.multiplies and not one.call_of(nn.Linear)]
    owners = [layer.call_of(InvertedResidual) for layer in layers]
    inside = [index for index, owner in enumerate(owners) if owner]
    if not inside:
        return "the network has no inverted residual blocks"
    if inside[0] != 1 or None in owners[1 : inside[-1]]:
        return "not all of the network is made of inverted residual blocks"
    blocks = list(dict.fromkeys(owner for owner in owners if owner))
    return max(
        _block_in_slices(block, operations, None if index else layers[0])
        for index, block in enumerate(blocks)
    )


def _block_in_slices(block: ModuleCall, operations: list[Operation], stem: Operation | None) -> float:
    """Values in memory within a block; the stem is computed with it where that is given.

    Squeeze-excitation needs a whole map, so its input is not sliced.
    """
    own = [operation for operation in operations if block in operation.calls]
    *wide, projection = [operation for operation in own if operation.operator == "convolution"]
    result = projection.outputs[0].numel()
    if any(operation.call_of(nn.Linear) for operation in own):
        return block.input.numel() + projection.inputs[0].numel() + result
    first = block.input
    if stem:
        wide, first = [stem, *wide], stem.inputs[0]
    return first.numel() + result + sum(operation.outputs[0].numel() for operation in wide) / SLICES
