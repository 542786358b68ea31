"""Reads uncompressed samples, at any position.

Conventions: samples are float32, shape (channel, time): integers in [-1, 1), floats unscaled.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from earmark.audio.pcm_header import PcmHeader
from earmark.audio.sources import ByteRange

Floats = NDArray[np.float32]
_LONGEST_BLOCK = 1 << 16
_BLOCK_VALUES = 1 << 19
"""Values of a block at most, whatever the number of channels."""


class PcmReader:
    """A reader of uncompressed samples.

    Args:
        file: The file.
        header: Its header, with an encoding.
    """

    def __init__(self, file: ByteRange, header: PcmHeader) -> None:
        assert header.format.encoding
        self._file, self._header = file, header
        self._encoding = header.format.encoding
        self.channels = header.format.channels
        self._frame_bytes = int(self._encoding[2:]) * self.channels
        self.sample_rate = header.format.sample_rate
        self.samples = header.size // self._frame_bytes
        stated = header.stated
        self.duration_s = None if stated is None else stated // self._frame_bytes / self.sample_rate
        self.end = header.end
        self.faults: list[str] = []
        self.notes: list[str] = []

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yields all samples in order, each block with its rate in Hz."""
        count = max(1, min(_LONGEST_BLOCK, _BLOCK_VALUES // self.channels))
        for first in range(0, self.samples, count):
            block = self.read(first, min(count, self.samples - first))
            yield self.sample_rate, block
            if block.shape[1] < min(count, self.samples - first):
                break
        read_s = self.samples / self.sample_rate
        if self._header.stated is not None and self._header.size < self._header.stated:
            self.faults.append(f"the file is cut off: {read_s:.2f} of {self.duration_s:.2f} s could be read")
        if not self._header.completed:
            self.notes.append(
                f"the header was never completed: {read_s:.2f} s were found up to the end of the file"
            )

    def read(self, first: int, count: int) -> Floats:
        """Reads ``count`` samples from the sample ``first`` on; fewer where the file ends."""
        size = self._frame_bytes
        content = self._file.read_at(self._header.first + first * size, count * size)
        content = content[: len(content) // size * size]
        return decode(content, self._encoding).reshape(-1, self.channels).T


def decode(content: bytes, encoding: str) -> Floats:
    """Converts uncompressed samples to float32.

    Args:
        content: The bytes.
        encoding: NumPy's name of their type with its byte order, or "<i3" or ">i3" for 24 bits.

    Returns:
        float32, shape (value,).
    """
    order, kind, width = encoding[0], encoding[1], int(encoding[2:])
    if width == 3:  # the three upper bytes of 32 bits
        padded = np.zeros((len(content) // 3, 4), np.uint8)
        padded[:, slice(1, 4) if order == "<" else slice(0, 3)] = np.frombuffer(content, np.uint8).reshape(
            -1, 3
        )
        values, width = padded.view(f"{order}i4")[:, 0], 4
    else:
        values = np.frombuffer(content, encoding)
    if kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # reported where samples are checked
            return values.astype(np.float32)
    scaled: Floats = np.multiply(
        values, np.float32(2.0 ** (1 - 8 * width)), dtype=np.float32, casting="unsafe"
    )
    return scaled - np.float32(1) if kind == "u" else scaled
