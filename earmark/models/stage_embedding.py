"""Embeddings from inside a network: outputs of chosen stages, pooled and concatenated.

Source: Schmid et al., arXiv:2305.19294 ("Low-complexity audio embedding extractors"); golden
efficientat/hear/hear_embeddings.npz.

Conventions: names of stages are those of :class:`StageEmbedding`; feature maps are (batch, channel, mel,
frame).
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
"""The stages with the best scores over the tasks of the HEAR benchmark, for networks of fifteen blocks."""

STAGE_POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda features: features.mean((2, 3)),
    "max": lambda features: features.amax((2, 3)),
    "mean_plus_max": lambda features: features.mean((2, 3)) + features.amax((2, 3)),
    "mean_and_max": lambda features: torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1),
    "time_mean": lambda features: features.mean(3).flatten(1),
    "time_mean_plus_max": lambda features: (features.mean(3) + features.amax(3)).flatten(1),
}
"""Name -> pooling of a feature map (batch, channel, mel, frame) to (batch, value)."""

_NAMED_STAGES = ("mel_avgs", "clf1", "clf2", "logits")


class StageEmbedding(nn.Module):
    """Pools and concatenates the outputs of several stages to one vector per spectrogram.

    Args:
        network: In evaluation mode; it is not changed.
        stages: In the order of concatenation: "mel_avgs" (mean of each mel band), "b0", "b1", ... (feature
            maps), "se5", ... (bottleneck of the squeeze-excitation in that stage), "clf1" (the network's
            embedding), "clf2" (hidden units of an mlp head), "logits".
        pool: One of POOLS, for feature maps.

    Raises:
        ModelError: If a stage or the pooling is unknown.
    """

    def __init__(self, network: Network, stages: Sequence[str] = DEFAULT_STAGES, pool: str = "mean") -> None:
        super().__init__()
        if pool not in STAGE_POOLINGS:
            raise ModelError(f"pool must be one of {', '.join(STAGE_POOLINGS)}, got {pool!r}")
        if not stages:
            raise ModelError("stages must name at least one stage, got none")
        for stage in stages:
            if stage not in _NAMED_STAGES and not re.fullmatch(r"(b|se)\d+", stage):
                raise ModelError(
                    f"a stage must be {', '.join(_NAMED_STAGES)}, b0, b1, ... or se5, ..., got {stage!r}"
                )
        self.network, self.stages, self.pool = network, tuple(stages), pool
        self._hooked = {stage: _hooked_module(network, stage) for stage in stages if _needs_hook(stage)}

    def forward(self, log_mel: Tensor) -> Tensor:
        """Computes embeddings.

        Args:
            log_mel: float32, shape (batch, mel, frame).

        Returns:
            Shape (batch, value).

        Raises:
            ModelError: If the network has no feature map of that number.
        """
        with _capture(self._hooked) as outputs:
            if any(stage.startswith(("b", "se")) for stage in self.stages):
                outputs |= {
                    f"b{number}": map_ for number, map_ in enumerate(_feature_maps(self.network, log_mel))
                }
            if any(stage.startswith(("clf", "logits")) for stage in self.stages):
                output = self.network(log_mel)
                outputs |= {"clf1": output.embedding, "logits": output.logits}
        outputs["mel_avgs"] = log_mel.mean(2)
        return torch.cat([self._pooled(outputs, stage) for stage in self.stages], 1)

    def _pooled(self, outputs: dict[str, Tensor], stage: str) -> Tensor:
        if stage not in outputs:
            last = max(int(name[1:]) for name in outputs if re.fullmatch(r"b\d+", name))
            raise ModelError(f"the network has no stage {stage}: its feature maps are b0 to b{last}")
        output = outputs[stage]
        return STAGE_POOLINGS[self.pool](output) if stage.startswith("b") else output


class StageSession:
    """Inference session of a network whose embedding is that of chosen stages.

    Args:
        network: On the CPU, in evaluation mode.
        stages: As of StageEmbedding.
        pool: As of StageEmbedding.

    Raises:
        ModelError: As of StageEmbedding.
    """

    def __init__(self, network: Network, stages: Sequence[str] = DEFAULT_STAGES, pool: str = "mean") -> None:
        self._embedding = StageEmbedding(network, stages, pool)

    @torch.no_grad()
    def run(
        self, names: Sequence[str], inputs: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Computes "logits" (batch, class) or "embedding" (batch, value), as named, of one input."""
        [log_mel] = map(torch.from_numpy, inputs.values())
        outputs: dict[str, Callable[[], Tensor]] = {
            "logits": lambda: self._embedding.network(log_mel).logits,
            "embedding": lambda: self._embedding(log_mel),
        }
        return [outputs[name]().numpy() for name in names]


def _needs_hook(stage: str) -> bool:
    """Whether a stage is the output of an inner module, which only a hook can read."""
    return stage == "clf2" or stage.startswith("se")


def _hooked_module(network: Network, stage: str) -> nn.Module:
    """Finds the module whose output a stage is."""
    found: list[nn.Module]
    if stage == "clf2":
        head = getattr(network, "classifier", None)
        found = [module for module in head.modules() if isinstance(module, nn.Hardswish)] if head else []
    else:
        blocks, number = getattr(network, "features", ()), int(stage[2:])
        inside = blocks[number].modules() if number < len(blocks) else ()
        found = [module.fc1 for module in inside if isinstance(module, AxisExcitation)]
    if not found:
        raise ModelError(f"the network has no stage {stage}: choose another one")
    return found[0]


def _feature_maps(network: Network, log_mel: Tensor) -> list[Tensor]:
    if not hasattr(network, "feature_maps"):
        raise ModelError(f"{type(network).__name__} has no feature maps: choose clf1 or logits")
    maps: list[Tensor] = cast(Any, network).feature_maps(log_mel)
    return maps


@contextmanager
def _capture(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Captures the outputs of modules while the network runs."""
    captured: dict[str, Tensor] = {}

    def capture(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        captured[name] = output.clone()  # later layers may compute in place

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(partial(capture, name)).remove)
        yield captured
