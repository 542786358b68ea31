"""Depth "head": a hidden layer on the features of the base model, trained in PyTorch.

Conventions: features are standardised, which is folded into the first layer. AdamW with dropout, for a fixed
number of epochs, so that no clips need to be kept for choosing one. Needs the extra "train".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from earmark.custom.classifier import Fitter, LayerClassifier
from earmark.custom.graph_head import Layer
from earmark.custom.table import Table

HIDDEN, DROPOUT, EPOCHS, BATCH = 256, 0.5, 60, 64
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-2


def head_fitter(seed: int) -> Fitter:
    """Returns a function that fits a head to some clips of a table.

    Args:
        seed: Of the weights, dropout and order of rows.

    """
    return lambda table, clips: LayerClassifier(table, _fit(table, clips, seed))


def _fit(table: Table, clips: NDArray[np.bool_], seed: int) -> list[Layer]:
    rows = table.rows_of(clips)
    features = torch.from_numpy(table.features[rows])
    targets = torch.from_numpy(table.targets[table.owner[rows]])
    counts = targets.sum(0).clamp(min=1)
    weights = torch.from_numpy(table.weights(rows)).float()
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    inputs = (features - mean) / deviation
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        first, last = nn.Linear(inputs.shape[1], HIDDEN), nn.Linear(HIDDEN, targets.shape[1])
        network = nn.Sequential(first, nn.ReLU(), nn.Dropout(DROPOUT), last)
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
        balance = counts.sum() / (len(counts) * counts)
        single = table.task == "single_label"
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(inputs), generator=generator).split(BATCH):  # type: ignore[no-untyped-call]
                logits, wanted = network(inputs[batch]), targets[batch]
                if single:
                    losses = functional.cross_entropy(logits, wanted, reduction="none")
                    losses = losses * balance[wanted.argmax(1)]
                else:
                    losses = functional.binary_cross_entropy_with_logits(
                        logits, wanted, reduction="none"
                    ).sum(1)
                optimizer.zero_grad()
                (losses * weights[batch]).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            schedule.step()
    with torch.no_grad():
        folded = first.weight / deviation
        layers = ((folded.T, first.bias - folded @ mean), (last.weight.T, last.bias))
        return [(slope.numpy().copy(), offset.numpy().copy()) for slope, offset in layers]
