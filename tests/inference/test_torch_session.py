"""A checkpoint as a tagger."""

import numpy as np
import pytest
import torch

import earmark
from earmark.errors import ModelError
from earmark.inference.torch_session import NetworkSession
from earmark.models.checkpoint import save_checkpoint


@pytest.fixture
def checkpoint(exported, info, tmp_path):
    save_checkpoint(tmp_path / "toy.safetensors", exported[0], info)
    return tmp_path / "toy.safetensors"


def test_a_checkpoint_predicts_as_its_model_file(exported, checkpoint):
    noise = np.random.default_rng(0).normal(0, 0.1, 10_000).astype(np.float32)
    wanted = earmark.load(exported[1]).tag(noise, 8000)
    for model in (checkpoint, [checkpoint, exported[1]]):
        tagger = earmark.load(model)
        found = tagger.tag(noise, 8000)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=1e-4)
        assert len(found.windows) == 3
    assert found.embedding.shape == (2 * wanted.embedding.size,)
    assert tagger.info.name == "toy+toy"
    assert np.ptp([window.scores for window in wanted.windows]) > 0.05


def test_a_session_returns_the_outputs_asked_for(exported, info):
    session = NetworkSession(exported[0].train())
    log_mel = np.random.default_rng(0).standard_normal((2, info.front_end.n_mels, 30)).astype(np.float32)
    embedding, logits = session.run(["embedding", "logits"], {"log_mel": log_mel})
    assert (embedding.shape, logits.shape) == ((2, info.embedding_size), (2, 2))
    alone = session.run(["logits"], {"log_mel": log_mel[:1]})[0]
    np.testing.assert_allclose(alone, logits[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"engine": "openvino"}, {"precision": "bf16"}])
def test_a_checkpoint_has_no_engine(tmp_path, options):
    with pytest.raises(ModelError, match="a checkpoint runs in PyTorch"):
        earmark.load(tmp_path / "some.safetensors", **options)


def test_devices(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert earmark.load(checkpoint, device="auto").info.name == "toy"
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ModelError, match=f"device {device} is not available"):
            earmark.load(checkpoint, device=device)
    moved = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: moved.append(device) or module)
    for device in ("auto", "cuda", "cuda:1"):
        earmark.load(checkpoint, device=device)
    assert moved == [torch.device("cuda", index) for index in (0, 0, 1)]
    with pytest.raises(ModelError):
        earmark.load(checkpoint, device="cuda:2")
