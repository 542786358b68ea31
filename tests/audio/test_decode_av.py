"""Formats that only FFmpeg reads are decoded through PyAV."""

import io
import struct
import sys
import tracemalloc

import av
import numpy as np
import pytest

from earmark.audio import open_audio
from earmark.errors import AudioError

RATE = 48000
TONE = (0.4 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)).astype(np.float32)


def read(source, frames=None):
    with open_audio(source) as stream:
        return np.concatenate(list(stream.blocks(frames))), stream


def encode(path, kind, codec, seconds=4, options=None):
    with av.open(str(path), "w", format=kind, options=options or {}) as container:
        track = container.add_stream(codec, rate=RATE, layout="stereo")
        to_codec = av.AudioResampler(format=track.format, layout="stereo", rate=RATE)
        channels = np.stack([np.resize(TONE, seconds * RATE), np.zeros(seconds * RATE, np.float32)])
        frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        for piece in [*to_codec.resample(frame), *to_codec.resample(None), None]:
            container.mux(track.encode(piece))
    return path


KINDS = [
    ("a.m4a", "mp4", "aac", {}),
    ("fast.mp4", "mp4", "aac", {"movflags": "faststart"}),
    ("lossless.m4a", "mp4", "alac", {}),
    ("a.aac", "adts", "aac", {}),
    ("a.mka", "matroska", "libopus", {}),
    ("a.webm", "webm", "libopus", {}),
]


@pytest.mark.parametrize(("name", "kind", "codec", "options"), KINDS)
def test_kinds(tmp_path, name, kind, codec, options):
    path = encode(tmp_path / name, kind, codec, options=options)
    waveform, stream = read(path)
    assert (stream.sample_rate, stream.warnings, waveform.dtype) == (RATE, [], np.float32)
    assert len(waveform) == pytest.approx(len(TONE), abs=2500)
    middle = waveform[RATE : 3 * RATE]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.2, rel=0.03)  # the mean with the silent channel
    assert np.abs(np.fft.rfft(middle)).argmax() == 880
    assert stream.duration_s is None if name == "a.aac" else stream.duration_s == pytest.approx(4, abs=0.05)
    for frames in (1000, 50_000):
        with open_audio(path) as again:
            blocks = list(again.blocks(frames))
        assert {len(block) for block in blocks[:-1]} == {frames}
        assert np.array_equal(np.concatenate(blocks), waveform)


def test_lossless_is_lossless_and_drained(tmp_path):
    waveform = read(encode(tmp_path / "a.m4a", "mp4", "alac"))[0]
    assert len(waveform) == len(TONE)
    assert np.abs(waveform - TONE / 2).max() < 1e-4


def test_open_file_and_standard_input(tmp_path, monkeypatch):
    content = encode(tmp_path / "a.webm", "webm", "libopus").read_bytes()
    expected = read(content)[0]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert np.array_equal(read("-")[0], expected)


@pytest.mark.parametrize(("name", "kind", "codec", "options"), KINDS)
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.9])
def test_cut_off(tmp_path, name, kind, codec, options, share):
    content = encode(tmp_path / name, kind, codec, options=options).read_bytes()
    path = tmp_path / f"cut.{name}"
    path.write_bytes(content[: max(16, int(len(content) * share))])
    is_lost = share == 0.001 or name.endswith(".m4a")  # whose table of contents comes last
    if is_lost:
        with pytest.raises(AudioError, match=r"damaged|no samples|no audio track") as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        return
    waveform, stream = read(path)
    assert 0 < len(waveform) < len(TONE)
    assert "cut off" in stream.warnings[0]


def test_a_film_without_sound(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("mpeg4", rate=10)
        track.width = track.height = 32
        track.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux([*track.encode(frame), *track.encode(None)])
    with pytest.raises(AudioError, match=r"silent\.mp4: the file has no audio track"):
        open_audio(path)


def test_a_playlist_with_a_false_name_opens_nothing(tmp_path):
    encode(tmp_path / "secret.aac", "adts", "aac")
    path = tmp_path / "list.m4a"
    path.write_text("ffconcat version 1.0\nfile secret.aac\n")
    with pytest.raises(AudioError, match=r"list\.m4a: not a format"):
        open_audio(path)


def test_memory_does_not_grow_with_length(tmp_path):
    def peak(seconds):
        path = encode(tmp_path / f"{seconds}.m4a", "mp4", "aac", seconds)
        tracemalloc.start()
        with open_audio(path) as stream:
            count = sum(len(block) for block in stream.blocks())
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count >= seconds * RATE
        return size

    assert peak(60) < 4_000_000  # of 11.5 MB as mono float32


def test_integers_of_64_bits():
    samples = np.random.default_rng(0).normal(0, 0.1, (1000, 2))
    content = (samples * 2.0**63).astype("<i8").tobytes()
    form = struct.pack("<IHHIIHH", 16, 1, 2, 8000, 8000 * 16, 16, 64)
    head = b"RIFF" + struct.pack("<I", 36 + len(content)) + b"WAVEfmt " + form + b"data"
    waveform, stream = read(head + struct.pack("<I", len(content)) + content)
    np.testing.assert_allclose(waveform, samples.mean(1), atol=1e-7)
    assert not stream.warnings
