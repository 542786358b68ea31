"""Opus in memory by FFmpeg's decoder is what libsndfile's gives; any other kind is left to that."""

import io
import sys
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from earmark.audio import load_audio, load_piece, open_audio
from earmark.audio.encode import encode, to_int16
from earmark.audio.ogg import checksum, pages
from earmark.audio.opus import OpusReader, find_opus
from earmark.errors import AudioError

RATE = 48000
av = pytest.importorskip("av", reason="PyAV is not installed")


def sound(count: int) -> np.ndarray:
    """A siren in noise that comes and goes, int16 (time,): loud and soft, tones and none."""
    time = np.arange(count) / RATE
    siren = 0.5 * np.sin(2000 * np.pi * time + 300 * np.sin(3 * time)) * (np.sin(5 * time) > 0)
    noise = 0.2 * np.random.default_rng(count).standard_normal(count) * np.sin(2 * time) ** 8
    return to_int16((siren + noise).astype(np.float32))


def by_libsndfile(content: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(content), dtype="float32")[0]


def through_av(samples: np.ndarray, rate: int = RATE, layout: str = "mono", **options: str) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="ogg") as container:
        track = container.add_stream("libopus", rate=rate, layout=layout, options=options)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        for piece in (frame, None):
            container.mux(track.encode(piece))
    return stream.getvalue()


def packets_of(page: bytes) -> list[bytes]:
    """Of a page without packets of 255 bytes or more."""
    sizes = page[27 : 27 + page[26]]
    ends = 27 + page[26] + np.cumsum([0, *sizes])
    return [page[begin:end] for begin, end in pairwise(ends)]


@pytest.mark.parametrize("count", [1, 100, 959, 960, 48_000, 200_003])
def test_all_is_what_libsndfile_gives(count):
    content = encode(sound(count), RATE, "opus")
    assert find_opus(content) is not None
    waveform, warnings = load_audio(content, RATE)
    assert (waveform.shape, warnings) == ((count,), [])
    np.testing.assert_allclose(waveform, by_libsndfile(content), rtol=0, atol=1e-6)


@pytest.mark.parametrize("frame_duration", ["2.5", "10", "20", "60", "120"])
def test_packets_of_every_length(frame_duration):
    content = through_av(sound(RATE), frame_duration=frame_duration)
    reader = find_opus(content)
    expected = by_libsndfile(content)
    assert reader.frames == len(expected)
    np.testing.assert_allclose(reader.piece(0, len(expected))[:, 0], expected, rtol=0, atol=1e-6)


def test_a_piece_is_cut_from_the_whole():
    content = encode(sound(4 * RATE), RATE, "opus")
    whole = load_audio(content, RATE)[0]
    for first in [0, 1, 647, 648, *range(1000, 3 * RATE, 9973), 3 * RATE]:
        piece = load_piece(content, RATE, RATE, {3 * RATE: first}.__getitem__)[0]
        np.testing.assert_allclose(piece, whole[first:][:RATE], rtol=0, atol=1e-6)


def test_blocks_of_any_size_are_the_whole():
    content = encode(sound(2 * RATE), RATE, "opus")
    whole = find_opus(content).piece(0, 2 * RATE)[:, 0]
    for frames in (700, 20_000, RATE, 10**6):
        with open_audio(content) as stream:
            blocks = list(stream.blocks(frames))
        assert max(map(len, blocks)) <= frames
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_other_kinds_are_left_to_libsndfile():
    mono = encode(sound(RATE), RATE, "opus")
    head, *rest = pages(mono)
    gained = head[: 28 + 16] + b"\1" + head[28 + 17 :]
    for content in (
        b"",
        b"".join([gained[:22] + checksum(gained) + gained[26:], *rest]),
        mono[:-1],
        mono[:27],
        mono[: len(mono) // 2],
        mono + mono,
        mono[:2000] + b"\1" + mono[2001:],
        encode(sound(RATE), 16000, "opus"),
        encode(sound(RATE), RATE, "flac"),
        through_av(sound(RATE), layout="stereo"),
        through_av(sound(RATE), application="voip", b="16k"),
    ):
        assert find_opus(content) is None
    assert len(load_audio(mono + mono, RATE)[0]) >= RATE


def test_without_pyav_libsndfile_reads_it(monkeypatch):
    content = encode(sound(RATE), RATE, "opus")
    monkeypatch.setitem(sys.modules, "av", None)
    assert find_opus(content) is None
    np.testing.assert_array_equal(load_audio(content, RATE)[0], by_libsndfile(content))


def test_packets_that_cannot_be_decoded_are_said():
    content = encode(sound(RATE), RATE, "opus")
    good = [segment for page in list(pages(content))[2:] for segment in packets_of(page)]
    reader = OpusReader(
        content[28:47], [*good[:25], b"\xfb", *good[25:]], 960 * np.arange(len(good) + 2), 0, RATE
    )
    read = sum(map(len, reader.blocks(RATE)))
    assert 24_000 - 312 <= read <= 24_000
    assert reader.faults(read) == ["the file is damaged: it could be read up to 0.49 s"]
    assert len(reader.piece(0, RATE)) < RATE


def test_damage_ends_in_one_line():
    content = encode(sound(RATE // 4), RATE, "opus")
    generator = np.random.default_rng(0)
    for _ in range(100):
        broken = bytearray(content)
        for at in generator.integers(0, len(content), 4):
            broken[at] = generator.integers(256)
        with suppress(AudioError):
            load_audio(bytes(broken), RATE)


def test_a_stream_that_begins_later_is_left_to_libsndfile():
    content = encode(sound(2 * RATE), RATE, "opus")
    head, tags, _, *rest = pages(content)
    numbered = [page[:18] + bytes([number, 0, 0, 0]) + page[22:] for number, page in enumerate(rest, start=2)]
    later = b"".join([head, tags, *(page[:22] + checksum(page) + page[26:] for page in numbered)])
    assert rest
    assert find_opus(later) is None
