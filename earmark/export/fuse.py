"""Fuses a network for running: its batch norms become part of the layers before them.

Conventions: nothing is changed in place; a fused network has ``config.fused``, its record the argument
``fused``, by which a checkpoint of it loads like any other.
"""

from __future__ import annotations

import copy

from earmark.model_file.info import ModelInfo
from earmark.models.fuse_batch_norm import fuse_batch_norm
from earmark.models.network import Network


def fuse(network: Network, *, eps: float | None = None) -> Network:
    """Folds all batch norms of a network.

    Source: :mod:`earmark.models.fuse_batch_norm`; held by the goldens of all networks and by
    sp4asc/sp4asc.npz, whose published scores are those of SP4ASC's own fusion, which leaves out the epsilon of
    the norms.

    Args:
        network: From the registry, with a front-end that learns or without, trained.
        eps: What is added to the running variances; None for what each norm adds, which is exact; 0 for
            parity with SP4ASC.

    Returns:
        A fused copy in evaluation mode; of a network that is fused, or has no batch norms, an equal one.

    Raises:
        ModelError: If a channel has no variance, and eps is 0.
    """
    fused = copy.deepcopy(network).eval()
    fuse_batch_norm(fused, eps)
    return fused


def fused_record(info: ModelInfo, *, eps: float | None = None) -> ModelInfo:
    """The record of a fused network, which says how it was fused.

    Args:
        info: Of the network as it was trained.
        eps: As given to :func:`fuse`.
    """
    how = "batch norms folded" + ("" if eps is None else f" with an epsilon of {eps:g}")
    return info.changed(
        arguments={**info.arguments, "fused": True}, provenance={**info.provenance, "fused": how}
    )
