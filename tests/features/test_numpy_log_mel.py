"""The NumPy transform.

Untested without ../shared: the frames of the goldens that are not committed (19 of 20), recordings.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from front_end_cases import CASES, SMALL, chirp_and_tone, chirps_and_clicks, golden, kept_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.errors import AudioError
from earmark.features.log_mel import LogMel
from earmark.features.mel import analysis_window, mel_filter_bank
from earmark.features.presets import AUDAX, EFFICIENTAT, FRONT_ENDS, FSDKAGGLE, SP4ASC

NOISE = np.random.default_rng(5).normal(0, 0.1, 40_000).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_log_mel_matches_golden(name):
    case = CASES[name]
    log_mel = LogMel(case.front_end)(case.clip())
    case.assert_close(log_mel[:, kept_frames(log_mel.shape[1])], golden(name))


@pytest.mark.parametrize("name", CASES)
def test_every_frame_matches_golden(name, shared):
    case = CASES[name]
    case.assert_close(LogMel(case.front_end)(case.clip()), _shared_log_mel(shared, name))


def _shared_log_mel(shared, name):
    reference, key = name.split("/", 1)
    if reference == "efficientat":
        return np.load(shared / f"golden/{name}.npz")["logmel"]
    if reference == "audax":
        return np.load(shared / "golden/audax/features_frontends.npz")[key].T
    if reference == "sp4asc":
        return np.load(shared / "golden/sp4asc/sp4asc.npz")[key].T
    if key.startswith("evar"):
        return np.load(shared / "golden/sound_clf/sound_clf_data.npz")[key].T
    return np.load(shared / "golden/sound_clf/sound_clf.npz")[key][0]


def test_log_mel_of_recordings_matches_golden(shared):
    metro = np.load(shared / "golden/efficientat/audio/metro_paris_10s_32k.npy")
    mel = shared / "golden/efficientat/mel"
    case = CASES["efficientat/mel/synth_m128_h320"]
    case.assert_close(LogMel(EFFICIENTAT)(metro), np.load(mel / "metro_m128_h320.npz")["logmel"])
    for bands, hop in [(40, 320), (256, 320), (128, 160), (128, 480), (128, 800)]:
        stored = np.load(mel / f"metro_m{bands}_h{hop}_frames.npz")
        log_mel = LogMel(replace(EFFICIENTAT, n_mels=bands, hop_length=hop))(metro)
        case.assert_close(log_mel[:, ::50], stored["frames"])
        np.testing.assert_allclose(log_mel.mean(axis=1), stored["mean"], atol=1e-4)
    r9 = np.load(shared / "golden/sp4asc/waveforms.npz")["r9"]
    stored = np.load(shared / "golden/sp4asc/sp4asc.npz")["logmel/r9"].T
    CASES["sp4asc/logmel/synth"].assert_close(LogMel(SP4ASC)(r9), stored)
    features = np.load(shared / "golden/audax/features_frontends.npz")
    for clip in ("r9_16k_5s", "sample"):
        log_mel = LogMel(AUDAX)(features[f"wav/{clip}"])
        CASES["audax/logmel/synth1s"].assert_close(log_mel, features[f"logmel/{clip}"].T)


def test_synthetic_clips_match_golden(shared):
    stored = np.load(shared / "golden/efficientat/audio/synth_10s_32k.npy")
    np.testing.assert_allclose(chirps_and_clicks(), stored, atol=1e-6)
    stored = np.load(shared / "golden/sp4asc/waveforms.npz")["synth"]
    np.testing.assert_allclose(chirp_and_tone(44_100), stored, atol=1e-6)


def direct_log_mel(front_end, waveform):
    """The definition, frame by frame, with the Fourier sum written out in float64."""
    x = waveform.astype(np.float64)
    x = (x - x.mean()) / (x.std() + 1e-8) if front_end.standardize is True else x
    y = x[1:] - front_end.preemphasis * x[:-1] if front_end.preemphasis else x
    padded = np.pad(y, front_end.n_fft // 2, mode="reflect")
    offset = (front_end.n_fft - front_end.win_length) // 2 if front_end.window_placement == "centre" else 0
    turns = np.outer(np.arange(front_end.win_length), np.arange(front_end.n_fft // 2 + 1)) / front_end.n_fft
    columns = []
    for frame in range(front_end.num_frames(len(waveform))):
        start = frame * front_end.hop_length + offset
        taps = padded[start : start + front_end.win_length] * analysis_window(front_end)
        columns.append(np.abs(taps @ np.exp(-2j * np.pi * turns)) ** front_end.power)
    energies = mel_filter_bank(front_end) @ np.stack(columns, axis=1)
    energies = energies + front_end.floor if front_end.floor_mode == "add" else energies.clip(front_end.floor)
    energies = energies if front_end.ceiling is None else energies.clip(max=front_end.ceiling)
    logarithms = 10 * np.log10(energies) if front_end.log == "db" else np.log(energies)
    finished = (logarithms + front_end.shift) / front_end.scale
    if front_end.standardize == "log_mel":
        return (finished - finished.mean()) / finished.std()
    return finished


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"win_length": 51},
        {"win_length": 51, "window_symmetric": False, "hop_length": 70},
        {"win_length": 64, "power": 1.0, "preemphasis": 0.0},
        {"window_placement": "start", "win_length": 33, "log": "db"},
        {"mel_scale": "slaney", "mel_norm": "slaney", "floor_mode": "clip", "ceiling": 0.1},
        {"mel_scale": "linear", "n_mels": 30},
        {"standardize": True, "preemphasis": 0.0},
        {"standardize": "log_mel"},
        {"mel_scale": "htk", "n_mels": 40, "f_min": 100.5, "f_max": 3900.5},
    ],
)
@pytest.mark.parametrize("samples", [34, 35, 83, 84, 700])
def test_log_mel_matches_its_definition(changes, samples):
    front_end = replace(SMALL, **changes)
    direct = direct_log_mel(front_end, NOISE[:samples])
    np.testing.assert_allclose(LogMel(front_end)(NOISE[:samples]), direct, atol=1e-4)


def test_a_standardized_log_mel_depends_on_neither_level_nor_offset():
    transform = LogMel(replace(SMALL, standardize=True))
    clip = NOISE[:700]
    np.testing.assert_allclose(transform(0.01 * clip + np.float32(0.2)), transform(clip), atol=2e-3)
    rising = clip * np.linspace(0.01, 1, len(clip), dtype=np.float32)
    windows = transform.windows(rising, (0, 100, 400), 300)
    for window, start in zip(windows, (0, 100, 400), strict=True):
        np.testing.assert_array_equal(window, transform(rising[start : start + 300]))
    np.testing.assert_array_equal(
        transform.following(rising[20:320], windows[0], 1), transform(rising[20:320])
    )
    np.testing.assert_allclose(transform(np.zeros(300, np.float32)), transform.front_end.silence, rtol=1e-5)
    with pytest.raises(AudioError):
        transform(np.full(300, np.nan, np.float32))


def test_a_log_mel_is_standardised_window_by_window():
    transform = LogMel(replace(SMALL, standardize="log_mel"))
    rising = NOISE[:700] * np.linspace(0.01, 1, 700, dtype=np.float32)
    log_mel = transform(rising)
    assert abs(log_mel.mean()) < 1e-5
    assert log_mel.std() == pytest.approx(1, abs=1e-5)
    windows = transform.windows(rising, (0, 100, 400), 300)
    for window, start in zip(windows, (0, 100, 400), strict=True):
        np.testing.assert_allclose(window, transform(rising[start : start + 300]), atol=1e-5)
    following = transform.following(rising[20:320], windows[0], 1)
    np.testing.assert_allclose(following, transform(rising[20:320]), atol=1e-5)
    assert not transform(np.zeros(300, np.float32)).any()
    assert transform.front_end.silence == transform.front_end.mask_value == 0


def test_batch_matches_single_waveforms():
    batch = NOISE[:3000].reshape(3, 1000)
    log_mel = LogMel(EFFICIENTAT)(batch)
    assert log_mel.shape == (3, 128, 4)
    for row, waveform in zip(log_mel, batch, strict=True):
        np.testing.assert_array_equal(row, LogMel(EFFICIENTAT)(waveform))
    assert LogMel(EFFICIENTAT)(batch[:0]).shape == (0, 128, 4)


def test_strided_and_read_only_waveforms():
    waveform = NOISE[::2].copy()
    expected = LogMel(FSDKAGGLE)(waveform)
    np.testing.assert_array_equal(LogMel(FSDKAGGLE)(NOISE[::2]), expected)
    waveform.flags.writeable = False
    np.testing.assert_array_equal(LogMel(FSDKAGGLE)(waveform), expected)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_silence(name):
    front_end = FRONT_ENDS[name]
    log_mel = LogMel(front_end)(np.zeros(5000, np.float32))
    np.testing.assert_allclose(log_mel, front_end.silence, rtol=1e-5)
    expected = {"efficientat": -1.40258503, "fsdkaggle": -math.inf, "audax": math.log(1e-8)}
    assert front_end.silence == pytest.approx(expected.get(name, -100.0))


# Windows


@pytest.mark.parametrize("name", FRONT_ENDS)
@pytest.mark.parametrize("grid", [1, 7])
def test_windows_match_single_calls(name, grid):
    front_end = FRONT_ENDS[name]
    starts = [0, grid * front_end.hop_length, 3, 5000, 5000, 20_000]
    log_mel = LogMel(front_end)
    windows = log_mel.windows(NOISE, starts, 20_000)
    assert windows.dtype == np.float32
    for row, start in zip(windows, starts, strict=True):
        np.testing.assert_allclose(row, log_mel(NOISE[start : start + 20_000]), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    starts=st.lists(st.integers(0, 700), min_size=1, max_size=5),
    length=st.integers(34, 300),
    win_length=st.integers(4, 64),
    hop_length=st.integers(1, 90),
    placement=st.sampled_from(["centre", "start"]),
)
def test_windows_match_single_calls_whatever_the_sizes(starts, length, win_length, hop_length, placement):
    front_end = replace(SMALL, win_length=win_length, hop_length=hop_length, window_placement=placement)
    log_mel, waveform = LogMel(front_end), NOISE[:1000]
    for row, start in zip(log_mel.windows(waveform, starts, length), starts, strict=True):
        np.testing.assert_allclose(row, log_mel(waveform[start : start + length]), atol=1e-5)


def test_windows_of_a_stream_match_those_of_the_file():
    log_mel, hop = LogMel(EFFICIENTAT), 25 * 320
    whole = log_mel.windows(NOISE, [0, hop, 2 * hop], 16_000)
    for index in range(3):
        arrived = NOISE[index * hop : index * hop + 16_000 + 123]  # whatever came later changes nothing
        np.testing.assert_allclose(log_mel.windows(arrived, [0], 16_000)[0], whole[index], atol=1e-5)


def test_overlapping_windows_share_their_frames(monkeypatch):
    frames, rfft = [], np.fft.rfft
    monkeypatch.setattr(np.fft, "rfft", lambda rows: frames.append(len(rows)) or rfft(rows))
    LogMel(EFFICIENTAT).windows(NOISE, [0, 3200, 6400, 9600], 16_000)
    # 50 frames a window of which 3 reach into the padding: 47 inner ones, and 10 more for each later window
    assert sum(frames) == 47 + 3 * 10 + 4 * 3


def test_windows_do_not_depend_on_what_lies_outside_them():
    waveform = NOISE.copy()
    waveform[:100] = waveform[-100:] = np.nan
    windows = LogMel(EFFICIENTAT).windows(waveform, [100, 740], 3200)
    np.testing.assert_allclose(windows[0], LogMel(EFFICIENTAT)(NOISE[100:3300]), atol=1e-5)


def test_no_windows():
    assert LogMel(EFFICIENTAT).windows(NOISE, [], 3200).shape == (0, 128, 10)


# Invalid input


@pytest.mark.parametrize(
    "waveform",
    [
        NOISE.astype(np.float64),
        (NOISE * 1000).astype(np.int16),
        NOISE.astype(">f4"),
        list(NOISE[:1000]),
        [[0.5], [0.5, 0.5]],
        np.array(0.5, np.float32),
        NOISE.reshape(2, 2, -1),
        NOISE[:513],
        NOISE[:0],
        np.zeros((0, 10), np.float32),
        np.where(np.arange(1000) == 700, np.float32("nan"), NOISE[:1000]),
        np.where(np.arange(1000) == 0, np.float32("inf"), NOISE[:1000]),
        np.where(np.arange(1000) == 0, np.float32("-inf"), NOISE[:1000]),
        NOISE[:1000] * np.float32(1e30),
    ],
)
def test_invalid_waveforms_raise(waveform):
    with pytest.raises(AudioError):
        LogMel(EFFICIENTAT)(waveform)


def test_loud_waveforms_stay_finite():
    for front_end in FRONT_ENDS.values():
        assert np.isfinite(LogMel(front_end)(np.sign(NOISE[:5000]) * np.float32(1e6))).all()


@pytest.mark.parametrize(("starts", "length"), [([-1], 1000), ([0, 39_001], 1000), ([0], 40_001), ([0], 100)])
def test_windows_outside_the_waveform_raise(starts, length):
    with pytest.raises(AudioError):
        LogMel(EFFICIENTAT).windows(NOISE, starts, length)
