"""A checkpoint that is opened as a tagger answers as its model file does."""

import numpy as np
import pytest

import earmark
from earmark.inference.torch_session import NetworkSession
from earmark.models.checkpoint import save_checkpoint


@pytest.fixture
def checkpoint(exported, info, tmp_path):
    save_checkpoint(tmp_path / "toy.safetensors", exported[0], info)
    return tmp_path / "toy.safetensors"


def test_a_checkpoint_answers_as_its_model_file(exported, checkpoint):
    noise = np.random.default_rng(0).normal(0, 0.1, 10_000).astype(np.float32)
    wanted = earmark.load(exported[1]).tag(noise, 8000)
    for model in (checkpoint, f"{checkpoint}+{exported[1]}"):
        tagger = earmark.load(model)
        found = tagger.tag(noise, 8000)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=1e-4)
        assert len(found.windows) == 3
    assert found.embedding.shape == (2 * wanted.embedding.size,)
    assert tagger.info.name == "toy+toy"
    assert np.ptp(wanted.scores) > 0.05


def test_a_session_answers_what_it_is_asked_for(exported, info):
    session = NetworkSession(exported[0].train())
    log_mel = np.random.default_rng(0).standard_normal((2, info.front_end.n_mels, 30)).astype(np.float32)
    embedding, logits = session.run(["embedding", "logits"], {"log_mel": log_mel})
    assert (embedding.shape, logits.shape) == ((2, info.embedding_size), (2, 2))
    alone = session.run(["logits"], {"log_mel": log_mel[:1]})[0]
    np.testing.assert_allclose(alone, logits[:1], rtol=0, atol=1e-5)
