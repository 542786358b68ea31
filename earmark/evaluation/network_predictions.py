"""Predictions of a PyTorch network for many clips, as a tagger would make them.

Conventions: windows, padding and pooling follow the rules of the model info (:mod:`earmark.audio`,
:mod:`earmark.inference.pooling`), but windows are batched and the network's device computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from earmark.audio import pad, plan_windows
from earmark.data.manifest import Clip
from earmark.data.read_clip import read_clip, read_each
from earmark.errors import DataError
from earmark.evaluation.predictions import Scores, WindowMode
from earmark.inference.pooling import default_pooling, pool_windows
from earmark.model_file.info import Padding, Task

IndexedWindow = tuple[int, NDArray[np.float32]]
"""Position of a clip, and a window of it."""


def clip_windows(
    clips: Iterable[Clip],
    sample_rate: int,
    length: int,
    padding: Padding,
    *,
    windows: WindowMode = "all",
    min_samples: int = 1,
    on_error: Callable[[int, str], object] | None = None,
    read: Callable[[Clip], Scores] | None = None,
) -> Iterator[IndexedWindow]:
    """Reads clips and cuts them into windows.

    Args:
        clips: Clips to read.
        sample_rate: Of the windows, in Hz.
        length: As for :func:`cut_windows`.
        padding: As for :func:`cut_windows`.
        windows: As for :func:`cut_windows`.
        min_samples: As for :func:`cut_windows`.
        on_error: Called with the position of a clip that cannot be read, and the reason; it has no windows.
            None: the error is raised.
        read: Reads a clip, at the sample rate; None: from its file.

    Yields:
        Position of the clip, and a window (time,).

    Raises:
        EarmarkError: If a clip cannot be read, unless there is ``on_error``.
    """
    for index, waveform in read_each(clips, read or partial(read_clip, sample_rate=sample_rate), on_error):
        for window in cut_windows(waveform, length, padding, windows, min_samples):
            yield index, window


def cut_windows(
    waveform: Scores, length: int, padding: Padding, windows: WindowMode = "all", min_samples: int = 1
) -> list[Scores]:
    """Cuts a clip into windows.

    Args:
        waveform: Shape (time,), at least one sample.
        length: Of a window, in samples.
        padding: Of a clip that is shorter than a window.
        windows: "all": one after the other, the last one ending with the clip, as the tagger does. "whole":
            the whole clip as one window. "center": one window from its centre.
        min_samples: "whole" pads a clip to this length; see the front-end's ``min_samples``.

    Returns:
        Windows of ``length`` samples; "whole": one of the clip's own length.
    """
    if windows == "whole":
        return [pad(waveform, min_samples, padding)]
    excess = len(waveform) - length
    if windows == "center" and excess > 0:
        return [waveform[excess // 2 :][:length]]
    starts = plan_windows(len(waveform), length, length)
    return [pad(waveform[start : start + length], length, padding) for start in starts]


@torch.no_grad()
def predict_windows(
    network: nn.Module,
    front_end: nn.Module,
    windows: Iterable[IndexedWindow],
    task: Task,
    batch_size: int = 16,
    num_clips: int | None = None,
) -> Scores:
    """Computes the scores of clips that are given as windows.

    Args:
        network: Returns (logits, embedding) of a log-mel; is put into evaluation mode.
        front_end: From waveforms to such log-mels, on the network's device.
        windows: Position of the clip, from 0, and one of its windows.
        task: Decides between sigmoid and softmax, and how windows are pooled.
        batch_size: Windows per forward pass; windows of another length begin a new pass.
        num_clips: Rows of the result; None: up to the last clip with a window, at least one.

    Returns:
        float32, shape (clip, class); NaN for a clip without windows.

    Raises:
        DataError: If no clip has a window.
    """
    network.eval()
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    owners: list[int] = []
    scores: list[Scores] = []
    for batch in _batches(windows, batch_size):
        owners += [index for index, _ in batch]
        waveforms = torch.from_numpy(np.stack([window for _, window in batch])).to(device)
        logits = network(front_end(waveforms)).logits
        outputs = torch.sigmoid(logits) if task == "multi_label" else torch.softmax(logits, -1)
        scores.append(outputs.float().cpu().numpy())
    if not scores:
        raise DataError("none of the evaluation clips can be read")
    table, owner, pooling = np.concatenate(scores), np.array(owners), default_pooling(task)
    found = np.full((num_clips or owner[-1] + 1, table.shape[1]), np.nan, np.float32)
    for clip in np.unique(owner):
        found[clip] = pool_windows(table[owner == clip], pooling)
    return found


def _batches(windows: Iterable[IndexedWindow], size: int) -> Iterator[Sequence[IndexedWindow]]:
    batch: list[IndexedWindow] = []
    for window in windows:
        if len(batch) == size or (batch and len(batch[0][1]) != len(window[1])):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
