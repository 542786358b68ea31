"""Recordings of every format are decoded to mono float32; damaged and truncated ones are reported.

Without the folder ``shared`` beside the project, no real recordings are read.
"""

import builtins
import io
import os
import struct
import sys
import threading
import tracemalloc
import wave
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from earmark.audio import load_audio, load_piece, open_audio
from earmark.audio.resample import resample
from earmark.errors import AudioError

RATE = 16000
SWEEP = (0.5 * np.sin(np.cumsum(np.linspace(0.02, 1, 3 * RATE)))).astype(np.float32)
KINDS = [  # format, subtype, largest error
    ("WAV", "PCM_U8", 1 / 127),
    ("WAV", "PCM_16", 1e-4),
    ("WAV", "PCM_24", 1e-6),
    ("WAV", "PCM_32", 1e-7),
    ("WAV", "FLOAT", 0),
    ("WAV", "DOUBLE", 0),
    ("WAV", "ULAW", 0.02),
    ("WAV", "IMA_ADPCM", 0.3),
    ("WAVEX", "PCM_16", 1e-4),
    ("RF64", "PCM_16", 1e-4),
    ("W64", "PCM_16", 1e-4),
    ("AIFF", "PCM_S8", 1 / 127),
    ("AIFF", "PCM_24", 1e-6),
    ("AIFF", "FLOAT", 0),
    ("AU", "PCM_16", 1e-4),
    ("CAF", "PCM_16", 1e-4),
    ("CAF", "ALAC_16", 1e-4),
    ("FLAC", "PCM_16", 1e-4),
    ("FLAC", "PCM_24", 1e-6),
    ("OGG", "VORBIS", 0.2),
    ("OGG", "OPUS", None),
    ("MP3", "MPEG_LAYER_III", 0.2),
]


def encoded(kind="WAV", subtype=None, samples=SWEEP, rate=RATE):
    target = io.BytesIO()
    soundfile.write(target, samples, rate, format=kind, subtype=subtype)
    return target.getvalue()


def read(source, frames=None):
    with open_audio(source) as stream:
        blocks = list(stream.blocks(frames))
        return np.concatenate(blocks), stream


def message(source):
    with pytest.raises(AudioError) as caught:
        read(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


@contextmanager
def one_line_errors():
    """A recording may be refused, but only by an AudioError of one line."""
    try:
        yield
    except AudioError as error:
        if "\n" in str(error):
            pytest.fail(f"an error of several lines: {error}")


@pytest.mark.parametrize(("kind", "subtype", "tolerance"), KINDS)
def test_every_format(tmp_path, kind, subtype, tolerance):
    path = tmp_path / f"sweep.{kind.lower()}"
    path.write_bytes(encoded(kind, subtype))
    waveform, stream = read(path)
    rate = 48000 if subtype == "OPUS" else RATE  # at which Opus is always decoded
    assert (stream.sample_rate, stream.path, stream.warnings) == (rate, str(path), [])
    assert waveform.dtype == np.float32
    assert stream.samples_read == len(waveform)
    assert stream.duration_s == pytest.approx(len(waveform) / rate, abs=0.007 if subtype == "OPUS" else 0)
    assert abs(len(waveform) * RATE / rate - len(SWEEP)) <= (1500 if subtype == "IMA_ADPCM" else 0)
    if tolerance is not None:
        assert np.abs(waveform[: len(SWEEP)] - SWEEP).max() <= tolerance
    assert np.sqrt(np.mean(waveform**2)) == pytest.approx(np.sqrt(np.mean(SWEEP**2)), rel=0.1)


@pytest.mark.parametrize(("kind", "subtype", "_"), KINDS)
def test_the_block_size_does_not_matter(kind, subtype, _):
    content = encoded(kind, subtype)
    whole = read(content, 10**6)[0]
    for frames in (777, 4096):
        with open_audio(content) as stream:
            blocks = list(stream.blocks(frames))
        assert max(map(len, blocks)) <= frames
        assert np.array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC"])
@pytest.mark.parametrize("channels", [1, 3])
def test_int16_is_converted_as_libsndfile_does(kind, channels):
    values = np.arange(-(2**15), 2**15, dtype=np.int16)
    content = encoded(kind, "PCM_16", np.stack([np.roll(values, 7 * index) for index in range(channels)], 1))
    floats, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    waveform, _ = read(content, 5000)
    if channels == 1:
        np.testing.assert_array_equal(waveform, floats[:, 0])
    np.testing.assert_allclose(waveform, floats.mean(1), rtol=0, atol=1e-7)


def test_channels_are_averaged():
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (5000, 6)).astype(np.float32)
    waveform = read(encoded("WAV", "FLOAT", channels))[0]
    assert np.abs(waveform - channels.mean(1)).max() < 1e-7


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 192_000])
def test_rates(rate):
    waveform, stream = read(encoded(samples=SWEEP[:1000], rate=rate))
    assert stream.sample_rate == rate
    assert len(waveform) == 1000


def test_one_sample():
    waveform, stream = read(encoded("WAV", "FLOAT", SWEEP[7:8]))
    assert waveform.tolist() == [SWEEP[7]]
    assert stream.warnings == []


def test_float_levels_beyond_one_stay():
    assert np.abs(read(encoded("WAV", "FLOAT", 20 * SWEEP))[0]).max() > 9


def test_a_block_is_not_overwritten_by_the_next():
    with open_audio(encoded("WAV", "FLOAT")) as stream:
        first, second = list(stream.blocks(1000))[:2]
    assert np.array_equal(np.concatenate([first, second]), SWEEP[:2000])


@pytest.mark.parametrize(
    "name", ["Straße 街 🎺.flac", "-.wav", "a b'c\".ogg", "sweep", "sweep.raw", "sweep.mp4x"]
)
def test_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(encoded("FLAC"))
    assert np.abs(read(name)[0] - SWEEP).max() < 1e-4


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encoded("FLAC"))))
    waveform, stream = read("-")
    assert (len(waveform), stream.path, stream.sample_rate) == (len(SWEEP), "-", RATE)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert message("-") == "standard input: the file is empty (0 bytes)"


def test_bytes_and_open_files(tmp_path):
    path = tmp_path / "sweep.raw"
    path.write_bytes(encoded("FLAC"))
    with path.open("rb") as handle:
        handle.seek(99)
        assert len(read(handle)[0]) == len(SWEEP)
        assert not handle.closed
    assert len(read(memoryview(path.read_bytes()))[0]) == len(SWEEP)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(encoded("MP3"),))
    writer.start()
    assert len(read(pipe)[0]) == len(SWEEP)
    writer.join()


# --- errors


def test_errors_of_the_file(tmp_path, monkeypatch):
    missing = tmp_path / "missing.wav"
    assert message(missing) == f"{missing}: no such file"
    assert message(tmp_path) == f"{tmp_path}: this is a directory, not a recording"
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    assert message(empty) == f"{empty}: the file is empty (0 bytes)"
    assert "null" in message("a\0b.wav")
    assert message("two\nlines") == "'two\\nlines': no such file"

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", refuse)
    assert message(empty) == f"{empty}: cannot be read (permission denied)"


@pytest.mark.parametrize(
    "content", [b"x", b"hello, this is text\n" * 100, b"\x89PNG\r\n\x1a\n" + bytes(500), bytes(5000)]
)
def test_not_audio(tmp_path, content):
    path = tmp_path / "notes.wav"
    path.write_bytes(content)
    assert message(path) == f"{path}: not a format that can be read"


def test_no_samples():
    assert "no samples" in message(encoded("WAV", samples=SWEEP[:0]))
    assert "no samples" in message(encoded("AIFF", samples=SWEEP[:0]))


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "not a number (NaN)"), (np.inf, "infinite"), (-np.inf, "infinite")]
)
def test_nan_and_infinite_samples_are_refused(value, words):
    for samples in (SWEEP.copy(), np.stack([SWEEP, SWEEP], 1)):
        samples[20_000:20_010] = value
        for frames in (None, 1000, 20_001):
            with pytest.raises(AudioError) as caught:
                read(encoded("WAV", "FLOAT", samples), frames)
            assert str(caught.value).endswith(f"sample 20000, at 1.250 s, is {words}")


def test_infinite_samples_that_cancel_are_refused():
    samples = np.stack([SWEEP, SWEEP], 1)
    samples[9] = np.inf, -np.inf
    assert "sample 9, at 0.001 s" in message(encoded("WAV", "FLOAT", samples))


# --- truncated and damaged files

CUT = {
    "wav": encoded("WAV", "PCM_16"),
    "wav8": encoded("WAV", "PCM_U8"),
    "wav24": encoded("WAV", "PCM_24", np.stack([SWEEP, SWEEP / 2], 1)),
    "rf64": encoded("RF64", "PCM_16"),
    "w64": encoded("W64", "PCM_16"),
    "flac": encoded("FLAC", "PCM_16"),
    "mp3": encoded("MP3"),
    "ogg": encoded("OGG", "VORBIS", np.tile(SWEEP, 8)),
    "opus": encoded("OGG", "OPUS", np.tile(SWEEP, 8)),
    "aiff": encoded("AIFF", "PCM_16"),
    "caf": encoded("CAF", "PCM_16"),
}
CUT_SAMPLES = {name: len(read(content)[0]) for name, content in CUT.items()}


@pytest.mark.parametrize("name", CUT)
def test_cut_in_half(tmp_path, name):
    path = tmp_path / "half"
    path.write_bytes(CUT[name][: len(CUT[name]) // 2])
    whole = read(CUT[name])[0]
    waveform, stream = read(path)
    if name in ("ogg", "opus"):  # its pages are long
        assert 0.1 < len(waveform) / len(whole) < 0.6
        assert "the file is damaged or cut off: it could be read up to " in stream.warnings[0]
    else:
        assert 0.3 < len(waveform) / len(whole) < 0.7
        assert f"the file is cut off: {len(waveform) / RATE:.2f} of 3.00 s" in stream.warnings[0]
    assert len(stream.warnings) == 1
    assert stream.warnings[0].startswith(f"{path}: ")
    assert not stream.is_whole
    with pytest.raises(AudioError, match="half: the file is"):
        load_audio(path, RATE, whole=True)
    if name != "mp3":
        assert np.array_equal(waveform, whole[: len(waveform)])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CUT)), st.floats(0, 1, exclude_max=True), st.sampled_from([None, 1000]))
def test_cut_anywhere(name, share, frames):
    content = CUT[name][: int(share * len(CUT[name]))]
    with one_line_errors():
        waveform, stream = read(content, frames)
        assert len(waveform) > 0
        assert len(waveform) >= CUT_SAMPLES[name] or stream.warnings


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(CUT)), seed=st.integers(0, 2**32), count=st.integers(1, 40))
@example(name="wav", seed=230405, count=17)
def test_damaged_anywhere(name, seed, count):
    rng = np.random.default_rng(seed)
    content = np.frombuffer(CUT[name], np.uint8).copy()
    content[rng.integers(0, len(content), count)] = rng.integers(0, 256, count)
    content[rng.integers(0, 64, 2)] = rng.integers(0, 256, 2)
    with one_line_errors():
        assert read(content.tobytes())[0].ndim == 1


def test_samples_before_a_damaged_flac_frame_are_kept():
    content = CUT["flac"][: len(CUT["flac"]) // 2]
    for frames in (1000, 65_536):
        waveform, _ = read(content, frames)
        assert len(waveform) >= 24_576 - 4096
        assert np.abs(waveform - SWEEP[: len(waveform)]).max() < 1e-4


def test_a_flac_of_unknown_length_has_no_warning():
    content = bytearray(CUT["flac"])
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # as an encoder leaves it that writes into a pipe
    for frames in (1000, 65_536):
        waveform, stream = read(bytes(content), frames)
        assert (len(waveform), stream.warnings, stream.duration_s) == (len(SWEEP), [], None)


def test_a_wav_from_a_pipe_has_no_warning():
    content = bytearray(CUT["wav"])
    at = content.index(b"data") + 4
    content[at : at + 4] = content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    waveform, stream = read(bytes(content))
    assert (len(waveform), stream.warnings) == (len(SWEEP), [])


def test_a_wav_with_an_unfinished_header_is_read_to_its_end():
    content = bytearray(CUT["wav"])
    at = content.index(b"data") + 4
    content[at : at + 4] = content[4:8] = bytes(4)
    waveform, stream = read(bytes(content))
    assert np.abs(waveform - SWEEP).max() < 1e-4
    assert len(stream.warnings) == 1
    assert "the header was never completed: 3.00 s were found up to the end of the file" in stream.warnings[0]
    assert stream.is_whole


def test_an_empty_wav_with_metadata_after_it_is_empty():
    content = bytearray(encoded("WAV", samples=SWEEP[:0]) + b"LIST\4\0\0\0INFO")
    content[4:8] = struct.pack("<I", len(content) - 8)
    assert "no samples" in message(bytes(content))


@pytest.mark.parametrize("rate", [11025, 16000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_that_does_not_state_its_length_is_read_to_its_end(rate, channels):
    loud_then_soft = (
        np.random.default_rng(0).uniform(-0.9, 0.9, (3 * rate, channels))
        * np.linspace(0, 1, 3 * rate)[:, None]
    )
    whole = encoded("MP3", None, loud_then_soft, rate)
    expected = read(whole)[0]
    second_frame = whole.index(whole[:2], 4)  # so without the Info frame that counts the frames
    for tag in (b"", b"ID3\4\0\0\0\0\2\1" + bytes(257)):
        waveform, stream = read(tag + whole[second_frame:])
        assert (stream.sample_rate, stream.duration_s, stream.warnings) == (rate, None, [])
        assert len(expected) <= len(waveform) <= len(expected) + 4 * 1152
        assert np.sqrt(np.mean(waveform**2)) == pytest.approx(np.sqrt(np.mean(expected**2)), rel=0.1)


# --- memory


@pytest.mark.parametrize("frames", [None, 4096])
def test_memory_does_not_grow_with_length(tmp_path, frames):
    def peak(seconds):
        path = tmp_path / f"{seconds}.wav"
        with wave.open(str(path), "wb") as target:
            target.setparams((2, 2, 8000, 0, "NONE", ""))
            for _ in range(seconds):
                target.writeframes(bytes(4 * 8000))
        tracemalloc.start()
        with open_audio(path) as stream:
            count = sum(len(block) for block in stream.blocks(frames))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == seconds * 8000
        return size

    peak(1)
    assert peak(600) < peak(60) + 100_000


# --- load_audio


def test_load_audio(tmp_path):
    path = tmp_path / "half.wav"
    path.write_bytes(CUT["wav"][:50_044])
    waveform, warnings = load_audio(path, 32000)
    assert waveform.dtype == np.float32
    assert np.array_equal(waveform, resample(read(path)[0], RATE, 32000))
    assert warnings == [f"{path}: the file is cut off: 1.56 of 3.00 s could be read"]
    assert load_audio(CUT["flac"], RATE)[1] == []
    assert len(load_audio(encoded(samples=SWEEP[:1], rate=192_000), 32000)[0]) == 1


def test_real_recordings_have_no_warnings(shared):
    paths = sorted((shared / "data").rglob("*.*"))
    paths = [path for path in paths if path.suffix in (".wav", ".flac", ".ogg", ".mp3")][::29]
    assert len(paths) > 10
    for path in paths:
        waveform, stream = read(path)
        assert stream.warnings == []
        assert stream.duration_s == len(waveform) / stream.sample_rate


@pytest.mark.parametrize("seed", range(4))
def test_a_section_of_an_mp3_of_tiny_frames_equals_that_of_the_whole(seed):
    generator = np.random.default_rng(seed)
    samples = 1e-4 * generator.standard_normal(160_000)
    for first in generator.integers(0, 150_000, 8):
        length = int(generator.integers(50, 9000))
        samples[first : first + length] += generator.uniform(0.01, 0.3) * generator.standard_normal(length)
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1, 1), 24_000, format="MP3", compression_level=0.99)
    whole, _ = load_audio(stream.getvalue(), 24_000)
    for wanted in range(30_000, 130_000, 4321):
        piece, _ = load_piece(stream.getvalue(), 24_000, 20_000, lambda excess, first=wanted: first)
        np.testing.assert_allclose(piece, whole[wanted:][:20_000], rtol=0, atol=5e-6)


def test_of_a_recording_of_unknown_or_wrong_length_a_piece_is_cut_from_what_is_there(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    stream = io.BytesIO()
    soundfile.write(stream, samples, 16_000, format="FLAC")
    cut = stream.getvalue()[: len(stream.getvalue()) // 2]
    whole, warnings = load_audio(cut, 16_000)
    piece, also = load_piece(cut, 16_000, 3000, lambda excess: excess)
    assert warnings == also
    np.testing.assert_array_equal(piece, whole[-3000:])
    assert len(load_piece(cut, 16_000, 10**6, lambda excess: 0)[0]) == len(whole)
