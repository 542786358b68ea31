"""What a network in PyTorch answers on many clips, the way the tagger would.

Conventions: windows and padding follow the record's rules (:mod:`earmark.audio`); a clip's scores are the
maximum over its windows where labels may co-occur, the mean where classes exclude each other. A clip may also
be heard as a whole, or in its middle only: see :func:`cut`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from earmark.audio import pad, plan_windows
from earmark.data.manifest import Clip
from earmark.data.read_clip import read_clip
from earmark.model_file.info import Padding, Task

Scores = NDArray[np.float32]
Hearing = Literal["windows", "whole", "center"]


def clip_windows(
    clips: Iterable[Clip],
    sample_rate: int,
    length: int,
    padding: Padding,
    *,
    hear: Hearing = "windows",
    shortest: int = 1,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Reads clips and cuts them into windows, one after the other.

    Args:
        clips: What to read.
        sample_rate: Of the windows, in Hz.
        length: As for :func:`cut`.
        padding: As for :func:`cut`.
        hear: As for :func:`cut`.
        shortest: As for :func:`cut`.

    Yields:
        Position of the clip, and a window (time,).

    Raises:
        AudioError: If a clip cannot be read.
    """
    for index, clip in enumerate(clips):
        waveform = read_clip(clip, sample_rate)
        for window in cut(waveform, length, padding, hear, shortest):
            yield index, window


def cut(
    waveform: Scores, length: int, padding: Padding, hear: Hearing = "windows", shortest: int = 1
) -> list[Scores]:
    """What a network hears of a clip.

    Args:
        waveform: Shape (time,), at least one sample.
        length: Of a window, in samples.
        padding: How a clip shorter than a window is filled up.
        hear: "windows": one after the other, what is left at the end is filled with silence, as the tagger
            does. "whole": all of it as one window, however long it is. "center": one window from its middle.
        shortest: "whole" fills a clip up to so many samples; the front-end's ``min_samples`` serves.

    Returns:
        Windows of ``length`` samples; "whole": one of its own length.
    """
    if hear == "whole":
        return [pad(waveform, shortest, padding)]
    excess = len(waveform) - length
    if hear == "center" and excess > 0:
        return [waveform[excess // 2 :][:length]]
    mode: Padding = padding if excess < 0 else "zero"
    starts = plan_windows(len(waveform), length, length)
    return [pad(waveform[start : start + length], length, mode) for start in starts]


@torch.no_grad()
def predict(
    network: nn.Module,
    front_end: nn.Module,
    windows: Iterable[tuple[int, NDArray[np.float32]]],
    task: Task,
    batch_size: int = 16,
) -> Scores:
    """Scores of clips given as windows.

    Args:
        network: Answers (logits, embedding) on a log-mel; put into evaluation mode. Its device computes.
        front_end: Its front-end, from waveforms to such log-mels, on the same device.
        windows: Position of the clip, from 0 without gaps, and one of its windows.
        task: How logits become scores, and windows a clip.
        batch_size: Windows a forward pass; those of another length than the one before begin a new pass.

    Returns:
        float32, shape (clip, class).
    """
    network.eval()
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    owners: list[int] = []
    scores: list[Scores] = []
    for batch in _batches(windows, batch_size):
        owners += [index for index, _ in batch]
        heard = torch.from_numpy(np.stack([window for _, window in batch])).to(device)
        logits = network(front_end(heard)).logits
        answered = torch.sigmoid(logits) if task == "multi_label" else torch.softmax(logits, -1)
        scores.append(answered.float().cpu().numpy())
    table, owner = np.concatenate(scores), np.array(owners)
    return np.stack([_over_windows(table[owner == clip], task) for clip in range(owner[-1] + 1)])


def _over_windows(scores: Scores, task: Task) -> Scores:
    return np.asarray(scores.max(0) if task == "multi_label" else scores.mean(0))


def _batches(
    windows: Iterable[tuple[int, NDArray[np.float32]]], size: int
) -> Iterator[Sequence[tuple[int, NDArray[np.float32]]]]:
    batch: list[tuple[int, NDArray[np.float32]]] = []
    for window in windows:
        if len(batch) == size or (batch and len(batch[0][1]) != len(window[1])):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
