"""The state of a run between two epochs, so that a killed run goes on as if nothing had happened.

Conventions: one safetensors file, replaced whole. Its metadata holds, as JSON, what is not a tensor. All
randomness of the loop is derived from (seed, epoch, step), so no generator has to be stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from earmark.errors import DataError
from earmark.files import write_atomically


@dataclass(frozen=True)
class RunState:
    """What the loop needs to go on: parts with a state, and the epoch that comes next."""

    trained: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Writes the state and some facts (epoch, best score, recipe's hash) in one step."""
        tensors = {f"trained.{key}": value for key, value in self.trained.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{key}": value for key, value in self.average.state_dict().items()}
        state = self.optimizer.state_dict()
        tensors |= {
            f"optimizer.{index}.{key}": value
            for index, entry in state["state"].items()
            for key, value in entry.items()
        }
        groups = [
            {key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]
        ]
        metadata = {"facts": json.dumps(dict(facts)), "groups": json.dumps(groups)}
        copies = {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in tensors.items()
        }
        write_atomically(path, save(copies, metadata))

    def load(self, path: Path) -> dict[str, Any]:
        """Takes the state over from a file that :meth:`save` wrote.

        Returns:
            The facts.

        Raises:
            DataError: If the file is damaged or belongs to another network.
        """
        try:
            with safe_open(path, framework="pt") as stored:
                metadata = stored.metadata() or {}
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            self.trained.load_state_dict(_part(tensors, "trained."))
            if self.average is not None:
                self.average.load_state_dict(_part(tensors, "average."))
            self._load_optimizer(_part(tensors, "optimizer."), json.loads(metadata["groups"]))
            facts: dict[str, Any] = json.loads(metadata["facts"])
        except (SafetensorError, RuntimeError, LookupError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{path}: the run's state cannot be read ({reason}): remove the run's folder to start anew"
            ) from None
        return facts

    def _load_optimizer(self, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> None:
        parameters = [entry for group in self.optimizer.param_groups for entry in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, _, key = name.partition(".")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:  # the fused step takes for granted that the layouts are alike
                value = torch.empty_like(parameter).copy_(value)
            state.setdefault(int(index), {})[key] = value
        current = self.optimizer.state_dict()["param_groups"]
        for group, own in zip(groups, current, strict=True):
            group["params"] = own["params"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
