"""What a network in PyTorch answers on many clips, the way the tagger would.

Conventions: windows and padding follow the record's rules (:mod:`earmark.audio`); a clip's scores are the
maximum over its windows where labels may co-occur, the mean where classes exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from earmark.audio import pad, plan_windows
from earmark.data.manifest import Clip
from earmark.data.reading import read_clip
from earmark.record import Padding, Task

Scores = NDArray[np.float32]


def clip_windows(
    clips: Iterable[Clip], sample_rate: int, length: int, padding: Padding
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Reads clips and cuts them into windows, one after the other.

    Yields:
        Position of the clip, and a window (time,) of ``length`` samples.
    """
    for index, clip in enumerate(clips):
        waveform = read_clip(clip, sample_rate)
        for start in plan_windows(len(waveform), length, length):
            mode: Padding = padding if len(waveform) < length else "zero"
            yield index, pad(waveform[start : start + length], length, mode)


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
        network: Answers (logits, embedding) on a log-mel; put into evaluation mode.
        front_end: Its front-end, from waveforms to such log-mels.
        windows: Position of the clip, from 0 without gaps, and one of its windows.
        task: How logits become scores, and windows a clip.
        batch_size: Windows a forward pass.

    Returns:
        float32, shape (clip, class).
    """
    network.eval()
    owners: list[int] = []
    scores: list[Scores] = []
    for batch in _batches(windows, batch_size):
        owners += [index for index, _ in batch]
        logits = network(front_end(torch.from_numpy(np.stack([window for _, window in batch])))).logits
        answered = torch.sigmoid(logits) if task == "multi_label" else torch.softmax(logits, -1)
        scores.append(answered.float().numpy())
    table, owner = np.concatenate(scores), np.array(owners)
    return np.stack([_over_windows(table[owner == clip], task) for clip in range(owner[-1] + 1)])


def _over_windows(scores: Scores, task: Task) -> Scores:
    return np.asarray(scores.max(0) if task == "multi_label" else scores.mean(0))


def _batches(
    windows: Iterable[tuple[int, NDArray[np.float32]]], size: int
) -> Iterator[Sequence[tuple[int, NDArray[np.float32]]]]:
    batch = []
    for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
