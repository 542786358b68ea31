"""Samples in memory -> float32 channels, where their scale is known.

Conventions: full scale is 1; integers are scaled by the full scale of their type.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.audio.formats import MAX_CHANNELS
from earmark.errors import AudioError

_SCALES = {"int8": 2.0**-7, "uint8": 2.0**-7, "int16": 2.0**-15, "int32": 2.0**-31}
_REMEDY = "pass int16 (full scale 32768), int32 (full scale 2**31), uint8, or floats in [-1, 1]"


def to_channels(samples: ArrayLike, in_blocks: bool = False) -> NDArray[np.float32]:
    """Converts samples to float32.

    Args:
        samples: Floats in [-1, 1], or int8, uint8, int16 or int32 over their whole range, shape (time,) or
            (time, channel).
        in_blocks: Whether these are a block of a stream, which may be quieter and shorter than any recording.

    Returns:
        float32, shape (channel, time); a view where nothing had to be converted.

    Raises:
        AudioError: If the samples are of another shape, or of a type whose full scale is not known: lists of
            Python integers, int64, and int32 that hold 16 bits.
    """
    try:
        values = np.asarray(samples)
    except ValueError as error:  # lists of different lengths
        raise AudioError("samples must be of shape (time,) or (time, channel)") from error
    name = values.dtype.name
    if values.ndim not in (1, 2) or values.dtype.kind not in "fiub" or values.shape[1:] == (0,):
        raise AudioError(
            "samples must be numbers in [-1, 1] of shape (time,) or (time, channel), "
            f"got {name} of shape {values.shape}"
        )
    most_channels = MAX_CHANNELS if in_blocks else len(values)
    if values.ndim == 2 and values.shape[1] > most_channels:
        raise AudioError(
            f"samples must be of shape (time, channel), got {values.shape}: more channels than samples"
        )
    channels = values.T if values.ndim == 2 else values[np.newaxis]
    if values.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # reported where samples are checked
            return channels.astype(np.float32, copy=False)
    if name not in _SCALES:
        raise AudioError(f"the full scale of {name} samples is not known: {_REMEDY}")
    if name == "int32" and not in_blocks and 0 < _peak(channels) <= 32768:
        raise AudioError(
            f"int32 samples of at most {_peak(channels)} look like 16 bits, whose full scale is 32768: "
            "pass samples.astype('int16')"
        )
    scaled: NDArray[np.float32] = np.multiply(
        channels, np.float32(_SCALES[name]), dtype=np.float32, casting="unsafe"
    )
    return scaled - np.float32(1) if name == "uint8" else scaled


def _peak(values: NDArray[np.int32]) -> int:
    return max(int(values.max()), -int(values.min())) if values.size else 0
