"""Resampling equals soxr's, block by block as well."""

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.audio.resample import Resampler, resample, resample_blocks
from earmark.errors import AudioError

NOISE = np.random.default_rng(0).standard_normal(30_000).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192_000])
def test_it_equals_soxr_hq(sample_rate):
    expected = soxr.resample(NOISE, sample_rate, 32000, quality="HQ")
    found = resample(NOISE, sample_rate, 32000)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)
    assert abs(len(found) - len(NOISE) * 32000 / sample_rate) <= 0.5


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(
        [(48000, 32000), (44100, 32000), (8000, 32000), (11025, 32000), (192_000, 32000), (32000, 44100)]
    ),
    st.lists(st.integers(0, 7000), min_size=1, max_size=6).filter(any),
)
def test_blocks_joined_equal_the_whole(rates, sizes):
    clip = NOISE[: sum(sizes)]
    blocks = np.split(clip, np.cumsum(sizes)[:-1])
    joined = np.concatenate(list(resample_blocks(blocks, *rates)))
    assert np.array_equal(joined, resample(clip, *rates))


def test_a_tone_keeps_frequency_level_and_phase():
    time = np.arange(44100) / 44100
    found = resample(np.sin(2 * np.pi * 1000 * time).astype(np.float32), 44100, 32000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(32000) / 32000)
    assert np.abs(found - expected)[500:-500].max() < 1e-4


def test_frequencies_above_half_the_target_rate_are_removed():
    time = np.arange(48000) / 48000
    found = resample(np.sin(2 * np.pi * 20_000 * time).astype(np.float32), 48000, 32000)
    assert np.abs(found[500:-500]).max() < 1e-4


def test_equal_rates_give_the_same_array():
    assert resample(NOISE, 32000, 32000) is NOISE
    assert Resampler(32000, 32000).process(NOISE) is NOISE


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_input_is_not_lost(count):
    assert resample(NOISE[:count], 192_000, 32000).tolist() == [NOISE[0]] or count == 3
    assert sum(map(len, resample_blocks([NOISE[:count]], 192_000, 32000))) == 1


def test_empty_input_stays_empty():
    assert resample(NOISE[:0], 48000, 32000).size == 0
    assert list(resample_blocks([], 48000, 32000)) == []


@pytest.mark.parametrize(
    "rates", [(0, 32000), (-8000, 32000), (32000, 0), (float("nan"), 1), (float("inf"), 1)]
)
def test_invalid_rates_are_refused(rates):
    with pytest.raises(AudioError):
        Resampler(*rates)
    with pytest.raises(AudioError):
        resample(NOISE, *rates)
