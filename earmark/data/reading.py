"""A clip of a manifest -> its waveform.

Conventions: mono float32 (time,) at the rate that is asked for. mp3 in HDF5 files is decoded by libsndfile,
which gives what FFmpeg gives within 2e-6 and takes the mean of the channels.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from earmark.audio import load_audio
from earmark.data.hdf5 import read_member
from earmark.data.manifest import Clip


class _Named(io.BytesIO):
    """Bytes that an error can name."""

    name = ""


def read_clip(clip: Clip, sample_rate: int) -> NDArray[np.float32]:
    """Reads a clip, whether it is a file or a row of an HDF5 file.

    Source: for HDF5 the golden hdf5/decoded_item0.npy.

    Args:
        clip: Of a manifest or a corpus.
        sample_rate: Wanted, in Hz.

    Returns:
        float32, shape (time,), at least one sample.

    Raises:
        AudioError: If the recording cannot be read.
        DataError: If there is no such HDF5 file or row.
    """
    if clip.member is None:
        return load_audio(clip.path, sample_rate)[0]
    recording = _Named(read_member(clip.path, clip.member))
    recording.name = f"{clip.path}, row {clip.member} ({clip.id})"
    return load_audio(recording, sample_rate)[0]
