"""Depth "full": all weights of the base model's network, trained in PyTorch.

Source: first the classifier, then all weights: Kumar et al., Fine-Tuning can Distort Pretrained Features,
arXiv:2202.10054.

Conventions: log-mels of all windows lie in a temporary file, (row, mel, frame), float16. Batch norms are
folded, so nothing depends on the batch. Each epoch sees every window once: rolled in time, louder or quieter,
and mixed with another one. Needs the extra "train".
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from earmark.custom.base_network import network_of
from earmark.custom.classifier import Fitter
from earmark.custom.example import Example
from earmark.custom.features import Base, log_mels
from earmark.custom.probe import fit_probe
from earmark.custom.table import Floats, Table
from earmark.errors import ModelError
from earmark.model_file.info import ModelInfo
from earmark.models.onnx_graph import network_to_onnx

EPOCHS, BATCH = 12, 16
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 3e-4, 1e-3, 0.1
GAIN = 0.5
"""Standard deviation of the offset that a gain is in a log-mel."""
MIXUP = 0.3


def full_fitter(base: Base, examples: Sequence[Example], seed: int) -> Fitter:
    """Returns a function that fine-tunes the network of the base to some clips.

    Args:
        base: The base model.
        examples: The clips of the table.
        seed: Of order, augmentation and dropout.

    Raises:
        ModelError: If the weights of the base cannot be read.
    """
    network_of(base.content, base.info)  # raises before any work
    inputs = _log_mels(base, examples)
    return lambda table, clips: _Tuned(base, table, clips, inputs, seed)


def _log_mels(base: Base, examples: Sequence[Example]) -> NDArray[np.float16]:
    """Log-mels of all windows, in the order of the rows of a table, in a temporary file."""
    count = 0
    shape: tuple[int, ...] = ()
    with tempfile.TemporaryFile() as file:
        for example in examples:
            for log_mel in log_mels(base, example):
                count, shape = count + 1, log_mel.shape
                file.write(log_mel.astype(np.float16).tobytes())
        file.flush()
        return np.memmap(file, np.float16, "r", shape=(count, *shape))  # stays when the file is closed


class _Tuned:
    """A network that is fine-tuned to some clips."""

    def __init__(
        self, base: Base, table: Table, clips: NDArray[np.bool_], inputs: NDArray[np.float16], seed: int
    ) -> None:
        self._inputs = inputs
        self._network = network_of(base.content, base.info)
        _replace_last(self._network, len(base.info.labels), table, clips)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self._train(table, clips, np.random.default_rng(seed))
        self._network.eval()

    @torch.no_grad()
    def logits(self, rows: NDArray[np.int64]) -> Floats:
        """Computes the logits of rows."""
        found = [
            self._network(torch.from_numpy(self._inputs[[row]].astype(np.float32))).logits for row in rows
        ]
        return np.asarray(torch.cat(found).numpy(), np.float32)

    def graph(self, base: Base, info: ModelInfo) -> bytes:
        """Returns the graph of the network."""
        content: bytes = network_to_onnx(self._network, info).SerializeToString()
        return content

    def _train(self, table: Table, clips: NDArray[np.bool_], rng: np.random.Generator) -> None:
        chosen = table.rows_of(clips)
        chosen[table.num_plain :] = False  # variations have no log-mels
        rows, weights = np.flatnonzero(chosen), table.weights(chosen)
        optimizer = torch.optim.AdamW(self._network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        steps = EPOCHS * -(-len(rows) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARM_UP
        )
        self._network.train()
        for _ in range(EPOCHS):
            order = rng.permutation(len(rows))
            for start in range(0, len(rows), BATCH):
                picked = order[start : start + BATCH]
                inputs, targets = self._batch(table, rows[picked], rng)
                loss = _loss(self._network(inputs).logits, targets, table, torch.from_numpy(weights[picked]))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
                optimizer.step()
                schedule.step()

    def _batch(
        self, table: Table, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Log-mels that are rolled, louder or quieter, and mixed, and their targets."""
        log_mel = self._inputs[rows].astype(np.float32)
        log_mel = np.stack([np.roll(one, int(rng.integers(one.shape[1])), 1) for one in log_mel])
        log_mel += rng.normal(0, GAIN, (len(rows), 1, 1)).astype(np.float32)
        share = np.maximum(lam := rng.beta(MIXUP, MIXUP, len(rows)), 1 - lam).astype(np.float32)
        other = rng.permutation(len(rows))
        targets = table.targets[table.owner[rows]]
        mixed = log_mel * share[:, None, None] + log_mel[other] * (1 - share[:, None, None])
        wanted = targets * share[:, None] + targets[other] * (1 - share[:, None])
        return torch.from_numpy(mixed), torch.from_numpy(wanted)


def _loss(logits: Tensor, targets: Tensor, table: Table, weights: Tensor) -> Tensor:
    if table.task == "single_label":
        losses = functional.cross_entropy(logits, targets, reduction="none")
    else:
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
    return (losses * weights.float()).mean()


def _replace_last(network: Any, classes: int, table: Table, clips: NDArray[np.bool_]) -> None:
    """Puts the classifier of depth "probe" in place of the network's last layer.

    Raises:
        ModelError: If the last layer does not take the features of the table.
    """
    layers = [(name, one) for name, one in network.named_modules() if isinstance(one, nn.Linear)]
    name, last = layers[-1] if layers else ("", None)
    if last is None or last.out_features != classes or last.in_features != table.features.shape[1]:
        raise ModelError("depth full needs a network that ends in a fully connected layer: use depth head")
    [(slopes, offsets)] = fit_probe(table, clips).layers
    layer = nn.Linear(*slopes.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(slopes.T.copy()))
        layer.bias.copy_(torch.from_numpy(offsets))
    network.set_submodule(name, layer)
