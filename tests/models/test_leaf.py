"""LEAF: parity with audax's, stage by stage, and what it takes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from audax_golden import COMMITTED, assert_front_end, front_end_variables
from front_end_cases import chirp_and_tone

from earmark.errors import AudioError
from earmark.features.learned import LEAF
from earmark.models.leaf import Leaf, gabor_filters, gaussian_kernels, running_average

SMALL = replace(LEAF, n_mels=5, win_length=41, hop_length=16)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden(shared: Path):
    with np.load(shared / "golden" / "audax" / "features_frontends.npz") as stored:
        yield stored


@pytest.mark.parametrize("name", ["leaf40", "leaf64"])
@pytest.mark.parametrize("weights", ["init", "pert"])
def test_features_are_audaxs(golden, name, weights):
    waveforms = np.stack([golden["wav/synth1s"], golden["wav/sample"]])
    assert_front_end(LEAF, golden, f"{name}/{weights}", waveforms, TOLERANCE)


@pytest.mark.parametrize("name", ["leaf40", "leaf64"])
def test_starting_weights_are_audaxs(golden, shared, name):
    shapes = json.loads((shared / "golden" / "audax" / "frontend_shapes.json").read_text())[name]
    weights = {path: golden[f"{name}/init/{path}"] for path in shapes}
    wanted = front_end_variables(LEAF, weights)
    for key, tensor in Leaf(replace(LEAF, n_mels=int(name[-2:]))).state_dict().items():
        torch.testing.assert_close(tensor, wanted[key], rtol=1e-6, atol=0, msg=key)


@torch.no_grad()
def test_features_are_the_committed_numbers():
    waveform = chirp_and_tone(16000)[None, :16000]
    wanted = np.load(COMMITTED)["leaf40/init_out"]
    got = Leaf(replace(LEAF, n_mels=40))(torch.from_numpy(waveform)).transpose(1, 2)
    assert np.abs(got.numpy() - wanted).max() <= TOLERANCE


def test_filters_are_audaxs(golden):
    centre, width = torch.from_numpy(golden["leaf_stage/gabor_kernel"]).unbind(1)
    for part, got in zip(("real", "imag"), gabor_filters(centre, width, 401), strict=True):
        np.testing.assert_allclose(got, golden[f"leaf_stage/gabor_filters_{part}"], atol=1e-7)
    low_pass = gaussian_kernels(torch.tensor([0.4]), 401)[0]
    np.testing.assert_allclose(low_pass, golden["leaf_stage/lowpass_0.4"], atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 9, 300])
def test_running_average_is_the_recurrence(frames):
    energies = torch.rand(2, 4, frames, dtype=torch.float64)
    share = torch.tensor([0.0, 0.04, 0.7, 1.0], dtype=torch.float64)
    wanted = [energies[:, :, 0]]
    for frame in range(1, frames):
        wanted.append(share * energies[:, :, frame] + (1 - share) * wanted[-1])
    torch.testing.assert_close(running_average(energies, share), torch.stack(wanted, 2))


def test_filters_stay_within_reach():
    front_end = Leaf(SMALL)
    bounded = Leaf(SMALL)
    with torch.no_grad():
        front_end.centre[:2] = torch.tensor([-1.0, 9.0])
        bounded.centre[:2] = torch.tensor([0.0, torch.pi])
        for bound, value in (
            ("alpha", 2.0),
            ("root", 0.5),
            ("smooth", 7.0),
            ("lowpass", 1.0),
            ("width", 1e4),
        ):
            getattr(front_end, bound)[0] = value
        bounded.alpha[0] = bounded.root[0] = bounded.smooth[0] = 1
        bounded.lowpass[0], bounded.width[0] = 0.5, 41 * (2 * np.log(2)) ** 0.5 / np.pi
        waveform = torch.randn(1, 500)
        torch.testing.assert_close(front_end(waveform), bounded(waveform))


@pytest.mark.parametrize(
    ("rule", "std"), [("randn", 0.01), ("lecun_normal", 256**-0.5), ("kaiming_normal", 128**-0.5)]
)
def test_random_initial_filters_have_the_spread_of_audaxs(rule, std):
    torch.manual_seed(0)
    drawn, again = (Leaf(replace(LEAF, n_mels=256, initial_filters=rule)) for _ in range(2))
    for name in ("centre", "width"):
        values = getattr(drawn, name).detach()
        assert float(values.mean()) == pytest.approx(0, abs=0.3 * std)
        assert float(values.std()) == pytest.approx(std, rel=0.15)
        assert not torch.equal(values, getattr(again, name))
    assert torch.equal(drawn.lowpass, Leaf(replace(LEAF, n_mels=256)).lowpass)
    assert drawn(torch.randn(1, 900)).isfinite().all()


@torch.no_grad()
def test_any_length_is_taken_and_a_batch_equals_its_rows():
    front_end = Leaf(SMALL)
    for samples in (1, 15, 16, 17, 1000):
        waveforms = torch.randn(3, samples)
        together = front_end(waveforms)
        assert together.shape == (3, 5, SMALL.num_frames(samples))
        rows = torch.cat([front_end(row[None]) for row in waveforms])
        torch.testing.assert_close(together, rows)


def test_gradients_reach_every_parameter_and_silence_is_finite():
    front_end = Leaf(SMALL)
    waveforms = torch.cat([torch.randn(1, 900), torch.zeros(1, 900)])
    features = front_end(waveforms)
    assert features.isfinite().all()
    features.square().sum().backward()
    for name, parameter in front_end.named_parameters():
        assert parameter.ndim == 1, f"{name} would be decayed"
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_mixed_precision_changes_nothing():
    front_end, waveform = Leaf(SMALL), torch.randn(1, 900)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = front_end(waveform)
    assert torch.equal(mixed, front_end(waveform))


@pytest.mark.parametrize("waveform", [torch.zeros(500), torch.zeros(1, 1, 500), torch.zeros(1, 500).double()])
def test_invalid_waveforms_raise(waveform):
    with pytest.raises(AudioError):
        Leaf(SMALL)(waveform)
