"""Encodes clips to FLAC, MP3, Opus or WAV, reproducibly.

Conventions: samples are int16 ``(time,)``, mono; k represents k / 32768. FLAC and WAV are lossless; decoding
MP3 and Opus returns as many samples as were encoded.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from earmark.errors import AudioError

Codec = Literal["flac", "mp3", "opus", "wav"]
SUFFIXES: dict[Codec, str] = {"flac": ".flac", "mp3": ".mp3", "opus": ".ogg", "wav": ".wav"}
"""File name suffixes."""
_FORMATS: dict[Codec, tuple[str, str]] = {
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "wav": ("WAV", "PCM_16"),
}
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_RATES: dict[Codec, tuple[int, ...]] = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
}


def check_rate(codec: Codec, sample_rate: int) -> None:
    """Checks that a codec supports a sample rate.

    Raises:
        AudioError: If it does not; lists the supported ones.
    """
    rates = _RATES.get(codec)
    if rates and sample_rate not in rates:
        raise AudioError(
            f"{codec} does not support {sample_rate} Hz: choose from {', '.join(map(str, rates))}"
        )
    if not 1 <= sample_rate <= 655350:  # 20 bits of FLAC's header, in tens of Hz above 65535
        raise AudioError(f"{codec} supports 1 to 655350 Hz, got {sample_rate}")


def to_int16(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """Converts samples to int16: k / 32768 becomes k; values beyond full scale are clipped."""
    return np.asarray(np.clip(np.rint(waveform * np.float32(32768)), -32768, 32767), np.int16)


def encode(samples: NDArray[np.int16], sample_rate: int, codec: Codec) -> bytes:
    """Encodes a clip.

    Args:
        samples: int16, shape (time,), not empty.
        sample_rate: In Hz, supported by the codec (:func:`check_rate`).
        codec: "flac", "mp3", "opus" or "wav".

    Returns:
        The content of the file; the same for the same samples.

    Raises:
        AudioError: If the codec cannot encode them.
    """
    kind, subtype = _FORMATS[codec]
    stream = io.BytesIO()
    try:
        soundfile.write(stream, samples, sample_rate, format=kind, subtype=subtype)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(
            f"{codec} cannot encode {len(samples)} samples at {sample_rate} Hz ({error})"
        ) from None
    content = stream.getvalue()
    return _with_fixed_serial(content) if codec == "opus" else content


def is_encoded(content: bytes, sample_rate: int, codec: Codec) -> bool:
    """Whether bytes are a mono file of this codec and sample rate."""
    try:
        sound = soundfile.info(io.BytesIO(content))
    except (soundfile.LibsndfileError, RuntimeError):
        return False
    wanted = (*_FORMATS[codec], 1, sample_rate)
    return (sound.format, sound.subtype, sound.channels, sound.samplerate) == wanted


def _with_fixed_serial(content: bytes) -> bytes:
    """An Ogg file with 1 in place of its random stream serial number."""
    same = [page[:14] + struct.pack("<I", 1) + page[18:] for page in _pages(content)]
    return b"".join(page[:22] + _checksum(page) + page[26:] for page in same)


def _pages(content: bytes) -> Iterator[bytes]:
    """The pages of an Ogg file (RFC 3533, section 6).

    A page has its stream's number at byte 14, its checksum at 22, its number of segments at 26, then their
    sizes and contents.
    """
    at = 0
    while at < len(content):
        body = at + 27 + content[at + 26]
        end = body + sum(content[at + 27 : body])
        yield content[at:end]
        at = end


def _checksum(page: bytes) -> bytes:
    """A page's CRC: zlib's polynomial, bits of each byte reversed, initial value 0."""
    reversed_bits = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED_BITS)
    found = zlib.crc32(reversed_bits, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return struct.pack(">I", found).translate(_REVERSED_BITS)
