"""Streams that come in: raw samples in any pieces, formats that need no seeking, sources that end or stop."""

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from earmark.audio.live import DecodedStream, Lost, RawStream, ReadingThread
from earmark.errors import AudioError

RATE = 8000


class Drip(io.BytesIO):
    """A file that hands out a few bytes at a time, and cannot seek."""

    def read1(self, size: int = -1) -> bytes:
        return super().read1(min(size, 7))

    def seekable(self) -> bool:
        return False


def tone(seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.mark.parametrize(
    ("encoding", "stored", "tolerance"),
    [
        ("s16le", lambda wave: (wave * 32768).astype("<i2"), 2e-4),
        ("s32be", lambda wave: (wave * 2.0**31).astype(">i4"), 1e-6),
        ("f32le", lambda wave: wave.astype("<f4"), 0),
        ("u8", lambda wave: np.round(wave * 128 + 128).astype("u1"), 1e-2),
    ],
)
def test_raw_samples_in_any_pieces(encoding: str, stored, tolerance: float) -> None:
    stereo = np.stack([tone(0.1), -tone(0.1)], 1)
    source = RawStream(Drip(stored(stereo).tobytes()), RATE, 2, encoding)
    blocks = list(source.blocks())
    assert len(blocks) > 10
    np.testing.assert_allclose(np.concatenate(blocks), stereo, rtol=0, atol=tolerance)


def test_raw_samples_that_cannot_be() -> None:
    with pytest.raises(AudioError, match="1 bytes"):
        list(RawStream(io.BytesIO(b"abc"), RATE).blocks())
    for wrong in ((10, 1, "s16le"), (RATE, 0, "s16le"), (RATE, 1, "s17le")):
        with pytest.raises(AudioError):
            RawStream(io.BytesIO(b""), *wrong)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("wav", None), ("flac", None), ("ogg", None), ("mpegts", "mp2")]
)
def test_formats_without_seeking(tmp_path: Path, suffix: str, codec: str | None) -> None:
    path, rate = tmp_path / f"a.{suffix}", 16_000
    wave = np.repeat(tone(2.0), 2)
    if codec is None:
        soundfile.write(path, wave, rate)
    else:
        with av.open(str(path), "w", format=suffix) as container:
            track = container.add_stream(codec, rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray((wave[None] * 32767).astype(np.int16), "s16", "mono")
            frame.sample_rate = rate
            for packet in [*track.encode(frame), *track.encode(None)]:
                container.mux(packet)
    source = DecodedStream(Drip(path.read_bytes()))
    assert source.sample_rate == rate
    decoded = np.concatenate(list(source.blocks()))
    assert len(decoded) == pytest.approx(len(wave), abs=1500)
    assert np.sqrt(np.mean(decoded[3000:28_000] ** 2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)


def test_packets_that_cannot_be_decoded_are_lost_time(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(20 * RATE), RATE)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    blocks = list(DecodedStream(io.BytesIO(bytes(content))).blocks())
    lost = [one for one in blocks if isinstance(one, Lost)]
    heard = sum(one.size for one in blocks if not isinstance(one, Lost))
    assert lost
    assert heard + sum(one.samples for one in lost) == pytest.approx(20 * RATE, abs=4 * 4096)


@pytest.mark.parametrize("content", [b"", b"no sound at all" * 100])
def test_what_is_no_stream(content: bytes) -> None:
    with pytest.raises(AudioError, match="standard input"):
        DecodedStream(io.BytesIO(content))


def test_a_source_that_waits_can_be_stopped() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as file, open(write_end, "wb", buffering=0) as writer:
        writer.write(b"\1\0" * 100)
        with ReadingThread(RawStream(file, RATE)) as samples:
            assert np.shape(samples.get(5.0)) == (100, 1)
            assert samples.get(0.05) is None
            assert not samples.is_over
        assert "earmark-live" not in [thread.name for thread in threading.enumerate()]


class Endless:
    """A source that is faster than its reader, and one that fails."""

    name, sample_rate = "endless", RATE

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure, self.count, self.is_stopped = failure, 0, False

    def blocks(self) -> Iterator[np.ndarray]:
        while not self.is_stopped:
            self.count += 1
            yield np.zeros(10, np.float32)
            if self.failure:
                raise self.failure

    def stop(self) -> None:
        self.is_stopped = True


def test_a_fast_source_waits_for_its_reader() -> None:
    source = Endless()
    with ReadingThread(source) as samples:
        for _ in range(3):
            assert samples.get(5.0) is not None
        time.sleep(0.2)
        assert source.count < 50


def test_failures_of_a_source_arrive_behind_its_samples() -> None:
    with ReadingThread(Endless(AudioError("gone"))) as samples:
        assert samples.get(5.0) is not None
        with pytest.raises(AudioError, match="gone"):
            samples.get(5.0)
        assert samples.is_over
        assert samples.get(5.0) is None
