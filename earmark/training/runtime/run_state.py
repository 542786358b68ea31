"""The state of a run between two steps, from which a killed run resumes with the same result.

Conventions: a state is one safetensors file, written atomically, with a hash; its metadata holds progress and
optimizer settings as JSON. The last two are kept, in case one is damaged. Augmentation draws from
(seed, epoch, step), the network (dropout) from PyTorch's generators, whose state is stored.
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

from earmark.errors import DataError, first_line
from earmark.model_file.atomic import PARTIAL, write_atomically

STATE = "state.safetensors"
"""The last state in a run folder; the one before is ``state.previous.safetensors``."""
LOG = "log.jsonl"


_RENAMED = {"chance": "rng_state"}
"""Facts as earlier versions stored them."""
_RENAMED_IN_GROUPS = {"factor": "lr_scale"}


@dataclass
class TrainProgress:
    """The progress of a run.

    Args:
        epoch: Complete epochs.
        step: Complete steps of the next epoch.
        losses: Of those steps.
        seconds: Duration of those steps.
        best: Highest score of an epoch so far (:func:`earmark.training.fold_evaluation.epoch_score`).
        rng_state: After those steps, from :meth:`earmark.training.runtime.devices.Devices.rng_state`.
    """

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    best: float = -math.inf
    rng_state: list[list[str]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> TrainProgress:
        """Reads stored facts, also those of earlier versions."""
        known = _renamed(facts, _RENAMED)
        return cls(**{name: value for name, value in known.items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class RunState:
    """The parts of a training that have a state."""

    trained: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Writes the state and some facts atomically; the file that was there becomes the previous state.

        Raises:
            OSError: If it cannot be written, for instance to a full disk; existing files are kept.
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
        """Loads the last intact state.

        Args:
            path: As for :meth:`save`.

        Returns:
            Its facts (None: there is no state), and a warning if the last state is damaged.

        Raises:
            DataError: If none is intact, or they belong to another network.
        """
        found = [one for one in (path, _previous(path)) if one.exists()]
        damage = ""
        for state in found:
            try:
                return self.load(state), damage
            except DataError as error:
                if state == found[-1]:
                    raise
                damage = f"{str(error).rpartition(':')[0]}: resuming from the state before"
        return None, damage

    def load(self, path: Path) -> dict[str, Any]:
        """Loads a file that :meth:`save` wrote.

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
        except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError, OSError) as error:
            reason = first_line(error)
            raise DataError(
                f"{path}: the run's state cannot be read ({reason}): delete the run folder to start again"
            ) from None
        return facts

    def _load_optimizer(self, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> None:
        parameters = [entry for group in self.optimizer.param_groups for entry in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, _, key = name.partition(".")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:  # the fused optimizer requires equal layouts
                value = torch.empty_like(parameter).copy_(value)
            state.setdefault(int(index), {})[key] = value
        current = self.optimizer.state_dict()["param_groups"]
        groups = [
            _renamed(group, _RENAMED_IN_GROUPS) | {"params": own["params"]}
            for group, own in zip(groups, current, strict=True)
        ]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def append_log(folder: Path, facts: Mapping[str, Any]) -> None:
    """Appends an epoch to the log in a run folder."""
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(dict(facts)) + "\n")
        log.flush()
        os.fsync(log.fileno())


def trim_log(folder: Path, epochs: int) -> None:
    """Drops lines that a killed run wrote after its last state, so that no epoch is logged twice."""
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
