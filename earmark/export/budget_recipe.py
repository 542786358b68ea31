"""Proposes the network that fits a budget, and the recipe that distils a larger model into it.

Source: width selection as in MobileNets (Howard et al., arXiv:1704.04861, section 3.3), with the larger model
as teacher (Schmid et al., arXiv:2211.04772).

Conventions: networks are counted fused, as they are run. The proposal is the widest network of the model's
own family that fits, or if none does, the registered network with the most parameters; never one larger than
the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

from earmark.data.manifest import Clip
from earmark.errors import ModelError
from earmark.evaluation.complexity.budget import BITS, Budget, BudgetUse
from earmark.evaluation.complexity.network_cost import measure
from earmark.features.front_end import FrontEnd
from earmark.inference import ensemble
from earmark.model_file.info import ModelInfo, Precision
from earmark.models.registry import architectures, create_config, create_model

SCALABLE = ("mobilenet", "dymn")
"""Architectures with a width."""
WIDTHS = tuple(step / 20 for step in range(1, 81))
"""Widths to choose from, 0.05 to 4."""


@dataclass(frozen=True)
class Proposal:
    """A network that fits a budget.

    Args:
        architecture: Name in the registry.
        arguments: Its arguments, except the number of classes.
        precision: Storage format of its parameters.
        use: Its use of the budget.
    """

    architecture: str
    arguments: Mapping[str, Any]
    precision: Precision
    use: BudgetUse

    def summary(self) -> str:
        """Network and use of the budget, for people."""
        choices = ", ".join(f"{name} {value}" for name, value in self.arguments.items())
        return (
            f"{self.architecture}{f' ({choices})' if choices else ''}, fused, in {self.precision}: "
            f"{self.use.parameters:,} parameters\n{self.use.summary()}"
        )


def propose(info: ModelInfo, budget: Budget, precision: Precision = "fp16") -> Proposal:
    """Finds the network that fits a budget.

    Args:
        info: Model info of the larger model; the network will have its front-end and labels.
        budget: Limits of the network.
        precision: Storage format of its parameters.

    Raises:
        ModelError: If no network fits, or the model has no log-mel outside its graph.
    """
    if not isinstance(info.front_end, FrontEnd):
        raise ModelError(f"{info.name} takes waveforms, a recipe needs a log-mel: give a model of log-mels")
    cost = _Costs(info, budget, precision)
    largest = _largest(info, cost)

    def fits(found: BudgetUse) -> bool:
        return not found.exceeded and found.parameters <= largest

    own = _family(info)
    smallest: BudgetUse | None = None
    for family in (own, [name for name in architectures() if name not in own]):
        fitting: list[Proposal] = []
        for architecture, arguments in _candidates(info, family, cost, fits):
            found = cost(architecture, arguments)
            smallest = found if smallest is None or found.parameters < smallest.parameters else smallest
            if fits(found):
                fitting.append(Proposal(architecture, arguments, precision, found))
        if fitting:
            return max(fitting, key=lambda one: (one.use.parameters, -one.use.macs))
    assert smallest is not None
    needs = "; ".join(smallest.exceeded) or f"{smallest.parameters:,} parameters, more than the model"
    raise ModelError(
        f"no registered network fits {budget.name} for {len(info.labels)} labels in {precision}: "
        f"the smallest needs {needs}"
    )


class _Costs:
    """Computes the use of a budget."""

    def __init__(self, info: ModelInfo, budget: Budget, precision: Precision) -> None:
        self._info, self._budget, self._precision = info, budget, precision
        self.seconds = budget.seconds or info.window_s

    def __call__(self, architecture: str, arguments: Mapping[str, Any]) -> BudgetUse:
        front_end, classes = self._info.front_end, len(self._info.labels)
        with torch.device("meta"):
            network = create_model(architecture, **arguments, num_classes=classes, fused=True)
        frames = front_end.num_frames(round(self.seconds * front_end.sample_rate))
        cost = measure(network, front_end.n_mels, frames)
        size = cost.parameters * BITS[self._precision] / 8
        return BudgetUse(self._budget, cost.parameters, size, cost.macs, self.seconds)


def _largest(info: ModelInfo, cost: Callable[[str, Mapping[str, Any]], BudgetUse]) -> float:
    """Number of parameters of the model; infinite for ensembles."""
    if info.architecture == ensemble.ARCHITECTURE:
        return float("inf")
    arguments = {name: value for name, value in info.arguments.items() if name != "fused"}
    return cost(info.architecture, arguments).parameters


def _family(info: ModelInfo) -> list[str]:
    """Names of the architectures of the model's family."""
    if info.architecture == ensemble.ARCHITECTURE:
        return []
    kind = type(create_config(info.architecture))
    return [name for name in architectures() if type(create_config(name)) is kind]


def _candidates(
    info: ModelInfo,
    names: Sequence[str],
    cost: Callable[[str, Mapping[str, Any]], BudgetUse],
    fits: Callable[[BudgetUse], bool],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Networks to compare: the widest of each scalable family that fits, and all others."""
    scalable = [name for name in SCALABLE if name in names]
    for name in scalable:
        arguments = _arguments(info, name)
        low, high = 0, len(WIDTHS)  # low fits or is 0, high does not
        while high - low > 1:
            middle = (low + high) // 2
            wide = cost(name, {**arguments, "width": WIDTHS[middle]})
            low, high = (middle, high) if fits(wide) else (low, middle)
        yield name, {**arguments, "width": WIDTHS[low]}
    kinds = {type(create_config(name)) for name in scalable}
    for name in names:
        if type(create_config(name)) not in kinds:
            yield name, _arguments(info, name)


def _arguments(info: ModelInfo, name: str) -> dict[str, Any]:
    """Arguments of a network: the model's if it is of the same family, and its number of mel bands."""
    config = create_config(name)
    arguments: dict[str, Any] = {}
    if info.architecture != ensemble.ARCHITECTURE and type(create_config(info.architecture)) is type(config):
        arguments = {key: value for key, value in info.arguments.items() if key not in ("fused", "width")}
    if hasattr(config, "n_mels") and config.n_mels != info.front_end.n_mels:
        arguments["n_mels"] = info.front_end.n_mels
    return arguments


def recipe(
    proposal: Proposal,
    info: ModelInfo,
    teacher: Path,
    clips: tuple[Sequence[Path], Path | None],
    path: Path,
) -> str:
    """Writes the recipe that distils a model into a proposed network.

    Args:
        proposal: The network.
        info: The model info.
        teacher: The model's file or checkpoint.
        clips: Manifests to train on, with the model's labels, and the folder of their recordings; None for
            that of each manifest.
        path: Where the recipe will be saved.

    Returns:
        TOML, for ``earmark train``.
    """
    window_s = proposal.use.budget.seconds or info.window_s
    manifests, audio = clips
    source = {"manifests": [str(manifest) for manifest in manifests]}
    values = {
        "name": f"{info.name}_small",
        "description": f"{info.name}, in the budget {proposal.use.budget.name}",
        "source": f"proposed by earmark complexity: {proposal.architecture}, distilled from {info.name}",
        "command": f"earmark train {path}",
        "cost": "not measured yet",
        "expected": "not measured yet",
        "license": info.license,
        "task": info.task,
        "window_s": window_s,
        "padding": info.padding,
        "model": {"architecture": proposal.architecture, "arguments": dict(proposal.arguments)},
        "front_end": {key: value for key, value in info.front_end.to_dict().items() if value is not None},
        "data": {
            "labels": list(info.labels),
            "cache": True,
            "sources": [source if audio is None else {**source, "audio": str(audio)}],
        },
        "augment": {"roll_s": 0.1 * window_s, "gain_db": [-6.0, 6.0], "mixup_alpha": 0.3},
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 1e-4, "batch_size": 32, "epochs": 100},
        "teacher": {"path": str(teacher), "distill_weight": 0.9, "label_weight": 0.1},
    }
    comments = [f"# {line}" for line in proposal.summary().splitlines()]
    export = f"earmark export --model CHECKPOINT --fuse --precision {proposal.precision} --output FILE"
    return "\n".join([*comments, f"# After training: {export}", tomli_w.dumps(values)])


def require_manifests(paths: Sequence[Path], clips: Sequence[Clip]) -> None:
    """Raises a ModelError unless all clips are labelled and come from manifests."""
    if any(path.suffix != ".csv" for path in paths) or not all(clip.labelled for clip in clips):
        raise ModelError("a recipe needs datasets (.csv) of labelled clips: give --dataset")
