"""Ensembles as one network.

Untested without ../shared: parity with EfficientAT's ensemble of mn04, dymn04 and mn10.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import build_tensors, own_arguments, read_index, read_manifest, settle
from parity import log_mel, relative

from earmark.errors import ModelError
from earmark.models import create_model
from earmark.models.ensemble import Ensemble

GOLDEN = "ensemble_mn04_dymn04_mn10"


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "efficientat"


@torch.no_grad()
def test_matches_golden(golden):
    members = []
    for name in GOLDEN.split("_")[1:]:
        entry = read_index(golden)[name]
        family = "dymn" if entry["family"] == "dymn" else "mobilenet"
        network = create_model(family, **own_arguments(entry["build_kwargs"]))
        network.load_state_dict(build_tensors(read_manifest(golden, entry["weights"])["tensors"]))
        members.append(network)
    ensemble = Ensemble(members).eval()
    wanted = np.load(golden / "models" / f"{GOLDEN}.npz")["logits"]
    for row, clip in enumerate(("synth", "metro")):
        spectrogram, exact = log_mel(golden, clip, "m128_h320")
        assert relative(ensemble(spectrogram).logits[0], wanted[row]) <= (2e-5 if exact else 1e-3)


def small(seed):
    torch.manual_seed(seed)
    return settle(create_model("cnn6_60k", num_classes=2, n_mels=32))


@torch.no_grad()
def test_logits_are_averaged_and_embeddings_concatenated():
    members, spectrogram = [small(seed) for seed in range(3)], torch.randn(3, 32, 26)
    outputs = [member(spectrogram) for member in members]
    output = Ensemble(members).eval()(spectrogram)
    torch.testing.assert_close(output.logits, sum(one.logits for one in outputs) / 3)
    torch.testing.assert_close(output.embedding, torch.cat([one.embedding for one in outputs], 1))
    assert output.logits.std() > 1e-2
    alone = Ensemble(members[:1]).eval()(spectrogram)
    torch.testing.assert_close(alone, outputs[0], rtol=0, atol=0)


def test_all_members_are_trained():
    ensemble = Ensemble([small(0), small(1)])
    assert {name.split(".")[1] for name in ensemble.state_dict()} == {"0", "1"}
    ensemble.train()(torch.randn(4, 32, 26)).logits.square().sum().backward()
    assert all(parameter.grad.any() for parameter in ensemble.parameters())


def test_no_members_and_different_classes_raise():
    with pytest.raises(ModelError):
        Ensemble([])
    with pytest.raises(ModelError):
        Ensemble([create_model("mn01", num_classes=2), create_model("mn01", num_classes=3)])
