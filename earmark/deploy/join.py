"""From several networks to one model file that answers as all of them together.

Conventions: as for :mod:`earmark.deploy.export`; the file runs like any other, without PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from earmark.deploy.export import export_model
from earmark.ensemble import joined
from earmark.errors import ModelError
from earmark.models.ensemble import Ensemble
from earmark.models.network import Network
from earmark.record import Record


def join(
    members: Sequence[tuple[Network, Record]], path: str | PathLike[str], name: str | None = None
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
    record = joined([own for _, own in members], name)
    inputs = [record.front_ends.index(own.front_end) for _, own in members]
    return export_model(Ensemble([network for network, _ in members], inputs), record, path)
