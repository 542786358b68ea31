"""Computes log-mels in a graph, as matrix products, which every runtime supports.

Source: a real Fourier transform split into the even and odd part of the windowed frame, each a matrix product
of half the size; held by the golden log-mels of the tests.

Conventions: waveforms are float32 in [-1, 1], shape (batch, time), at the front-end's sample rate, at least
``min_samples`` long. Graphs do not resample.
"""

from __future__ import annotations

import numpy as np
import torch
from onnx import ModelProto, compose
from torch import Tensor, nn
from torch.nn import functional

from earmark.export.weight_precision import FRONT_END
from earmark.features.front_end import FrontEnd
from earmark.features.learned import GraphFrontEnd
from earmark.features.mel import analysis_window, mel_filter_bank
from earmark.model_file.info import ModelInfo
from earmark.models.log_mel import standardized, standardized_log_mel
from earmark.models.onnx_graph import module_to_onnx


class FoldedLogMel(nn.Module):
    """Converts waveforms to log-mels without the runtime's Fourier transform.

    Only the bins covered by the mel filter bank are computed. The window is applied separately, because as
    the references round it, it is not exactly symmetric.

    Args:
        front_end: The constants of the transform.
    """

    window: Tensor
    even: Tensor
    odd: Tensor
    bank: Tensor

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        bank = mel_filter_bank(front_end)
        reached = np.flatnonzero(bank.any(0))
        bins = np.arange(reached[0], reached[-1] + 1) if len(reached) else np.arange(1)
        # Times are relative to the window's middle; this shifts phases, which the power does not depend on.
        times = np.arange(front_end.win_length // 2) - (front_end.win_length - 1) / 2
        angles = 2 * np.pi / front_end.n_fft * np.outer(times, bins)
        constants = {
            "window": analysis_window(front_end),
            "even": np.cos(angles),
            "odd": np.sin(angles),
            "bank": bank[:, bins],
        }
        for name, values in constants.items():
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """The log-mel of each waveform.

        Args:
            waveform: float32 in [-1, 1], shape (batch, time), at ``front_end.sample_rate``.

        Returns:
            float32, shape (batch, n_mels, frame).
        """
        power = self._power(self._frames(waveform) * self.window)
        if self.front_end.power != 2.0:
            power = power ** (self.front_end.power / 2)
        log_mel = self._compress(torch.matmul(self.bank, power.transpose(1, 2)))
        return standardized_log_mel(log_mel) if self.front_end.standardize == "log_mel" else log_mel

    def _frames(self, waveform: Tensor) -> Tensor:
        """(batch, time) -> (batch, frame, win_length)."""
        front_end = self.front_end
        length, hop = front_end.win_length, front_end.hop_length
        if front_end.standardize is True:
            waveform = standardized(waveform)
        if front_end.preemphasis:
            waveform = waveform[:, 1:] - front_end.preemphasis * waveform[:, :-1]
        before = front_end.n_fft // 2 - front_end.window_offset
        centred = front_end.window_placement == "centre"
        behind = length - front_end.n_fft // 2 + front_end.window_offset if centred else front_end.n_fft // 2
        padded = functional.pad(waveform, (before, behind), mode="reflect")
        num_frames = (padded.shape[1] - length) // hop + 1
        # A frame consists of consecutive blocks of hop_length: slices are faster than gathering samples.
        blocks = -(-length // hop)
        num_blocks = num_frames + blocks - 1
        padded = functional.pad(padded, (0, blocks * hop))[:, : num_blocks * hop]
        rows = padded.reshape(waveform.shape[0], num_blocks, hop)
        frames = torch.cat([rows[:, first : first + num_frames] for first in range(blocks)], 2)
        return frames[:, :, :length]

    def _power(self, frames: Tensor) -> Tensor:
        """(batch, frame, win_length) -> (batch, frame, bin)."""
        half, odd_length = divmod(self.front_end.win_length, 2)
        begin, end = frames[:, :, :half], frames[:, :, half + odd_length :].flip(2)
        real, imaginary = (begin + end) @ self.even, (begin - end) @ self.odd
        if odd_length:
            real = real + frames[:, :, half : half + 1]
        return real * real + imaginary * imaginary

    def _compress(self, energies: Tensor) -> Tensor:
        front_end = self.front_end
        if front_end.floor_mode == "add":
            energies, floor = energies + front_end.floor, None
        else:
            floor = front_end.floor
        if floor is not None or front_end.ceiling is not None:
            energies = energies.clamp(floor, front_end.ceiling)
        logarithms = energies.log() * (10 / np.log(10)) if front_end.log == "db" else energies.log()
        return (logarithms + front_end.shift) / front_end.scale


def waveform_info(info: ModelInfo) -> ModelInfo:
    """The model info with the log-mel in the graph."""
    front_end = info.front_end
    return info.changed(front_end=GraphFrontEnd(front_end)) if isinstance(front_end, FrontEnd) else info


def prepend_log_mel(model: ModelProto, info: ModelInfo) -> None:
    """Puts the log-mel before a graph, in place.

    Args:
        model: The graph; its log-mel input becomes a waveform.
        info: The model info before this; :func:`waveform_info` returns the one after it.
    """
    front_end = info.front_end
    assert isinstance(front_end, FrontEnd)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    example = torch.zeros(2, front_end.sample_rate + front_end.n_fft)
    time = torch.export.Dim("time", min=front_end.min_samples)
    axes = {0: torch.export.Dim("batch"), 1: time}
    names = [GraphFrontEnd.graph_input], [front_end.graph_input]
    part = module_to_onnx(FoldedLogMel(front_end), (example,), (axes,), names, opset)
    _connect(model, part, front_end.graph_input)


def _connect(model: ModelProto, part: ModelProto, name: str) -> None:
    """Connects the output of a part to the input of that name."""
    apart = {"rename_inputs": False, "rename_outputs": False}
    part = compose.add_prefix(part, f"{FRONT_END}{name}/", **apart)
    nodes, given = [*part.graph.node, *model.graph.node], list(model.graph.input)
    place = next(index for index, entry in enumerate(given) if entry.name == name)
    given[place] = part.graph.input[0]
    for field, values in ((model.graph.node, nodes), (model.graph.input, given)):
        del field[:]
        field.extend(values)
    model.graph.initializer.extend(part.graph.initializer)
