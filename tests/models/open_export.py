"""Checks that a network's model file answers as the network does, at any batch and length."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from earmark.export.export import TOLERANCE, export_model
from earmark.model_file.info import ModelInfo
from earmark.models import Network


@torch.no_grad()
def assert_exports(network: Network, info: ModelInfo, path: Path) -> None:
    """Exports a network that takes log-mels and compares at lengths that the export did not try."""
    assert export_model(network, info, path) <= TOLERANCE
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch, frames in [(1, 1), (2, 7), (1, 32), (4, 33), (1, 101)]:
        log_mel = np.random.default_rng(1).standard_normal((batch, info.front_end.n_mels, frames))
        log_mel = log_mel.astype(np.float32)
        answers = session.run(["logits", "embedding"], {"log_mel": log_mel})
        for want, got in zip(network(torch.from_numpy(log_mel)), answers, strict=True):
            assert got.shape == want.shape
            assert np.abs(want.numpy() - got).max() <= TOLERANCE * max(1.0, float(want.abs().max()))
    assert want.std() > 1e-3, "what it hears must matter"
