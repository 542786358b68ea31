"""Streams: the windows do not depend on the blocks, and come as soon as their samples are there."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import earmark
from earmark.errors import AudioError

RATE = 8000


@pytest.fixture(scope="module")
def tagger(toy_model: Path) -> earmark.Tagger:
    return earmark.load(toy_model, threads=1)


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype(np.float32)


def assert_same(windows: list[earmark.Window], wanted: list[earmark.Window]) -> None:
    """Bit for bit."""
    assert len(windows) == len(wanted)
    for one, other in zip(windows, wanted, strict=True):
        assert (one.start_s, one.end_s) == (other.start_s, other.end_s)
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.embedding, other.embedding)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, 12_000), max_size=12),
    rate=st.sampled_from([RATE, 11_025, 48_000]),
    hop_s=st.sampled_from([0.5, 0.2, 0.03, 0.7]),
)
def test_any_blocks_have_the_same_windows(
    tagger: earmark.Tagger, cuts: list[int], rate: int, hop_s: float
) -> None:
    waveform = noise(1.3, rate)
    blocks = np.split(waveform, sorted(min(cut, len(waveform)) for cut in cuts))
    wanted = tagger.tag(waveform, rate, hop_s=hop_s).windows
    assert_same(list(tagger.stream(blocks, rate, hop_s=hop_s)), list(wanted))


def test_a_window_comes_before_the_next_block_is_asked_for(tagger: earmark.Tagger) -> None:
    asked = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal asked
        for block in np.split(noise(2.1), 21):
            asked += 1
            yield block

    ends = []
    for window in tagger.stream(blocks(), RATE, hop_s=0.2):
        assert asked == round(window.end_s * 10)
        ends.append(window.end_s)
    assert ends == pytest.approx([0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9, 2.1])


def test_an_endless_stream_can_be_left(tagger: earmark.Tagger) -> None:
    closed = False

    def blocks() -> Iterator[np.ndarray]:
        nonlocal closed
        try:
            while True:
                yield noise(0.3)
        finally:
            closed = True

    stream = tagger.stream(blocks(), RATE)
    assert [next(stream).start_s for _ in range(5)] == [0.0, 0.5, 1.0, 1.5, 2.0]
    stream.close()
    assert closed


def test_a_buffer_may_be_used_again(tagger: earmark.Tagger) -> None:
    waveform, buffer = noise(1.2), np.zeros(1200, np.float32)

    def blocks() -> Iterator[np.ndarray]:
        for block in np.split(waveform, 8):
            buffer[:] = block
            yield buffer

    assert_same(list(tagger.stream(blocks(), RATE)), list(tagger.tag(waveform, RATE).windows))


def test_channels_and_integers(tagger: earmark.Tagger) -> None:
    waveform = np.round(noise(0.8) * 20_000).astype(np.int16)
    blocks = np.split(np.stack([waveform, waveform], 1), 4)
    wanted = tagger.tag(waveform / np.float32(32768), RATE).windows
    assert_same(list(tagger.stream(blocks, RATE)), list(wanted))


def test_unusable_streams(tagger: earmark.Tagger) -> None:
    with pytest.raises(AudioError):
        list(tagger.stream([], RATE))
    stream = tagger.stream([noise(0.6), np.array([0, np.nan], np.float32)], RATE)
    assert next(stream).end_s == 0.5
    with pytest.raises(AudioError, match=f"sample {round(0.6 * RATE) + 1}"):
        next(stream)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 40_000), max_size=8))
def test_channels_that_cancel_have_the_same_windows_in_any_blocks(
    tagger: earmark.Tagger, cuts: list[int]
) -> None:
    waveform = noise(5)
    opposite = np.where(np.arange(len(waveform)) < 20_000, -waveform, waveform)
    stereo = np.stack([waveform, opposite * np.float32(0.9)], 1)
    wanted = tagger.tag(stereo, RATE, window_s=0.1).windows
    blocks = np.split(stereo, sorted(cuts))
    assert_same(list(tagger.stream(blocks, RATE, window_s=0.1)), list(wanted))
