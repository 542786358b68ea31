"""Reads the waveform of a clip, or a piece of it.

Conventions: mono float32 (time,) at the requested sample rate; channels are averaged. A damaged file of its
own is read as far as it goes, a damaged member of an HDF5 file or a shard is refused.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.audio import load_audio, load_piece
from earmark.data.hdf5 import read_member
from earmark.data.manifest import Clip
from earmark.data.shards.index import read_range
from earmark.data.shards.shard_files import read_array, read_array_piece
from earmark.errors import contained


def read_each(
    clips: Iterable[Clip],
    read: Callable[[Clip], NDArray[np.float32]],
    on_error: Callable[[int, str], object] | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Reads clips one after the other; one that cannot be read does not end it.

    Args:
        clips: Clips to read.
        read: Reads one.
        on_error: Called with the position of a clip that cannot be read, and the reason. None: the error is
            raised.

    Yields:
        Position of the clip, and what was read.

    Raises:
        EarmarkError: If a clip cannot be read, unless there is ``on_error``.
    """
    for index, clip in enumerate(clips):
        try:
            found = read(clip)
        except Exception as error:
            failure = contained(error, str(clip.path))
            if on_error is None:
                raise failure from None
            on_error(index, str(failure))
            continue
        yield index, found


class _Named(io.BytesIO):
    """Bytes with a name for errors."""

    name = ""


def read_clip(clip: Clip, sample_rate: int) -> NDArray[np.float32]:
    """Reads a clip: a file, a row of an HDF5 file, or a member of a shard.

    Source: for HDF5 the golden hdf5/decoded_item0.npy.

    Args:
        clip: Of a manifest, a corpus or a pack.
        sample_rate: Of the waveform, in Hz.

    Returns:
        float32, shape (time,), at least one sample.

    Raises:
        AudioError: If the clip cannot be decoded, or is truncated within an HDF5 file or shard.
        DataError: If there is no such file or row, or an index does not belong to its shard.
    """
    if clip.member is not None and clip.path.suffix == ".npy":
        return read_array(clip.path, clip.member, sample_rate)
    source = encoded_audio(clip)
    return load_audio(source, sample_rate, whole=isinstance(source, _Named))[0]


def read_piece(clip: Clip, sample_rate: int, length: int, start: Callable[[int], int]) -> NDArray[np.float32]:
    """Reads a piece of a clip, without decoding the rest where its codec allows that.

    Args:
        clip: As for :func:`read_clip`.
        sample_rate: Of the piece, in Hz.
        length: Of the piece, in samples.
        start: Returns the first sample of the piece, given the clip's length beyond ``length``.

    Returns:
        float32, shape (time,): ``length`` samples of :func:`read_clip` (exact for lossless codecs without
        resampling, else within 5e-6); the whole clip if it is not longer.

    Raises:
        AudioError: As :func:`read_clip`.
        DataError: As :func:`read_clip`.
    """
    if clip.member is not None and clip.path.suffix == ".npy":
        return read_array_piece(clip.path, clip.member, sample_rate, length, start)
    source = encoded_audio(clip)
    return load_piece(source, sample_rate, length, start, whole=isinstance(source, _Named))[0]


def encoded_audio(clip: Clip) -> Path | io.BytesIO:
    """The clip's file, or its bytes where a file holds many clips.

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
