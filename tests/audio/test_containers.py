"""Headers reveal the format, and whether a file is complete."""

import io
import struct

import numpy as np
import pytest
import soundfile

from earmark.audio.containers import ffmpeg_format, mp3_states_length, ogg_is_cut, sample_extent

TONE = (0.3 * np.sin(np.arange(9000) / 7)).astype(np.float32)


def encoded(kind, subtype=None, samples=TONE):
    target = io.BytesIO()
    soundfile.write(target, samples, 16000, format=kind, subtype=subtype)
    return target.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF"])
def test_extent_of_whole_and_cut_files(kind):
    content = encoded(kind, "PCM_24")
    whole = sample_extent(io.BytesIO(content))
    assert whole.promised == whole.present - (kind == "RF64") * (whole.present - whole.promised)
    assert abs(whole.promised - 27_000) <= 8  # AIFF counts an offset in
    cut = sample_extent(io.BytesIO(content[:-100]))
    assert cut.promised == whole.promised
    assert cut.present == whole.present - 100


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000])
def test_a_wav_from_a_pipe_promises_nothing(size):
    content = bytearray(encoded("WAV", "PCM_16"))
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    assert sample_extent(io.BytesIO(content)).promised is None


def test_other_files_have_no_extent():
    assert sample_extent(io.BytesIO(encoded("FLAC"))) is None
    assert sample_extent(io.BytesIO(b"RIFF")) is None
    assert sample_extent(io.BytesIO(b"")) is None


def test_a_file_of_empty_chunks_is_given_up():
    content = b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 100_000 + b"data\4\0\0\0abcd"
    assert sample_extent(io.BytesIO(content)) is None


def test_the_end_of_ogg():
    content = encoded("OGG", "VORBIS")
    assert not ogg_is_cut(io.BytesIO(content))
    for count in range(1, len(content) - 4, 97):
        assert ogg_is_cut(io.BytesIO(content[:-count]))
    assert not ogg_is_cut(io.BytesIO(encoded("WAV")))


def test_mp3_length():
    content = encoded("MP3")
    assert mp3_states_length(io.BytesIO(content))
    tagged = b"ID3\x04\0\0" + bytes([0, 0, 2, 1]) + bytes(257) + content
    assert mp3_states_length(io.BytesIO(tagged))
    assert not mp3_states_length(io.BytesIO(content.replace(b"Info", bytes(4)).replace(b"Xing", bytes(4))))


@pytest.mark.parametrize(
    ("head", "suffix", "expected"),
    [
        (b"\0\0\0\x1cftypisom", ".bin", ("mov", None)),
        (b"\x1a\x45\xdf\xa3", ".webm", ("matroska", "matroska")),
        (b"ID3\x04\0\0\0\0\0\x03abc\xff\xf1P", ".aac", ("aac", "aac")),
        (b"\xff\xfb\x90", ".mp3", (None, None)),
        (b"garbage", ".M4A", (None, "mov")),
        (b"", "", (None, None)),
    ],
)
def test_ffmpeg_format(head, suffix, expected):
    assert ffmpeg_format(io.BytesIO(head), suffix) == expected
