"""Embeddings from inside a network: what chosen stages answer, pooled and put end to end.

Source: Schmid et al., arXiv:2305.19294 ("Low-complexity audio embedding extractors"); golden
efficientat/hear/hear_embeddings.npz.

Conventions: a stage is named by a letter and a number or by a word, see :class:`StageEmbedding`; a feature
map is (batch, channel, mel, frame).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.models.network import Network
from earmark.models.squeeze_excitation import AxisExcitation

DEFAULT_STAGES = ("mel_avgs", "b5", "b11", "b13", "b15")
"""What served best over the HEAR benchmark's tasks, for networks of fifteen blocks."""

STAGE_POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda features: features.mean((2, 3)),
    "max": lambda features: features.amax((2, 3)),
    "mean_plus_max": lambda features: features.mean((2, 3)) + features.amax((2, 3)),
    "mean_and_max": lambda features: torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1),
    "time_mean": lambda features: features.mean(3).flatten(1),
    "time_mean_plus_max": lambda features: (features.mean(3) + features.amax(3)).flatten(1),
}
"""How a feature map (batch, channel, mel, frame) becomes (batch, value)."""

_WORDS = ("mel_avgs", "clf1", "clf2", "logits")


class StageEmbedding(nn.Module):
    """Pools what stages of a network answer to one vector a spectrogram.

    Args:
        network: In evaluation mode; it is not changed.
        stages: In the order in which they are put end to end: "mel_avgs" (mean of each mel band), "b0", "b1",
            ... (the network's feature maps), "se5", ... (bottleneck of the squeeze-excitation in that stage),
            "clf1" (the network's own embedding), "clf2" (hidden values of an mlp head), "logits".
        pool: One of POOLS, for feature maps.

    Raises:
        ModelError: If the network has no such stage, or there is no such pooling.
    """

    def __init__(self, network: Network, stages: Sequence[str] = DEFAULT_STAGES, pool: str = "mean") -> None:
        super().__init__()
        if pool not in STAGE_POOLINGS:
            raise ModelError(f"there is no pooling {pool!r}: choose one of {', '.join(STAGE_POOLINGS)}")
        if not stages:
            raise ModelError("no stage was named: give at least one")
        for stage in stages:
            if stage not in _WORDS and not re.fullmatch(r"(b|se)\d+", stage):
                raise ModelError(
                    f"there is no kind of stage {stage!r}: give {', '.join(_WORDS)}, b0, b1, ... or se5, ..."
                )
        self.network, self.stages, self.pool = network, tuple(stages), pool
        self._caught_from = {stage: _inner(network, stage) for stage in stages if _is_inner(stage)}

    def forward(self, log_mel: Tensor) -> Tensor:
        """Computes embeddings.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Shape (batch, value).

        Raises:
            ModelError: If the network has no feature map of a number.
        """
        with _catching(self._caught_from) as answers:
            if any(stage.startswith(("b", "se")) for stage in self.stages):
                answers |= {
                    f"b{number}": map_ for number, map_ in enumerate(_feature_maps(self.network, log_mel))
                }
            if any(stage.startswith(("clf", "logits")) for stage in self.stages):
                output = self.network(log_mel)
                answers |= {"clf1": output.embedding, "logits": output.logits}
        answers["mel_avgs"] = log_mel.mean(2)
        return torch.cat([self._pooled(answers, stage) for stage in self.stages], 1)

    def _pooled(self, answers: dict[str, Tensor], stage: str) -> Tensor:
        if stage not in answers:
            last = max(int(name[1:]) for name in answers if re.fullmatch(r"b\d+", name))
            raise ModelError(f"the network has no stage {stage}: its feature maps are b0 to b{last}")
        answer = answers[stage]
        return STAGE_POOLINGS[self.pool](answer) if stage.startswith("b") else answer


class StageSession:
    """Runs a network as an inference session runs a model file; its embedding is that of chosen stages.

    Args:
        network: On the CPU, in evaluation mode.
        stages: See StageEmbedding.
        pool: See StageEmbedding.

    Raises:
        ModelError: As StageEmbedding does.
    """

    def __init__(self, network: Network, stages: Sequence[str] = DEFAULT_STAGES, pool: str = "mean") -> None:
        self._embedding = StageEmbedding(network, stages, pool)

    @torch.no_grad()
    def run(
        self, names: Sequence[str], inputs: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Computes "logits" (batch, class) or "embedding" (batch, value), as named, of one input."""
        [log_mel] = map(torch.from_numpy, inputs.values())
        answers: dict[str, Callable[[], Tensor]] = {
            "logits": lambda: self._embedding.network(log_mel).logits,
            "embedding": lambda: self._embedding(log_mel),
        }
        return [answers[name]().numpy() for name in names]


def _is_inner(stage: str) -> bool:
    """Whether a stage is answered within a module, out of which no method leads."""
    return stage == "clf2" or stage.startswith("se")


def _inner(network: Network, stage: str) -> nn.Module:
    """The module whose answer a stage is."""
    found: list[nn.Module]
    if stage == "clf2":
        head = getattr(network, "classifier", None)
        found = [module for module in head.modules() if isinstance(module, nn.Hardswish)] if head else []
    else:
        blocks, number = getattr(network, "features", ()), int(stage[2:])
        inside = blocks[number].modules() if number < len(blocks) else ()
        found = [module.fc1 for module in inside if isinstance(module, AxisExcitation)]
    if not found:
        raise ModelError(f"the network has no stage {stage}: choose another")
    return found[0]


def _feature_maps(network: Network, log_mel: Tensor) -> list[Tensor]:
    if not hasattr(network, "feature_maps"):
        raise ModelError(f"{type(network).__name__} shows no inner stages: choose clf1 or logits")
    maps: list[Tensor] = cast(Any, network).feature_maps(log_mel)
    return maps


@contextmanager
def _catching(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Keeps what modules answer while the network runs."""
    caught: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, given: Any, answer: Tensor) -> None:
        caught[name] = answer.clone()  # what follows may compute in place

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(partial(keep, name)).remove)
        yield caught
