"""Cuts a waveform, whole or as a stream, into the windows that a network sees.

Conventions: mono float32 ``(time,)``; positions and lengths in samples at the model's rate. Window i starts
at i * hop. The tail is kept: window i > 0 exists where samples follow window i - 1 and, if hop is greater
than length, the gap behind it. Rule held by golden/efficientat/pipeline/window_plan.json, except that a clip
shorter than one window still has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earmark.errors import AudioError

Padding = Literal["repeat", "zero"]


@dataclass(frozen=True, eq=False)
class WindowChunk:
    """A few consecutive windows of a clip, to be scored together.

    Attributes:
        waveform: float32, shape (time,), contiguous; ``waveform[s : s + length]`` is a window for each s in
            ``starts``. It may be a view of the blocks it came from: read it, do not write to it.
        starts: Where each window starts within ``waveform``, in samples.
        first_sample: Where ``waveform`` starts within the clip, in samples.
        num_samples: Samples of the clip read by now, without padding; in the last chunk, of the whole clip.
    """

    waveform: NDArray[np.float32]
    starts: tuple[int, ...]
    first_sample: int
    num_samples: int


def plan_windows(num_samples: int, length: int, hop: int) -> list[int]:
    """Says where the windows of a clip start.

    Source: golden/efficientat/pipeline/window_plan.json: ``max(1, ceil((num_samples - length) / hop) + 1)``
    windows, less those that would start behind the end, as may be where hop is greater than length.

    Args:
        num_samples: Samples of the clip, at least 1.
        length: Samples of a window, at least 1.
        hop: Samples from one window's start to the next one's, at least 1.

    Returns:
        The start of each window in samples, ascending from 0.

    Raises:
        AudioError: If the clip holds no samples.
        ValueError: If length or hop is below 1.
    """
    _check_sizes(length, hop)
    if num_samples < 1:
        raise AudioError("a clip of no samples has no windows")
    beyond = max(0, num_samples - max(length, hop))
    return [index * hop for index in range(1 + -(-beyond // hop))]


def pad(waveform: NDArray[np.float32], length: int, mode: Padding) -> NDArray[np.float32]:
    """Fills a short waveform up to a length.

    Args:
        waveform: float32, shape (time,), at least one sample.
        length: Samples wanted.
        mode: "repeat" plays the waveform again and again and cuts it at length, "zero" appends silence.

    Returns:
        float32, shape (max(time, length),); the same array where it is long enough.

    Raises:
        AudioError: If the waveform holds no samples.
        ValueError: If the mode is neither.
    """
    _check_padding(mode)
    if not waveform.size:
        raise AudioError("a clip of no samples cannot be padded")
    if waveform.size >= length:
        return waveform
    if mode == "repeat":
        return np.resize(waveform, length)
    return np.concatenate([waveform, np.zeros(length - waveform.size, waveform.dtype)])


def window_chunks(
    blocks: Iterable[NDArray[np.float32]], length: int, hop: int, padding: Padding, windows_per_chunk: int
) -> Iterator[WindowChunk]:
    """Cuts a stream into the same windows as ``plan_windows`` cuts the whole clip into.

    A chunk is held back until it is known whether it is the last one. At most a chunk and a block are in
    memory; where hop is greater than length, a chunk has one window and the gaps are dropped.

    Args:
        blocks: float32, each of shape (time,), of any sizes; not to be written to afterwards.
        length: Samples of a window, at least 1.
        hop: Samples from one window's start to the next one's, at least 1.
        padding: How a clip shorter than one window is filled up; a longer one's last window ends in silence.
        windows_per_chunk: Windows in each chunk but the last, at least 1.

    Yields:
        The chunks in order, at least one.

    Raises:
        AudioError: If the blocks hold no samples at all.
        ValueError: If length, hop or windows_per_chunk is below 1, or the padding has no such name.
    """
    _check_sizes(length, hop, windows_per_chunk)
    _check_padding(padding)
    has_gaps = hop > length
    last_start = 0 if has_gaps else (windows_per_chunk - 1) * hop
    span = last_start + length
    starts = tuple(range(0, last_start + 1, hop))
    held: list[NDArray[np.float32]] = []  # the clip from sample ``first`` on
    first = received = 0
    for block in blocks:
        begin, received = received, received + block.size
        held.append(block)
        while received > first + last_start + max(length, hop):  # so a window follows this chunk
            joined = _join(held)
            yield WindowChunk(joined[:span], starts, first, received)
            first += last_start + hop
            held = [block[first - begin :] if has_gaps else joined[last_start + hop :]]
        if has_gaps:
            held = [_join(held)[:length]]
    if not received:
        raise AudioError("the recording holds no samples")
    starts = tuple(plan_windows(received - first, length, hop))
    waveform = pad(_join(held), length, padding if not first else "zero")
    yield WindowChunk(pad(waveform, starts[-1] + length, "zero"), starts, first, received)


def _join(pieces: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One contiguous array, without a copy where there is one already (a long array given as one block)."""
    return np.ascontiguousarray(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))


def _check_padding(mode: str) -> None:
    if mode not in ("repeat", "zero"):
        raise ValueError(f"padding must be repeat or zero, not {mode!r}")


def _check_sizes(*sizes: int) -> None:
    if min(sizes) < 1:
        raise ValueError(f"window length, hop and count must be at least 1, not {min(sizes)}")
