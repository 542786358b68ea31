"""SincNet: parity with audax's, stage by stage, and what it takes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from audax_golden import COMMITTED, assert_front_end, front_end_variables
from front_end_cases import chirp_and_tone

from earmark.errors import AudioError
from earmark.features.learned import SINCNET
from earmark.models.sincnet import SincNet

SMALL = replace(SINCNET, n_mels=5, win_length=41, hop_length=16)
TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def golden(shared: Path):
    with np.load(shared / "golden" / "audax" / "features_frontends.npz") as stored:
        yield stored


@pytest.mark.parametrize("name", ["sincnet40", "sincnet64"])
@pytest.mark.parametrize("weights", ["init", "pert"])
def test_features_are_audaxs(golden, name, weights):
    waveforms = np.stack([golden["wav/synth1s"], golden["wav/sample"]])
    assert_front_end(SINCNET, golden, f"{name}/{weights}", waveforms, TOLERANCE)


@pytest.mark.parametrize("name", ["sincnet40", "sincnet64"])
def test_starting_weights_are_audaxs(golden, shared, name):
    shapes = json.loads((shared / "golden" / "audax" / "frontend_shapes.json").read_text())[name]
    weights = {path: golden[f"{name}/init/{path}"] for path in shapes}
    wanted = front_end_variables(SINCNET, weights)
    for key, tensor in SincNet(replace(SINCNET, n_mels=int(name[-2:]))).state_dict().items():
        torch.testing.assert_close(tensor, wanted[key], rtol=1e-5, atol=0, msg=key)


@torch.no_grad()
def test_features_are_the_committed_numbers():
    waveform = chirp_and_tone(16000)[None, :16000]
    wanted = np.load(COMMITTED)["sincnet40/init_out"]
    got = SincNet(replace(SINCNET, n_mels=40))(torch.from_numpy(waveform)).transpose(1, 2)
    assert np.abs(got.numpy() - wanted).max() <= TOLERANCE


@torch.no_grad()
def test_filters_are_audaxs(golden):
    front_end = SincNet(replace(SINCNET, n_mels=40))
    kernel = torch.from_numpy(golden["sinc_stage/kernel"])
    front_end.low.copy_(kernel[:, 0])
    front_end.band.copy_(kernel[:, 1])
    np.testing.assert_allclose(torch.stack(front_end.edges(), 1), golden["sinc_stage/edges"], rtol=1e-6)
    np.testing.assert_allclose(front_end.filters().T, golden["sinc_stage/filters"], atol=TOLERANCE)


@torch.no_grad()
def test_filters_stay_within_half_the_sample_rate():
    front_end = SincNet(SMALL)
    front_end.low[0], front_end.band[0] = -100, -20
    front_end.band[4] = 1e6
    low, high = front_end.edges()
    assert (low[0].item(), high[0].item(), high[4].item()) == (150, 220, 8000)


@torch.no_grad()
def test_any_length_is_taken_and_a_batch_equals_its_rows():
    front_end = SincNet(SMALL)
    for samples in (1, 15, 16, 17, 1000):
        waveforms = torch.randn(3, samples)
        together = front_end(waveforms)
        assert together.shape == (3, 5, SMALL.num_frames(samples))
        rows = torch.cat([front_end(row[None]) for row in waveforms])
        torch.testing.assert_close(together, rows)


def test_gradients_reach_every_parameter_and_silence_is_finite():
    front_end = SincNet(SMALL)
    waveforms = torch.cat([torch.randn(1, 900), torch.zeros(1, 900)])
    features = front_end(waveforms)
    assert features.isfinite().all()
    (features * torch.randn(features.shape)).sum().backward()
    for name, parameter in front_end.named_parameters():
        assert parameter.ndim == 1, f"{name} would be decayed"
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_nothing_but_parameters_enters_a_checkpoint():
    assert set(SincNet(SMALL).state_dict()) == {"low", "band", "norm.weight", "norm.bias"}


@torch.no_grad()
def test_mixed_precision_changes_nothing():
    front_end, waveform = SincNet(SMALL), torch.randn(1, 900)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = front_end(waveform)
    assert torch.equal(mixed, front_end(waveform))


@pytest.mark.parametrize("waveform", [torch.zeros(500), torch.zeros(1, 1, 500), torch.zeros(1, 500).double()])
def test_invalid_waveforms_raise(waveform):
    with pytest.raises(AudioError):
        SincNet(SMALL)(waveform)
