"""Encoding is reproducible, and sections of encoded clips decode as they do within the whole."""

import numpy as np
import pytest

from earmark.audio import load_audio, load_piece
from earmark.audio.encode import check_rate, encode, is_encoded, to_int16
from earmark.errors import AudioError

RATE = 48000


def sound(count: int) -> np.ndarray:
    """A siren in noise that comes and goes, int16 (time,)."""
    time = np.arange(count) / RATE
    siren = 0.5 * np.sin(2000 * np.pi * time + 300 * np.sin(3 * time)) * (np.sin(5 * time) > 0)
    noise = 0.2 * np.random.default_rng(count).standard_normal(count) * np.sin(2 * time) ** 8
    return to_int16((siren + noise).astype(np.float32))


@pytest.mark.parametrize("codec", ["flac", "mp3", "opus"])
def test_encoding_is_reproducible_and_keeps_the_length(codec):
    samples = sound(RATE)
    content = encode(samples, RATE, codec)
    assert encode(samples, RATE, codec) == content
    assert is_encoded(content, RATE, codec)
    assert not is_encoded(content, 16000, codec)
    waveform, warnings = load_audio(content, RATE)
    assert (waveform.shape, warnings) == ((RATE,), [])
    if codec == "flac":
        np.testing.assert_array_equal(to_int16(waveform), samples)


@pytest.mark.parametrize("codec", ["flac", "mp3", "opus"])
def test_a_section_equals_that_of_the_whole(codec):
    content = encode(sound(4 * RATE), RATE, codec)
    whole = load_audio(content, RATE)[0]
    for first in [0, 1, 647, 648, *range(1000, 3 * RATE, 9973), 3 * RATE]:
        section = load_piece(content, RATE, RATE, {3 * RATE: first}.__getitem__)[0]
        np.testing.assert_allclose(section, whole[first:][:RATE], rtol=0, atol=5e-6)


@pytest.mark.parametrize(("codec", "rate"), [("mp3", 7000), ("opus", 44100), ("flac", 0), ("flac", 10**6)])
def test_unsupported_rates_are_refused(codec, rate):
    with pytest.raises(AudioError):
        check_rate(codec, rate)
