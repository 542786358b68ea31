"""The committed toy model is what its script makes, and its graph is that of its network."""

import numpy as np
import onnxruntime
import pytest
import torch
import toy_model


def outputs(graph: bytes, log_mel: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["logits", "embedding"], {"log_mel": log_mel})


@pytest.mark.parametrize("shape", [(1, 32, 1), (2, 32, 26), (3, 32, 50)])
@torch.no_grad()
def test_the_graph_is_the_networks(shape):
    log_mel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = toy_model.toy_network()(torch.from_numpy(log_mel))
    for ours, theirs in zip(outputs(toy_model.toy_content(), log_mel), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_it_can_be_made_again(tmp_path):
    toy_model.write(tmp_path)
    made, kept = (toy_model.toy_network(folder).state_dict() for folder in (tmp_path, toy_model.GOLDEN))
    for name, values in kept.items():
        torch.testing.assert_close(made[name], values, rtol=1e-3, atol=1e-3)
    log_mel = np.random.default_rng(0).standard_normal((2, 32, 50)).astype(np.float32)
    made, kept = (
        outputs(toy_model.toy_content(folder=folder), log_mel) for folder in (tmp_path, toy_model.GOLDEN)
    )
    for ours, theirs in zip(made, kept, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-2)
