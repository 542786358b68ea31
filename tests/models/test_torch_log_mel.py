from dataclasses import replace

import numpy as np
import pytest
import torch
from front_end_cases import CASES, chirps_and_clicks, golden, kept_frames

from earmark.errors import AudioError, ModelError
from earmark.features.log_mel import LogMel
from earmark.features.mel import analysis_window, mel_filter_bank
from earmark.features.presets import AUDAX, EFFICIENTAT, FSDKAGGLE, SP4ASC
from earmark.models.log_mel import TorchLogMel

CLIP = torch.from_numpy(chirps_and_clicks()[:64_000].reshape(2, 32_000).copy())


@pytest.mark.parametrize("name", CASES)
def test_log_mel_matches_golden(name):
    case = CASES[name]
    log_mel = TorchLogMel(case.front_end)(torch.from_numpy(case.clip())[None])[0].numpy()
    case.assert_close(log_mel[:, kept_frames(log_mel.shape[1])], golden(name))


@pytest.mark.parametrize(
    "front_end",
    [
        EFFICIENTAT,
        SP4ASC,
        FSDKAGGLE,
        AUDAX,
        replace(EFFICIENTAT, power=1.0),
        replace(AUDAX, standardize=True),
        replace(AUDAX, standardize="log_mel"),
    ],
)
def test_numpy_and_torch_agree(front_end):
    waveform = np.random.default_rng(3).normal(0, 0.1, (2, 20_000)).astype(np.float32)
    ours = TorchLogMel(front_end)(torch.from_numpy(waveform)).numpy()
    np.testing.assert_allclose(ours, LogMel(front_end)(waveform), atol=1e-4)


def test_periodic_window_is_rounded_as_in_pytorch():
    expected = torch.hann_window(1024).numpy()
    np.testing.assert_allclose(analysis_window(FSDKAGGLE), expected, rtol=0, atol=1e-7)


def test_silence_is_at_the_floor():
    for front_end in (EFFICIENTAT, SP4ASC, FSDKAGGLE, AUDAX):
        log_mel = TorchLogMel(front_end)(torch.zeros(1, 5000))
        np.testing.assert_allclose(log_mel.numpy(), front_end.silence, rtol=1e-5)
    assert not TorchLogMel(replace(AUDAX, standardize="log_mel"))(torch.zeros(1, 5000)).any()


def test_nothing_enters_a_checkpoint():
    log_mel = TorchLogMel(EFFICIENTAT)
    assert log_mel.state_dict() == {}
    assert list(log_mel.parameters()) == []


def test_training_mode_changes_nothing():
    log_mel = TorchLogMel(EFFICIENTAT)
    torch.testing.assert_close(log_mel.train()(CLIP), log_mel.eval()(CLIP), rtol=0, atol=0)


def test_mixed_precision_changes_nothing():
    log_mel = TorchLogMel(EFFICIENTAT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = log_mel(CLIP)
    torch.testing.assert_close(mixed, log_mel(CLIP), rtol=0, atol=0)


def test_jitter_is_the_log_mel_of_drawn_edges():
    draws = np.random.default_rng(7)
    f_min, f_max = 0 + int(draws.integers(10)), 16_000 - int(draws.integers(2000))
    expected = TorchLogMel(replace(EFFICIENTAT, f_min=f_min, f_max=f_max))(CLIP)
    jittered = TorchLogMel(EFFICIENTAT).forward_jittered(CLIP, 10, 2000, np.random.default_rng(7))
    torch.testing.assert_close(jittered, expected, rtol=0, atol=0)
    assert not torch.equal(jittered, TorchLogMel(EFFICIENTAT)(CLIP))


def test_jitter_covers_the_references_range(monkeypatch):
    seen = []
    bank = mel_filter_bank
    monkeypatch.setattr(
        "earmark.models.log_mel.mel_filter_bank", lambda front_end: seen.append(front_end) or bank(front_end)
    )
    log_mel, generator = TorchLogMel(EFFICIENTAT), np.random.default_rng(0)
    for _ in range(300):
        log_mel.forward_jittered(CLIP[:1, :600], 3, 6, generator)
    assert {front_end.f_min for front_end in seen[1:]} == {0, 1, 2}
    assert {front_end.f_max for front_end in seen[1:]} == {15_003 - draw for draw in range(6)}


def test_jitter_leaves_no_trace():
    log_mel = TorchLogMel(EFFICIENTAT)
    before = log_mel(CLIP)
    log_mel.forward_jittered(CLIP, 10, 2000, np.random.default_rng(7))
    torch.testing.assert_close(log_mel(CLIP), before, rtol=0, atol=0)


def test_jitter_of_nothing_is_evaluation():
    log_mel = TorchLogMel(EFFICIENTAT)
    unchanged = log_mel.forward_jittered(CLIP, 0, 0, np.random.default_rng(7))
    torch.testing.assert_close(unchanged, log_mel(CLIP), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("f_min_range", "f_max_range"), [(-1, 0), (0, -1), (0, 2002), (15_001, 0), (10_000, 9000)]
)
def test_jitter_too_wide_fails_whatever_is_drawn(f_min_range, f_max_range):
    with pytest.raises(ModelError):
        TorchLogMel(EFFICIENTAT).forward_jittered(CLIP, f_min_range, f_max_range, np.random.default_rng(0))


@pytest.mark.parametrize("waveform", [CLIP.double(), CLIP.half(), CLIP[0], CLIP[None], CLIP[:, :513]])
def test_invalid_waveforms_raise(waveform):
    with pytest.raises(AudioError):
        TorchLogMel(EFFICIENTAT)(waveform)
