"""An ensemble as one network: the mean of its members' logits, their embeddings end to end.

Conventions: members keep their own weights and choices. Those that hear alike take the same input; where
they do not, there is an input for each front-end, in the order of the ensemble's record.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.models.network import Network, NetworkConfig, Output


class Ensemble(Network):
    """Several networks that answer as one.

    Source: EfficientAT's ensembles; golden efficientat/models/ensemble_mn04_dymn04_mn10.npz.

    Args:
        members: Networks for the same classes, at least one.
        inputs: Which input each member takes; by default all take the first.

    Raises:
        ModelError: If there are no members, they have other numbers of classes, or inputs do not fit them.
    """

    def __init__(self, members: Sequence[Network], inputs: Sequence[int] | None = None) -> None:
        if not members:
            raise ModelError("an ensemble of no networks answers nothing: give at least one")
        classes = [member.config.num_classes for member in members]
        if len(set(classes)) > 1:
            raise ModelError(f"the members have {classes} classes: give networks with the same labels")
        super().__init__(NetworkConfig(num_classes=classes[0]))
        self.inputs = tuple(inputs) if inputs is not None else (0,) * len(members)
        if len(self.inputs) != len(members) or set(self.inputs) != set(range(max(self.inputs) + 1)):
            raise ModelError(
                f"inputs {self.inputs} do not fit {len(members)} members: give one number each, from 0 on"
            )
        self.members = nn.ModuleList(members)

    def forward(self, *given: Tensor) -> Output:
        """Computes the mean of the logits, and all embeddings.

        Args:
            given: What the members take, one tensor for each front-end: log-mels (batch, mel, frame), or
                waveforms (batch, time) where a front-end is part of the network.

        Returns:
            Logits (batch, class) and embedding (batch, channel of all members).
        """
        answers = [member(given[index]) for member, index in zip(self.members, self.inputs, strict=True)]
        logits = torch.stack([answer.logits for answer in answers]).mean(0)
        return Output(logits, torch.cat([answer.embedding for answer in answers], 1))
