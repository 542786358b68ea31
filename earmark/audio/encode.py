"""Samples -> the bytes of an audio file, the same bytes every time.

Conventions: samples are int16 ``(time,)``, mono; k stands for k / 32768, which is what reading gives back
from FLAC exactly. MP3 and Opus lose something; their decoders give back as many samples as were encoded.
"""

from __future__ import annotations

import io
import struct
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from earmark.audio import ogg
from earmark.errors import AudioError

Codec = Literal["flac", "mp3", "opus"]
SUFFIXES: dict[Codec, str] = {"flac": ".flac", "mp3": ".mp3", "opus": ".ogg"}
"""What the names of such files end in."""
_FORMATS: dict[Codec, tuple[str, str]] = {
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
}
_RATES: dict[Codec, tuple[int, ...]] = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
}


def check_rate(codec: Codec, sample_rate: int) -> None:
    """Refuses a rate that a codec does not know.

    Raises:
        AudioError: Naming those that it knows.
    """
    rates = _RATES.get(codec)
    if rates and sample_rate not in rates:
        raise AudioError(f"{codec} knows no {sample_rate} Hz: choose among {', '.join(map(str, rates))}")
    if not 1 <= sample_rate <= 655350:  # 20 bits of FLAC's header, in tens of Hz above 65535
        raise AudioError(f"{codec} knows no {sample_rate} Hz")


def to_int16(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples in 16 bits: k / 32768 becomes k, what is louder than full scale is clipped."""
    return np.asarray(np.clip(np.rint(waveform * np.float32(32768)), -32768, 32767), np.int16)


def encode(samples: NDArray[np.int16], sample_rate: int, codec: Codec) -> bytes:
    """Encodes a clip.

    Args:
        samples: int16, shape (time,), at least one.
        sample_rate: In Hz, one that the codec knows.
        codec: "flac", "mp3" or "opus".

    Returns:
        The file. The same samples give the same bytes.

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
    return _without_chance(content) if codec == "opus" else content


def is_encoded(content: bytes, sample_rate: int, codec: Codec) -> bool:
    """Whether bytes are a mono file of this codec and rate already."""
    try:
        sound = soundfile.info(io.BytesIO(content))
    except (soundfile.LibsndfileError, RuntimeError):
        return False
    wanted = (*_FORMATS[codec], 1, sample_rate)
    return (sound.format, sound.subtype, sound.channels, sound.samplerate) == wanted


def _without_chance(content: bytes) -> bytes:
    """An Ogg file whose stream has the number 1 instead of a random one."""
    same = [page[:14] + struct.pack("<I", 1) + page[18:] for page in ogg.pages(content)]
    return b"".join(page[:22] + ogg.checksum(page) + page[26:] for page in same)
