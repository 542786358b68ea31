"""An ensemble as one network: the mean of its members' logits, their embeddings concatenated.

Conventions: all members have the same front-end and the same classes; each keeps its weights and its config.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.models.network import Network, NetworkConfig, Output


class Ensemble(Network):
    """Mean of several networks.

    Source: EfficientAT's ensembles; golden efficientat/models/ensemble_mn04_dymn04_mn10.npz.

    Args:
        members: Networks for the same classes, at least one.

    Raises:
        ModelError: If there are no members, or their numbers of classes differ.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        if not members:
            raise ModelError("an ensemble needs at least one member, got none")
        classes = [member.config.num_classes for member in members]
        if len(set(classes)) > 1:
            raise ModelError(f"members of an ensemble need the same labels, got {classes} classes")
        super().__init__(NetworkConfig(num_classes=classes[0]))
        self.members = nn.ModuleList(members)

    def forward(self, log_mel: Tensor) -> Output:
        """Computes the mean of the logits, and all embeddings.

        Args:
            log_mel: float32, shape (batch, mel, frame); or waveforms (batch, time) for members with a learned
                front-end.

        Returns:
            Logits (batch, class) and embedding (batch, channels of all members).
        """
        outputs = [member(log_mel) for member in self.members]
        logits = torch.stack([output.logits for output in outputs]).mean(0)
        return Output(logits, torch.cat([output.embedding for output in outputs], 1))
