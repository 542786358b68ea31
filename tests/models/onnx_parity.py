"""Compares the ONNX graph of a network with the network, at any batch and length."""

from collections.abc import Iterable

import numpy as np
import onnxruntime
import torch

from earmark.model_file.info import ModelInfo
from earmark.models import Network
from earmark.models.onnx_graph import OUTPUT_NAMES, network_to_onnx

TOLERANCE = 1e-4
"""Of logits and embedding, relative to the largest value where that is above 1."""
BATCHES_AND_FRAMES = [(1, 1), (2, 7), (1, 32), (4, 33), (1, 101)]


def graph_session(network: Network, info: ModelInfo) -> onnxruntime.InferenceSession:
    """Exports a network and opens its graph."""
    graph = network_to_onnx(network, info).SerializeToString()
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


@torch.no_grad()
def largest_difference(
    network: Network, session: onnxruntime.InferenceSession, inputs: np.ndarray, name: str = "log_mel"
) -> float:
    """Returns the largest relative difference of logits and embedding."""
    worst = 0.0
    outputs = session.run(list(OUTPUT_NAMES), {name: inputs})
    for wanted, got in zip(network(torch.from_numpy(inputs)), outputs, strict=True):
        assert got.shape == wanted.shape
        scale = max(1.0, float(wanted.abs().max()))
        worst = max(worst, float(np.abs(wanted.numpy() - got).max()) / scale)
    return worst


def assert_exports(
    network: Network, info: ModelInfo, sizes: Iterable[tuple[int, int]] = BATCHES_AND_FRAMES
) -> None:
    """Exports a network that takes log-mels and compares at batches and lengths other than the example's."""
    session = graph_session(network, info)
    for batch, frames in sizes:
        log_mel = np.random.default_rng(1).standard_normal((batch, info.front_end.n_mels, frames))
        assert largest_difference(network, session, log_mel.astype(np.float32)) <= TOLERANCE
    with torch.no_grad():
        assert network(torch.from_numpy(log_mel).float()).embedding.std() > 1e-3, "the input must matter"
