import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from front_end_cases import BANKS, CASES, GOLDEN, chirp_and_tone, chirps_and_clicks, kept_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.errors import AudioError, ModelError
from earmark.features.front_end import (
    AUDAX,
    EFFICIENTAT,
    FSDKAGGLE,
    SP4ASC,
    FrontEnd,
    LogMel,
    mel_bank,
    window,
)

PUBLISHED = {"efficientat": EFFICIENTAT, "sp4asc": SP4ASC, "fsdkaggle": FSDKAGGLE, "audax": AUDAX}
NOISE = np.random.default_rng(5).normal(0, 0.1, 40_000).astype(np.float32)
SMALL = FrontEnd(sample_rate=8000, n_fft=64, win_length=50, hop_length=20, n_mels=8, f_max=4000)


@pytest.fixture(scope="module")
def golden() -> Any:
    with np.load(GOLDEN) as stored:
        yield stored


# The transform


@pytest.mark.parametrize("name", CASES)
def test_log_mel_is_the_references(name, golden):
    case = CASES[name]
    log_mel = LogMel(case.front_end)(case.clip())
    case.assert_close(log_mel[:, kept_frames(log_mel.shape[1])], golden[name])


@pytest.mark.parametrize("name", CASES)
def test_log_mel_is_the_references_at_every_frame(name, shared):
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


def test_log_mel_of_recordings_is_the_references(shared):
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


def test_synthetic_clips_are_the_references(shared):
    stored = np.load(shared / "golden/efficientat/audio/synth_10s_32k.npy")
    np.testing.assert_allclose(chirps_and_clicks(), stored, atol=1e-6)
    stored = np.load(shared / "golden/sp4asc/waveforms.npz")["synth"]
    np.testing.assert_allclose(chirp_and_tone(44_100), stored, atol=1e-6)


@pytest.mark.parametrize("name", BANKS)
def test_mel_bank_is_the_references(name, golden):
    bank = mel_bank(BANKS[name])
    assert bank.dtype == np.float64
    np.testing.assert_allclose(bank, golden[f"bank/{name}"], atol=5e-5 * bank.max(), rtol=0)


def test_narrow_bands_are_empty_as_in_the_reference():
    assert int((mel_bank(replace(EFFICIENTAT, n_mels=256)).sum(axis=1) == 0).sum()) == 13


def test_window_is_the_references(golden):
    np.testing.assert_allclose(window(EFFICIENTAT), golden["window/efficientat"], atol=3e-7)
    np.testing.assert_allclose(window(AUDAX), golden["window/audax"], atol=3e-7)
    np.testing.assert_allclose(window(replace(SMALL, window_symmetric=False))[[0, 25]], [0, 1], atol=1e-6)


def direct_log_mel(front_end, waveform):
    """The definition, frame by frame, with the Fourier sum written out in float64."""
    x = waveform.astype(np.float64)
    y = x[1:] - front_end.preemphasis * x[:-1] if front_end.preemphasis else x
    padded = np.pad(y, front_end.n_fft // 2, mode="reflect")
    offset = (front_end.n_fft - front_end.win_length) // 2 if front_end.window_placement == "centre" else 0
    turns = np.outer(np.arange(front_end.win_length), np.arange(front_end.n_fft // 2 + 1)) / front_end.n_fft
    columns = []
    for frame in range(front_end.num_frames(len(waveform))):
        start = frame * front_end.hop_length + offset
        taps = padded[start : start + front_end.win_length] * window(front_end)
        columns.append(np.abs(taps @ np.exp(-2j * np.pi * turns)) ** front_end.power)
    energies = mel_bank(front_end) @ np.stack(columns, axis=1)
    energies = energies + front_end.floor if front_end.floor_mode == "add" else energies.clip(front_end.floor)
    energies = energies if front_end.ceiling is None else energies.clip(max=front_end.ceiling)
    logarithms = 10 * np.log10(energies) if front_end.log == "db" else np.log(energies)
    return (logarithms + front_end.shift) / front_end.scale


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"win_length": 51},
        {"win_length": 51, "window_symmetric": False, "hop_length": 70},
        {"win_length": 64, "power": 1.0, "preemphasis": 0.0},
        {"window_placement": "start", "win_length": 33, "log": "db"},
        {"mel_scale": "slaney", "mel_norm": "slaney", "floor_mode": "clip", "ceiling": 0.1},
        {"mel_scale": "htk", "n_mels": 40, "f_min": 100.5, "f_max": 3900.5},
    ],
)
@pytest.mark.parametrize("samples", [34, 35, 83, 84, 700])
def test_log_mel_is_its_definition(changes, samples):
    front_end = replace(SMALL, **changes)
    direct = direct_log_mel(front_end, NOISE[:samples])
    np.testing.assert_allclose(LogMel(front_end)(NOISE[:samples]), direct, atol=1e-4)


def test_a_batch_is_its_waveforms():
    batch = NOISE[:3000].reshape(3, 1000)
    log_mel = LogMel(EFFICIENTAT)(batch)
    assert log_mel.shape == (3, 128, 4)
    for row, waveform in zip(log_mel, batch, strict=True):
        np.testing.assert_array_equal(row, LogMel(EFFICIENTAT)(waveform))
    assert LogMel(EFFICIENTAT)(batch[:0]).shape == (0, 128, 4)


def test_waveforms_are_read_at_any_stride_and_left_alone():
    waveform = NOISE[::2].copy()
    expected = LogMel(FSDKAGGLE)(waveform)
    np.testing.assert_array_equal(LogMel(FSDKAGGLE)(NOISE[::2]), expected)
    waveform.flags.writeable = False
    np.testing.assert_array_equal(LogMel(FSDKAGGLE)(waveform), expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_silence(name):
    front_end = PUBLISHED[name]
    log_mel = LogMel(front_end)(np.zeros(5000, np.float32))
    np.testing.assert_allclose(log_mel, front_end.silence, rtol=1e-5)
    expected = {"efficientat": -1.40258503, "sp4asc": -100.0, "fsdkaggle": -math.inf, "audax": math.log(1e-8)}
    assert front_end.silence == pytest.approx(expected[name])


# Windows


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("grid", [1, 7])
def test_windows_are_calls(name, grid):
    front_end = PUBLISHED[name]
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
def test_windows_are_calls_whatever_the_sizes(starts, length, win_length, hop_length, placement):
    front_end = replace(SMALL, win_length=win_length, hop_length=hop_length, window_placement=placement)
    log_mel, waveform = LogMel(front_end), NOISE[:1000]
    for row, start in zip(log_mel.windows(waveform, starts, length), starts, strict=True):
        np.testing.assert_allclose(row, log_mel(waveform[start : start + length]), atol=1e-5)


def test_windows_of_a_stream_are_those_of_the_file():
    log_mel, hop = LogMel(EFFICIENTAT), 25 * 320
    whole = log_mel.windows(NOISE, [0, hop, 2 * hop], 16_000)
    for index in range(3):
        heard = NOISE[index * hop : index * hop + 16_000 + 123]  # whatever came later changes nothing
        np.testing.assert_allclose(log_mel.windows(heard, [0], 16_000)[0], whole[index], atol=1e-5)


def test_overlapping_windows_share_their_frames(monkeypatch):
    counts = []
    compute = LogMel._log_mel
    monkeypatch.setattr(
        LogMel, "_log_mel", lambda self, frames, count: counts.append(count) or compute(self, frames, count)
    )
    LogMel(EFFICIENTAT).windows(NOISE, [0, 3200, 6400, 9600], 16_000)
    # 50 frames a window of which 3 reach into the padding: 47 inner ones, and 10 more for each later window
    assert counts == [47 + 3 * 10, 4 * 3]


def test_windows_do_not_depend_on_what_lies_outside_them():
    waveform = NOISE.copy()
    waveform[:100] = waveform[-100:] = np.nan
    windows = LogMel(EFFICIENTAT).windows(waveform, [100, 740], 3200)
    np.testing.assert_allclose(windows[0], LogMel(EFFICIENTAT)(NOISE[100:3300]), atol=1e-5)


def test_no_windows():
    assert LogMel(EFFICIENTAT).windows(NOISE, [], 3200).shape == (0, 128, 10)


# Hostile input


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (NOISE.astype(np.float64), "float32"),
        ((NOISE * 1000).astype(np.int16), "float32"),
        (NOISE.astype(">f4"), "float32"),
        (list(NOISE[:1000]), "not list"),
        ([[0.5], [0.5, 0.5]], "not list"),
        (np.array(0.5, np.float32), "shape"),
        (NOISE.reshape(2, 2, -1), "shape"),
        (NOISE[:513], "513 samples.*514"),
        (NOISE[:0], "0 samples"),
        (np.zeros((0, 10), np.float32), "10 samples"),
        (np.where(np.arange(1000) == 700, np.float32("nan"), NOISE[:1000]), "NaN"),
        (np.where(np.arange(1000) == 0, np.float32("inf"), NOISE[:1000]), "NaN"),
        (np.where(np.arange(1000) == 0, np.float32("-inf"), NOISE[:1000]), "NaN"),
        (NOISE[:1000] * np.float32(1e30), "scale"),
    ],
)
def test_hostile_waveforms_are_refused(waveform, message):
    with pytest.raises(AudioError, match=message):
        LogMel(EFFICIENTAT)(waveform)


def test_loud_waveforms_stay_finite():
    for front_end in PUBLISHED.values():
        assert np.isfinite(LogMel(front_end)(np.sign(NOISE[:5000]) * np.float32(1e6))).all()


@pytest.mark.parametrize(("starts", "length"), [([-1], 1000), ([0, 39_001], 1000), ([0], 40_001), ([0], 100)])
def test_windows_outside_the_waveform_are_refused(starts, length):
    with pytest.raises(AudioError, match="pad it"):
        LogMel(EFFICIENTAT).windows(NOISE, starts, length)


# The record


@pytest.mark.parametrize(
    ("samples", "frames"), [(514, 2), (1000, 4), (3200, 10), (31_999, 100), (32_000, 100), (320_001, 1001)]
)
def test_number_of_frames(samples, frames):
    assert EFFICIENTAT.num_frames(samples) == frames


@pytest.mark.parametrize(
    ("name", "shortest", "frames"),
    [("efficientat", 514, 1000), ("sp4asc", 1025, 431), ("fsdkaggle", 513, 1001), ("audax", 513, 1004)],
)
def test_published_front_ends(name, shortest, frames):
    front_end = PUBLISHED[name]
    assert front_end.min_samples == shortest
    assert front_end.num_frames(10 * front_end.sample_rate) == frames
    with pytest.raises(AudioError, match="pad it"):
        front_end.num_frames(shortest - 1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_record_survives_json(name):
    written = json.dumps(PUBLISHED[name].to_dict())
    front_end = FrontEnd.from_dict(json.loads(written))
    assert front_end == PUBLISHED[name]
    assert json.dumps(front_end.to_dict()) == written


def test_whole_numbers_are_written_as_the_floats_they_stand_for():
    assert json.dumps(replace(EFFICIENTAT, f_max=14_000).to_dict()["f_max"]) == "14000.0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_rate", 32_000.0),
        ("sample_rate", "32000"),
        ("n_fft", 1023),
        ("n_fft", True),
        ("n_fft", 2**40),
        ("win_length", 1025),
        ("win_length", 0),
        ("hop_length", 0),
        ("n_mels", -1),
        ("n_mels", None),
        ("f_min", 15_000.0),
        ("f_min", -1.0),
        ("f_max", 16_001.0),
        ("f_max", math.nan),
        ("preemphasis", 1.5),
        ("preemphasis", False),
        ("window", "hamming"),
        ("window", ["hann"]),
        ("window_symmetric", 1),
        ("window_placement", "end"),
        ("padding", "constant"),
        ("power", 0.0),
        ("mel_scale", None),
        ("mel_norm", "htk"),
        ("log", "log10"),
        ("floor_mode", "max"),
        ("floor", -1e-5),
        ("floor", 1e-50),
        ("floor", 1e400),
        ("ceiling", 1e-6),
        ("ceiling", "none"),
        ("shift", math.inf),
        ("scale", 0.0),
    ],
)
def test_fields_out_of_range_are_refused(name, value):
    with pytest.raises(ModelError, match=f"front-end: {name} must be"):
        FrontEnd.from_dict(EFFICIENTAT.to_dict() | {name: value})


def test_unknown_and_missing_fields_are_refused():
    values = EFFICIENTAT.to_dict()
    with pytest.raises(ModelError, match=r"unknown fields.*hopsize"):
        FrontEnd.from_dict(values | {"hopsize": 320})
    del values["f_max"]
    with pytest.raises(ModelError, match=r"missing fields.*f_max"):
        FrontEnd.from_dict(values)
