"""A clip of a manifest -> its waveform, or a piece of it.

Conventions: mono float32 (time,) at the rate that is asked for. mp3 in HDF5 files is decoded by libsndfile,
which gives what FFmpeg gives within 2e-6 and takes the mean of the channels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.audio import load_audio, load_piece
from earmark.data.hdf5 import read_member
from earmark.data.manifest import Clip
from earmark.data.shards.index import read_range
from earmark.data.shards.shard_files import read_array, read_array_piece
from earmark.errors import AudioError


class _Named(io.BytesIO):
    """Bytes that an error can name."""

    name = ""


def read_clip(clip: Clip, sample_rate: int) -> NDArray[np.float32]:
    """Reads a clip, whether it is a file, a row of an HDF5 file, or in a shard of a pack.

    Source: for HDF5 the golden hdf5/decoded_item0.npy.

    Args:
        clip: Of a manifest, a corpus or a pack.
        sample_rate: Wanted, in Hz.

    Returns:
        float32, shape (time,), at least one sample.

    Raises:
        AudioError: If the recording cannot be read, or is cut off within a file of many.
        DataError: If there is no such file or row, or an index is older than its shard.
    """
    if clip.member is not None and clip.path.suffix == ".npy":
        return read_array(clip.path, clip.member, sample_rate)
    source = recording(clip)
    return _undamaged(source, *load_audio(source, sample_rate))


def read_piece(clip: Clip, sample_rate: int, length: int, start: Callable[[int], int]) -> NDArray[np.float32]:
    """Reads a piece of a longer clip, without decoding the rest where its coder allows that.

    Args:
        clip: As for :func:`read_clip`.
        sample_rate: Wanted, in Hz.
        length: Samples wanted at that rate.
        start: From the samples that are too many, above 0, to the first one that is wanted.

    Returns:
        float32, shape (time,): ``length`` samples, as cut from :func:`read_clip` (exactly where nothing is
        resampled and the coder is lossless, else within 1e-6); all of a clip that is not longer.

    Raises:
        AudioError: As :func:`read_clip`.
        DataError: As :func:`read_clip`.
    """
    if clip.member is not None and clip.path.suffix == ".npy":
        return read_array_piece(clip.path, clip.member, sample_rate, length, start)
    source = recording(clip)
    return _undamaged(source, *load_piece(source, sample_rate, length, start))


def _undamaged(
    source: Path | io.BytesIO, waveform: NDArray[np.float32], warnings: list[str]
) -> NDArray[np.float32]:
    """Refuses what is cut off in a file of many; a file of its own is taken as far as it goes."""
    if warnings and isinstance(source, _Named):
        raise AudioError(f"{source.name}: {warnings[0]}")
    return waveform


def recording(clip: Clip) -> Path | io.BytesIO:
    """What a decoder takes: the clip's file, or its bytes where a file holds many.

    Raises:
        AudioError: If its bytes are damaged.
        DataError: As :func:`read_clip`.
    """
    if clip.member is None:
        return clip.path
    in_shard = clip.path.suffix == ".tar"
    found = _Named(read_range(clip.path, clip.member) if in_shard else read_member(clip.path, clip.member))
    found.name = f"{clip.path}, {'clip' if in_shard else 'row'} {clip.member} ({clip.id})"
    return found
