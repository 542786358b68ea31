"""Folds the batch norms of a network into the layers before them.

Conventions: nothing is changed in place. A fused network has ``config.fused``, and its model info the
argument ``fused``, so that its checkpoint loads like any other.
"""

from __future__ import annotations

import copy

from torch import nn

from earmark.errors import ModelError
from earmark.export.source import ExportSource
from earmark.export.weight_precision import graph_of, require_fp32
from earmark.model_file.info import ModelInfo
from earmark.models.fuse_batch_norm import fuse_batch_norm
from earmark.models.network import Network


def fuse(network: Network, *, eps: float | None = None) -> Network:
    """Folds all batch norms of a network.

    Source: :mod:`earmark.models.fuse_batch_norm`; held by the goldens of all networks and by
    sp4asc/sp4asc.npz, whose published scores are those of SP4ASC's fusion, which omits the epsilon of the
    norms.

    Args:
        network: A trained network from the registry, with or without a learned front-end.
        eps: Added to the running variances; None: the norms' own epsilon, which is exact; 0: as SP4ASC does.

    Returns:
        A fused copy in evaluation mode; an equal one if the network is fused already or has no batch norms.

    Raises:
        ModelError: If a channel has zero variance and eps is 0.
    """
    fused = copy.deepcopy(network).eval()
    fuse_batch_norm(fused, eps)
    return fused


def fused_info(info: ModelInfo, *, eps: float | None = None) -> ModelInfo:
    """The model info of a fused network.

    Args:
        info: That of the trained network.
        eps: As for :func:`fuse`.
    """
    how = "batch norms folded" + ("" if eps is None else f" with an epsilon of {eps:g}")
    return info.changed(
        arguments={**info.arguments, "fused": True}, provenance={**info.provenance, "fused": how}
    )


def fuse_source(source: ExportSource, *, eps: float | None = None) -> tuple[ExportSource, int]:
    """Folds the batch norms of a model to export.

    Args:
        source: The model, in fp32. Exporting has folded most norms of a model file already; one without
            norms is returned as it is.
        eps: As for :func:`fuse`.

    Returns:
        The fused model, and the number of norms that were folded.

    Raises:
        ModelError: If the model is not in fp32, or is a model file with norms.
    """
    require_fp32(source.info)
    if source.network is None:
        if has_batch_norms(source):
            name = source.info.name
            raise ModelError(f"{name}: the norms of a model file cannot be folded: give its checkpoint")
        return source, 0
    if source.network.config.fused:
        return source, 0
    norms = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in source.network.modules())
    return ExportSource(fused_info(source.info, eps=eps), fuse(source.network, eps=eps)), norms


def has_batch_norms(source: ExportSource) -> bool:
    """Whether a graph has batch norms."""
    nodes = graph_of(source.content).graph.node
    return any(node.op_type == "BatchNormalization" for node in nodes)
