"""Scale, silence and channels that cancel are noticed; samples in memory need a known scale."""

import io

import numpy as np
import pytest
import soundfile

from earmark.audio import Levels, check_finite, load_audio, load_piece, mix_all, open_audio, to_channels
from earmark.errors import AudioError

RATE = 16000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)


def wav(samples, subtype="FLOAT"):
    target = io.BytesIO()
    soundfile.write(target, samples, RATE, format="WAV", subtype=subtype)
    return target.getvalue()


def read(content, frames=None):
    with open_audio(content) as stream:
        return np.concatenate(list(stream.blocks(frames))), stream.warnings


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(100, np.float32), "digital silence"),
        (NOISE * 65536, "times full scale"),
        (np.stack([NOISE, -NOISE], 1), "cancel each other in 3.0 s"),
    ],
)
def test_a_warning_names_the_file_and_the_level(tmp_path, samples, words):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples))
    _, warnings = read(path)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{path}: ")
    assert words in warnings[0]
    load_audio(path, RATE, whole=True)  # a level is no damage


@pytest.mark.parametrize(
    "samples",
    [
        NOISE,
        NOISE * 20,
        np.append(NOISE[:5], 0) * 1e-5,
        np.stack([NOISE, NOISE[::-1]], 1),
        np.stack([NOISE, -NOISE[::-1]], 1),
        np.stack([NOISE, 0 * NOISE], 1),
        np.random.default_rng(1).uniform(-1, 1, (RATE, 8)).astype(np.float32),
    ],
)
def test_other_levels_have_no_warning(samples):
    assert read(wav(samples))[1] == []


def test_of_channels_that_cancel_the_louder_one_is_used_in_blocks_of_any_size():
    samples = np.stack([NOISE, -1.05 * NOISE], 1)
    samples[32768:, 1] = NOISE[32768:]
    whole, _ = read(wav(samples))
    np.testing.assert_array_equal(whole, np.append(samples[:32768, 1], NOISE[32768:]))
    for frames in (1000, 30_000):
        np.testing.assert_array_equal(read(wav(samples), frames)[0], whole)
    for first in (0, 5, 20_000):
        piece, _ = load_piece(wav(samples), RATE, 20_000, lambda _, first=first: first)
        np.testing.assert_array_equal(piece, whole[first : first + 20_000])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38, -2e6])
def test_what_is_no_sample_is_refused_for_what_it_is(value):
    samples = NOISE.copy()
    samples[100] = value
    words = "not a number" if np.isnan(value) else "infinite" if np.isinf(value) else "times full scale"
    with pytest.raises(AudioError, match=f"sample 100, at 0.006 s, is .*{words}"):
        read(wav(samples))
    with pytest.raises(AudioError, match=words):
        check_finite(samples, 0, RATE, "samples")


@pytest.mark.parametrize(
    ("dtype", "zero", "full"),
    [("int8", 0, 128), ("uint8", 128, 128), ("int16", 0, 2**15), ("int32", 0, 2**31)],
)
def test_integers_of_known_scale(dtype, zero, full):
    values = np.array([zero, zero + full // 2, zero - full], dtype)
    assert to_channels(values).tolist() == [[0, 0.5, -1]]
    assert to_channels(np.stack([values, values], 1)).shape == (2, 3)


@pytest.mark.parametrize(
    ("samples", "remedy"),
    [
        ([0, 100, -3000], "int16"),
        (np.array([1, 2], np.int64), "int16"),
        (np.array([1, 2], np.uint16), "int16"),
        (np.array([True, False]), "int16"),
        (np.array([0, 20_000, -32_768], np.int32), "astype"),
        (np.zeros((3, 0), np.float32), "shape"),
        (np.zeros((2, 5), np.float32), "more channels than samples"),
        ([[0.0], [0.0, 1.0]], "shape"),
        (["a"], "numbers"),
    ],
)
def test_samples_of_unknown_scale_or_shape_are_refused_with_the_remedy(samples, remedy):
    with pytest.raises(AudioError, match=remedy) as caught:
        to_channels(samples)
    assert "\n" not in str(caught.value)


def test_a_quiet_block_of_a_stream_of_int32_is_taken():
    assert to_channels(np.array([5, -5], np.int32), in_blocks=True).max() < 1e-8
    assert to_channels(np.zeros(5, np.int32)).any() == np.False_


def test_silent_channels_do_not_cancel():
    levels = Levels()
    assert not mix_all(np.zeros((2, 40_000), np.float32), RATE, levels).any()
    assert levels.cancelled_s == 0
