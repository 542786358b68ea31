"""Rates embeddings by what a shallow network learns from them, as the HEAR benchmark does.

Source: Turian et al., arXiv:2203.03022, section 3.2, and the search space of its evaluation kit 2021.1.3: one
or two hidden layers of 1024 units with batch norm, dropout and ReLU; Adam; eight of sixteen settings.

Conventions: embeddings are (clip, channel), targets (clip, class), 0 or 1. Each fold is tested once: the next
one chooses settings and epoch, the others are trained on; clips of fold 0 are always trained on. Settings are
chosen with the first fold as the test. Needs the extra "train".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from earmark.errors import DataError
from earmark.evaluation import metrics
from earmark.model_file.info import Task

Floats = NDArray[np.float32]
HIDDEN_LAYERS, LEARNING_RATES = (1, 2), (3.2e-3, 1e-3, 3.2e-4, 1e-4)
INITIALIZATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "uniform": nn.init.xavier_uniform_,
    "normal": nn.init.xavier_normal_,
}
HIDDEN_UNITS, DROPOUT, BATCH = 1024, 0.1, 1024
MAX_EPOCHS, EPOCHS_PER_CHECK, PATIENCE = 500, 3, 20
"""The network is scored every third epoch; training ends after twenty scores without a better one."""
MIN_FOLDS = 3


class Setting(NamedTuple):
    """A point of the search space.

    Attributes:
        hidden_layers: Number of hidden layers.
        learning_rate: Of Adam.
        initialization: Xavier's, "uniform" or "normal".
    """

    hidden_layers: int
    learning_rate: float
    initialization: str


@dataclass(frozen=True)
class ProbeResult:
    """What shallow networks reach on an embedding.

    Attributes:
        metric: "accuracy", or "mAP" for multi-label tasks.
        scores: Test score of each fold.
        setting: The setting that was chosen.
    """

    metric: str
    scores: dict[int, float]
    setting: Setting

    @property
    def mean(self) -> float:
        """Mean of the test scores."""
        return float(np.mean(list(self.scores.values())))

    @property
    def deviation(self) -> float:
        """Standard deviation of the test scores over the folds."""
        return float(np.std(list(self.scores.values())))


def settings(count: int = 8, seed: int = 0) -> list[Setting]:
    """Draws settings from the search space.

    Args:
        count: At least 1; the search space has 16.
        seed: Of the order.
    """
    space = [Setting(*point) for point in product(HIDDEN_LAYERS, LEARNING_RATES, INITIALIZATIONS)]
    return [space[number] for number in np.random.default_rng(seed).permutation(len(space))[:count]]


def probe(
    embeddings: Floats,
    targets: Floats,
    folds: Sequence[int],
    task: Task,
    *,
    count: int = 8,
    seed: int = 0,
    progress: Callable[[str], object] = lambda text: None,
) -> ProbeResult:
    """Rates embeddings by cross-validated shallow networks.

    Args:
        embeddings: float32, shape (clip, channel).
        targets: 0 or 1, shape (clip, class).
        folds: Fold of each clip; 0: always trained on.
        task: "single_label" is scored by accuracy, "multi_label" by macro mAP.
        count: Settings to try.
        seed: Of the settings, the weights and the order of clips.
        progress: Called with a description of each training.

    Raises:
        DataError: If there are fewer than three folds, or an embedding is not finite.
    """
    numbers = np.asarray(folds)
    tested = sorted({*numbers.tolist()} - {0})
    if len(tested) < MIN_FOLDS:
        raise DataError(
            f"a probe needs at least {MIN_FOLDS} folds (to train, to choose, to test), got folds {tested}"
        )
    if not np.isfinite(embeddings).all():
        raise DataError("the embeddings hold NaN or infinite values: leave out those clips")
    parts = _Parts(torch.from_numpy(embeddings), torch.from_numpy(targets.astype(np.float32)), task, seed)

    def run(setting: Setting, number: int) -> tuple[float, float]:
        test, valid = tested[number], tested[(number + 1) % len(tested)]
        masks = [~np.isin(numbers, (test, valid)), numbers == valid, numbers == test]
        progress(f"fold {test}: {setting.hidden_layers} layers, learning rate {setting.learning_rate:g}")
        return parts.train(setting, *(torch.from_numpy(mask) for mask in masks))

    tried = [(run(setting, 0), setting) for setting in settings(count, seed)]
    (_, first), best = max(tried, key=lambda entry: entry[0][0])
    scores = {tested[0]: first} | {
        fold: run(best, number)[1] for number, fold in enumerate(tested) if number > 0
    }
    return ProbeResult("accuracy" if task == "single_label" else "mAP", scores, best)


@dataclass(frozen=True)
class _Parts:
    """Clips to train, choose and test on."""

    embeddings: Tensor
    targets: Tensor
    task: Task
    seed: int

    def train(self, setting: Setting, train: Tensor, valid: Tensor, test: Tensor) -> tuple[float, float]:
        """Trains a network; its scores on the validation and test clips at the best epoch."""
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            network = _network(self.embeddings.shape[1], self.targets.shape[1], setting)
            optimizer = torch.optim.Adam(network.parameters(), setting.learning_rate)
            inputs, wanted = self.embeddings[train], self.targets[train]
            best, waited = (-1.0, 0.0), 0
            for epoch in range(1, MAX_EPOCHS + 1):
                network.train()
                for batch in torch.randperm(len(inputs), generator=generator).split(BATCH):  # type: ignore[no-untyped-call]
                    if len(batch) > 1:  # batch norm needs two clips
                        optimizer.zero_grad()
                        self._loss(network(inputs[batch]), wanted[batch]).backward()  # type: ignore[no-untyped-call]
                        optimizer.step()
                if epoch % EPOCHS_PER_CHECK:
                    continue
                score = self._score(network, valid)
                best, waited = (
                    ((score, self._score(network, test)), 0) if score > best[0] else (best, waited + 1)
                )
                if waited >= PATIENCE:
                    break
        return best

    def _loss(self, logits: Tensor, wanted: Tensor) -> Tensor:
        if self.task == "single_label":
            return functional.cross_entropy(logits, wanted.argmax(1))
        return functional.binary_cross_entropy_with_logits(logits, wanted)

    @torch.no_grad()
    def _score(self, network: nn.Module, part: Tensor) -> float:
        logits = network.eval()(self.embeddings[part]).numpy()
        truth = self.targets[part].numpy()
        if self.task == "single_label":
            return float(metrics.accuracy(truth, logits))
        return float(metrics.macro(metrics.average_precision(truth, logits)))


def _network(channels: int, classes: int, setting: Setting) -> nn.Sequential:
    layers: list[nn.Module] = []
    activation = "linear"
    for _ in range(setting.hidden_layers):
        layers += [_linear(channels, HIDDEN_UNITS, setting, activation), nn.BatchNorm1d(HIDDEN_UNITS)]
        layers += [nn.Dropout(DROPOUT), nn.ReLU()]
        channels, activation = HIDDEN_UNITS, "relu"
    return nn.Sequential(*layers, _linear(channels, classes, setting, activation))


def _linear(channels: int, out: int, setting: Setting, before: str) -> nn.Linear:
    """A linear layer initialised for the activation before it."""
    layer = nn.Linear(channels, out)
    gain = nn.init.calculate_gain("relu" if before == "relu" else "linear")
    INITIALIZATIONS[setting.initialization](layer.weight, gain)
    return layer
