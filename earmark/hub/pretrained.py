"""Networks with published or trained weights, to train, export or evaluate in PyTorch.

Conventions: networks are on the CPU and in evaluation mode. Needs the extra "train".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from earmark.errors import ModelError
from earmark.hub import registry
from earmark.hub.pull import pull
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.hub.download import Progress
    from earmark.models import Network


def pretrained(name: str, num_classes: int | None = None) -> tuple[Network, ModelInfo]:
    """A published network to start a training from; fetched on first use.

    Args:
        name: Of the table of published weights.
        num_classes: Of a fresh head; None or the published number: the head as published.

    Returns:
        The network on the CPU in evaluation mode, and the record of what was published.

    Raises:
        ModelError: As :func:`pull` does.
        MissingExtraError: If PyTorch is not installed.
    """
    known = registry.entry(name)
    if not known.checkpoint.is_file():
        pull(name, force=True)
    from earmark.models.checkpoint import load_checkpoint
    from earmark.models.weights import replace_head

    network, info = load_checkpoint(known.checkpoint)
    if num_classes is not None:
        network = replace_head(network, num_classes)
    return network, info


def trained(model: str, progress: Progress | None = None) -> tuple[Network, ModelInfo]:
    """The network behind a name or a checkpoint, to make something of; needs PyTorch.

    Args:
        model: Name of published weights that hear, fetched on first use, or path of a checkpoint.
        progress: As for :func:`load`.

    Returns:
        The network on the CPU in evaluation mode, and its record.

    Raises:
        ModelError: If the model is unknown, cannot be had, or is a graph.
    """
    from earmark.models.checkpoint import load_checkpoint

    if Path(model).suffix == ".safetensors":
        return load_checkpoint(model)
    known = registry.published().get(model)
    if known is None or known.labels is None:
        found = registry.find(model)  # says what is wrong with the name, if anything is
        raise ModelError(
            f"{model}: {found} holds a graph, this takes weights: give a checkpoint (.safetensors) or the "
            "name of published weights"
        )
    pull(model, progress=progress)
    return pretrained(model)
