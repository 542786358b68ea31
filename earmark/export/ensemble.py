"""Joins several networks into one model whose logits are the mean of theirs.

Conventions: the resulting model file runs like any other, without PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

from earmark.errors import ModelError
from earmark.export.source import ExportSource
from earmark.inference.ensemble import ensemble_info
from earmark.models.ensemble import Ensemble


def join_sources(sources: Sequence[ExportSource], name: str | None = None) -> ExportSource:
    """Joins models.

    Args:
        sources: The members, with weights; a single one is returned as it is.
        name: Name of the ensemble; default: the names of its members with "+" between them.

    Raises:
        ModelError: If there is no member, one has no weights, or they differ in labels, task, front-end,
            or window.
    """
    if not sources:
        raise ModelError("no model given: name at least one")
    if len(sources) == 1:
        [only] = sources
        return ExportSource(only.info.changed(name=name), only.network, only.content) if name else only
    info = ensemble_info([source.info for source in sources], name)
    networks = [source.require_network("an ensemble in one file") for source in sources]
    return ExportSource(info, Ensemble(networks).eval())
