"""From several networks to one model file that answers as all of them together.

Conventions: as for :mod:`earmark.export.export`; the file runs like any other, without PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

from earmark.errors import ModelError
from earmark.export.export import export_model
from earmark.hub.pretrained import trained
from earmark.inference.ensemble import ensemble_info
from earmark.model_file.info import ModelInfo
from earmark.models.ensemble import Ensemble
from earmark.models.network import Network

if TYPE_CHECKING:
    from earmark.hub.download import Progress


def join_networks(
    members: Sequence[tuple[Network, ModelInfo]], path: str | PathLike[str], name: str | None = None
) -> float:
    """Writes an ensemble as one model file.

    Args:
        members: Networks with their records, as load_checkpoint gives them; at least two.
        path: Of the file, replaced whole.
        name: Of the ensemble; by default those of its members with "+" between them.

    Returns:
        The largest difference found between the networks' mean and the file.

    Raises:
        ModelError: If there are less than two, they do not agree on labels, task, window and padding, or the
            file's answers differ from the networks'; nothing is written then.
    """
    if len(members) < 2:
        raise ModelError("an ensemble has at least two members: name another model")
    info = ensemble_info([own for _, own in members], name)
    inputs = [info.front_ends.index(own.front_end) for _, own in members]
    return export_model(Ensemble([network for network, _ in members], inputs), info, path)


def join(
    models: Sequence[str],
    out: str | PathLike[str],
    name: str | None = None,
    *,
    progress: Progress | None = None,
) -> float:
    """Writes an ensemble, the mean of several models' logits, as one model file; needs PyTorch.

    Args:
        models: Names of published weights, fetched on first use, or paths of checkpoints (.safetensors).
        out: The model file; :func:`load` runs it like any other, without PyTorch.
        name: Of the ensemble; by default those of its members with "+" between them.
        progress: As for :func:`load`.

    Returns:
        The largest difference found between the networks' mean and the file.

    Raises:
        ModelError: If a model is unknown or cannot be had, or they do not agree on labels, task, window and
            padding.
        MissingExtraError: If PyTorch is not installed.
    """
    return join_networks([trained(model, progress) for model in models], out, name)
