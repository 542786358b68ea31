"""The state of a run between two steps, so that a killed run goes on as if nothing had happened.

Conventions: a state is one safetensors file, written whole, with a hash; its metadata holds, as JSON, what is
not a tensor. The last two are kept, in case one is damaged. What augmentation draws comes from
(seed, epoch, step); what the network draws (dropout) from PyTorch's generators, which are stored.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from earmark.errors import DataError
from earmark.model_file.atomic import PARTIAL, write_atomically

STATE = "state.safetensors"
"""The last state of a run's folder; the one before is ``state.previous.safetensors``."""
LOG = "log.jsonl"


@dataclass
class Place:
    """Where a run stands.

    Args:
        epoch: Epochs that are complete.
        step: Steps of the next one that are done.
        losses: Of those steps.
        seconds: That they took.
        best: Highest macro mAP so far.
        chance: What :meth:`earmark.training.runtime.devices.Devices.chance` found after those steps.
    """

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    best: float = -math.inf
    chance: list[list[str]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Place:
        """The place that facts tell of, those of a version before that knew epochs only too."""
        return cls(**{name: value for name, value in facts.items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class RunState:
    """What the loop needs to go on: parts with a state, and facts about where it stands."""

    trained: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Writes the state and some facts in one step; the one that was there becomes the previous one.

        Raises:
            OSError: If it cannot be written, for instance to a full disk; what was there is then untouched.
        """
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
        metadata["sha256"] = _hash(copies, metadata)
        fresh = path.with_name(f".{path.name}.fresh{PARTIAL}")
        write_atomically(fresh, save(copies, metadata))
        if path.exists():
            os.replace(path, _previous(path))
        os.replace(fresh, path)

    def load_last(self, path: Path) -> tuple[dict[str, Any] | None, str]:
        """Takes the last state over that is whole.

        Args:
            path: As for :meth:`save`.

        Returns:
            Its facts, None where there is no state; and what was wrong with the last one, if anything.

        Raises:
            DataError: If none is whole, or they belong to another network.
        """
        found = [one for one in (path, _previous(path)) if one.exists()]
        damage = ""
        for state in found:
            try:
                return self.load(state), damage
            except DataError as error:
                if state == found[-1]:
                    raise
                damage = f"{str(error).rpartition(':')[0]}: going on from the state before"
        return None, damage

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
            if "sha256" in metadata and metadata["sha256"] != _hash(tensors, metadata):
                raise ValueError("its SHA-256 does not match")
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


def add_line(folder: Path, facts: Mapping[str, Any]) -> None:
    """Adds an epoch to the log of a run's folder."""
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(dict(facts)) + "\n")
        log.flush()
        os.fsync(log.fileno())


def trim_log(folder: Path, epochs: int) -> None:
    """Drops what a killed run wrote after its last state, so that no epoch stands in the log twice."""
    log = folder / LOG
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines()[:epochs]
        write_atomically(log, "".join(line + "\n" for line in lines))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256((metadata.get("facts", "") + metadata.get("groups", "")).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
