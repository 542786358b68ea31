"""From a file of weights to what earmark runs and trains on: a model file and a checkpoint with its record.

Conventions: nothing is written unless every tensor has its place in the network.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch

from earmark.deploy.export import export_model
from earmark.errors import ModelError
from earmark.models.checkpoint import save_checkpoint
from earmark.models.network import Network
from earmark.models.published import LAYOUTS, fit, read_weights
from earmark.record import Record


def convert(
    source: str | PathLike[str],
    record: Record,
    *,
    checkpoint: str | PathLike[str],
    model_file: str | PathLike[str] | None,
    layout: str = "",
) -> float:
    """Converts a file of weights.

    Args:
        source: A PyTorch checkpoint or a safetensors file.
        record: What the weights are; the size of the embedding is filled in.
        checkpoint: Where the weights go, as safetensors.
        model_file: Where the graph goes that runs without PyTorch; None for weights that hear nothing.
        layout: Whose names the tensors bear: "" the architecture's, or "torchvision".

    Returns:
        The largest difference between network and model file; 0 without a model file.

    Raises:
        ModelError: If the file is damaged, holds more than data, or its weights are not those of the record.
    """
    tensors = LAYOUTS[layout](read_weights(source))
    try:
        network = fit(record.architecture, record.arguments, len(record.labels), tensors)
    except ModelError as error:
        raise ModelError(f"{Path(source)}: {error}") from None
    record = record.changed(embedding_size=_embedding_size(network, record))
    save_checkpoint(checkpoint, network, record)
    return export_model(network, record, model_file) if model_file else 0.0


@torch.no_grad()
def _embedding_size(network: Network, record: Record) -> int:
    front_end = record.front_end
    frames = front_end.num_frames(round(record.window_s * front_end.sample_rate))
    return network(torch.zeros(1, front_end.n_mels, frames)).embedding.shape[1]  # type: ignore[no-any-return]
