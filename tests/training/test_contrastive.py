"""Contrastive pretraining: its losses by their formulas, its pairs of crops, and what a probe gains."""

import json

import numpy as np
import pytest
import torch
import toy
from processes import together
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from earmark.training.config.contrastive import Contrastive
from earmark.training.contrastive import ContrastiveHead, CropPairs, contrastive_loss
from earmark.training.cross_validation import cross_validate
from earmark.training.model_card import model_card
from earmark.training.trainer import train_network


def pretraining(clips, kind="cola", **tables):
    """A recipe that learns from the toy's clips without their labels."""
    source = {"manifests": [str(clips)], "labelled": False}
    defaults = {
        "data": {"sources": [source], "folds": [1]},
        "augment": {"roll_s": 0, "mixup_alpha": 0, "noise_snr_db": 18, "f_max_range": 0},
        "contrastive": {"kind": kind, "crop_s": 0.2, "projection_size": 32},
    }
    merged = {name: {**value, **tables.pop(name, {})} for name, value in defaults.items()}
    return toy.toy_recipe(clips, **merged, **tables)


def log_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def embeddings():
    return torch.randn(10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def head(kind: str, **settings) -> ContrastiveHead:
    torch.manual_seed(1)
    return ContrastiveHead(Contrastive(kind=kind, crop_s=1, projection_size=5, **settings), 7).double()


def log_softmax(row: np.ndarray) -> np.ndarray:
    return row - np.log(np.exp(row).sum())


def test_cola_is_the_cross_entropy_of_bilinear_similarities(embeddings):
    cola = head("cola")
    projection, bilinear = (layer.weight.detach().numpy() for layer in (cola.projection, cola.bilinear))
    projected = embeddings.numpy() @ projection.T
    deviation = np.sqrt(projected.var(1, keepdims=True) + 1e-5)
    projected = np.tanh((projected - projected.mean(1, keepdims=True)) / deviation)
    terms = []
    for clip in range(5):
        similarities = [projected[2 * clip] @ bilinear @ projected[2 * other + 1] for other in range(5)]
        terms.append(-log_softmax(np.array(similarities))[clip])
    assert contrastive_loss(*cola(embeddings)).item() == pytest.approx(np.mean(terms), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_the_nt_xent_loss(embeddings, temperature):
    simclr = head("simclr", temperature=temperature)
    projected = embeddings.numpy() @ simclr.projection.weight.detach().numpy().T
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    terms = []
    for row in range(10):
        others = [other for other in range(10) if other != row]
        similarities = np.array([projected[row] @ projected[other] / temperature for other in others])
        partner = row + 1 if row % 2 == 0 else row - 1
        terms.append(-log_softmax(similarities)[others.index(partner)])
    assert contrastive_loss(*simclr(embeddings)).item() == pytest.approx(np.mean(terms), abs=1e-12)


def test_crops_of_a_clip_lie_side_by_side_and_the_positive_alone_is_augmented(clips):
    class Samples(nn.Module):
        """In the place of a front-end: the samples themselves."""

        def forward(self, waveforms):
            return waveforms[:, None]

    pairs = CropPairs(pretraining(clips, augment={"mask_mels": 0, "gain_db": [20, 20]}), Samples())
    waveforms = torch.arange(1.0, 4)[:, None] * torch.ones(3, 4000)
    plain = pairs(waveforms, np.random.default_rng(0), augmented=False)
    assert plain.shape == (6, 1, 1600)
    assert plain[:, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]
    augmented = pairs(waveforms, np.random.default_rng(0))
    assert torch.equal(augmented[0::2], plain[0::2])
    levels = augmented[1::2, 0].square().mean(-1).sqrt() / torch.tensor([10.0, 20, 30])
    torch.testing.assert_close(levels, torch.full((3,), (1 + 10**-1.8) ** 0.5), atol=0.01, rtol=0)
    assert (augmented[1::2, 0].std(-1) > 0).all(), "noise differs from sample to sample"


@pytest.mark.parametrize(
    ("tables", "stated"),
    [
        ({"data": {"sources": [{"manifests": ["clips.csv"]}]}}, "labelled = false"),
        ({"data": {"labels": ["tone"]}}, "remove data.labels"),
        ({"data": {"folds": [1, 2]}}, "at most one fold"),
        ({"augment": {"crop_s": 0.1}}, "contrastive.crop_s"),
        ({"contrastive": {"crop_s": 0.6}}, "contrastive.crop_s must be at most window_s"),
        ({"contrastive": {"crop_s": 0.001}}, "contrastive.crop_s is shorter than one frame"),
        ({"optimizer": {"batch_size": 1}}, "batch_size must be at least 2"),
        ({"evaluation": {"negative_manifests": ["quiet.csv"]}}, "negative_manifests"),
        ({"teacher": {"path": "teacher.npz", "imitation_weight": 1}}, "remove [teacher]"),
    ],
    ids=str,
)
def test_what_needs_labels_is_refused(clips, tables, stated):
    with pytest.raises(ValidationError) as caught:
        pretraining(clips, **tables)
    [error] = caught.value.errors()
    assert stated in error["msg"]
    assert "\n" not in error["msg"]


def test_the_card_claims_no_scores(clips, tmp_path):
    recipe = pretraining(clips, optimizer={"epochs": 1})
    result = cross_validate(recipe, tmp_path)
    card = model_card(recipe, result)
    assert "Trained on: 12 clips without labels" in card
    assert "## Scores" not in card
    assert "## Labels" not in card
    assert "Author" in card, "recordings are credited"
    assert len(result.info.labels) == 1


@pytest.mark.parametrize("kind", ["cola", pytest.param("simclr", marks=pytest.mark.slow)])
def test_an_interrupted_run_resumes_to_the_bit(clips, kind, tmp_path):
    class InterruptionError(Exception):
        pass

    def interrupt(facts):
        if facts.get("epoch") == 2 and facts.get("step") == 2:
            raise InterruptionError

    recipe = pretraining(clips, kind, optimizer={"epochs": 2}, run={"save_every_s": 0})
    train_network(recipe, tmp_path / "whole", 1)
    with pytest.raises(InterruptionError):
        train_network(recipe, tmp_path / "cut", 1, interrupt)
    train_network(recipe, tmp_path / "cut", 1)
    whole, cut = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "cut"))
    assert any("contrastive" in name for name in whole)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    logs = [[{**line, "seconds": 0} for line in log_of(tmp_path / name)] for name in ("whole", "cut")]
    assert logs[0] == logs[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cola", "simclr"])
def test_two_processes_train_as_one(clips, kind, tmp_path):
    recipe = pretraining(
        clips,
        kind,
        model={"arguments": {"n_mels": 32, "dropout": 0.0}},
        optimizer={"epochs": 1, "sync_batch_norm": True},
        run={"device": "cpu"},
    )
    values = recipe.model_dump(mode="json", exclude_unset=True)
    tables = {name: values[name] for name in ("data", "augment", "contrastive", "model", "optimizer", "run")}
    train_network(recipe, tmp_path / "one", 1)
    given = {"clips": str(clips), "folder": str(tmp_path / "two"), "tables": tables}
    assert together(2, **given) == [(0, ""), (0, "")]
    [one], [two] = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    for name in ("loss", "contrastive_loss"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "epochs"), [("cola", 40), ("simclr", 20)])
def test_training_finds_more_positives_and_a_probe_learns_from_it(kind, epochs, tmp_path):
    clips = toy.write_clips(tmp_path / "clips", clips_per_fold=64, quiet=0)
    model = {"arguments": {"n_mels": 32, "dropout": 0.0}}
    optimizer = {"batch_size": 16, "ema_decay": 0.0}
    found = {}
    for name, length, learning_rate in (("untrained", 1, 1e-9), ("trained", epochs, 3e-3)):
        changed = {"epochs": length, "learning_rate": learning_rate}
        recipe = pretraining(
            clips,
            kind,
            model=model,
            optimizer=optimizer | changed,
            evaluation={"every_epochs": 100},
        )
        train_network(recipe, tmp_path / name, 1)
        found[name] = log_of(tmp_path / name)[-1]["contrastive_accuracy"]
    assert found["trained"] > 4 / 16
    assert found["trained"] > 1.3 * found["untrained"]
    probe = toy.toy_recipe(
        clips,
        task="single_label",
        model={**model, "init_from": str(tmp_path / "trained" / "last.safetensors"), "new_head": True},
        augment={"roll_s": 0, "mixup_alpha": 0, "mask_mels": 0, "f_max_range": 0, "gain_db": [0, 0]},
        optimizer=optimizer | {"epochs": 5, "backbone_lr_scale": 0},
        evaluation={"every_epochs": 100},
    )
    train_network(probe, tmp_path / "probe", 1)
    assert log_of(tmp_path / "probe")[-1]["accuracy"] > 0.85
