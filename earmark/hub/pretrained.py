"""Networks of published models and of checkpoints, to train, export or evaluate in PyTorch.

Conventions: networks are on the CPU and in evaluation mode. Needs the extra "train".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from earmark.errors import ModelError, extra
from earmark.hub import registry
from earmark.hub.pull import pull
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.hub.download import Progress
    from earmark.models import Network


def load_network(model: str, progress: Progress | None = None) -> tuple[Network, ModelInfo]:
    """Loads a network with its weights.

    Args:
        model: Name of a published model, which is downloaded on first use, or path of a checkpoint.
        progress: As for :func:`earmark.hub.pull.pull`.

    Returns:
        The network on the CPU in evaluation mode, and its model info.

    Raises:
        ModelError: If the model is unknown, cannot be downloaded, or has a graph but no weights.
        MissingExtraError: If PyTorch is not installed.
    """
    with extra("loading a network", "train"):
        from earmark.models.checkpoint import load_checkpoint

    if Path(model).suffix == ".safetensors":
        return load_checkpoint(model)
    known = registry.published().get(model)
    if known is None:
        file = registry.find(model)  # raises if there is no such model
        raise ModelError(
            f"{model}: {file} has a graph, but no weights: pass a checkpoint (.safetensors) or the name of a "
            "published model"
        )
    if not known.checkpoint.is_file():
        pull(model, force=known.is_cached, progress=progress)
    return load_checkpoint(known.checkpoint)
