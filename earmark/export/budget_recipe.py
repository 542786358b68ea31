"""From a wide model to the network that fits a budget, and the recipe by which it learns from the wide one.

Source: width selection as in MobileNets (Howard et al., arXiv:1704.04861, section 3.3), with the wide network
as teacher (Schmid et al., arXiv:2211.04772).

Conventions: networks are counted fused, as they are run. Of the model's own family the widest network that
fits is proposed; where none does, of all registered networks that with most parameters. It is never larger
than the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from earmark.data.manifest import Clip
from earmark.errors import ModelError
from earmark.evaluation.complexity.budget import BITS, Budget, BudgetUse
from earmark.evaluation.complexity.network_cost import measure
from earmark.features.front_end import FrontEnd
from earmark.inference import ensemble
from earmark.model_file.info import ModelInfo, Precision
from earmark.models.registry import architectures, create_config, create_model

OF_ANY_WIDTH = ("mobilenet", "dymn")
WIDTHS = tuple(step / 20 for step in range(1, 81))
"""Widths that are tried, from 0.05 to 4."""


@dataclass(frozen=True)
class Proposal:
    """A network that fits a budget.

    Args:
        architecture: Name in the registry.
        arguments: What it is to be built with, apart from the number of classes.
        precision: In which its parameters fit.
        use: What it takes of the budget.
    """

    architecture: str
    arguments: Mapping[str, Any]
    precision: Precision
    use: BudgetUse

    def summary(self) -> str:
        """For people, in two lines."""
        choices = ", ".join(f"{name} {value}" for name, value in self.arguments.items())
        return (
            f"{self.architecture}{f' ({choices})' if choices else ''}, fused, in {self.precision}: "
            f"{self.use.parameters:,} parameters\n{self.use.summary()}"
        )


def propose(info: ModelInfo, budget: Budget, precision: Precision = "fp16") -> Proposal:
    """Finds the network that fits a budget.

    Args:
        info: Of the model that is too large; the network hears as it does, and knows the same labels.
        budget: What it may cost.
        precision: In which it is going to be stored; "fp16" costs hardly any accuracy.

    Raises:
        ModelError: If nothing fits, or the model hears by a front-end that learns or is several.
    """
    if not isinstance(info.front_end, FrontEnd):
        raise ModelError(f"{info.name}: a recipe takes one log-mel: name a model that hears through one")
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
    """What networks would take of a budget."""

    def __init__(self, info: ModelInfo, budget: Budget, precision: Precision) -> None:
        self._record, self._budget, self._precision = info, budget, precision
        self.seconds = budget.seconds or info.window_s

    def __call__(self, architecture: str, arguments: Mapping[str, Any]) -> BudgetUse:
        front_end, classes = self._record.front_end, len(self._record.labels)
        with torch.device("meta"):
            network = create_model(architecture, **arguments, num_classes=classes, fused=True)
        frames = front_end.num_frames(round(self.seconds * front_end.sample_rate))
        cost = measure(network, front_end.n_mels, frames)
        size = cost.parameters * BITS[self._precision] / 8
        return BudgetUse(self._budget, cost.parameters, size, cost.macs, self.seconds)


def _largest(info: ModelInfo, cost: Callable[[str, Mapping[str, Any]], BudgetUse]) -> float:
    """Parameters of the model itself; an ensemble has more than any network."""
    if info.architecture == ensemble.ARCHITECTURE:
        return float("inf")
    arguments = {name: value for name, value in info.arguments.items() if name != "fused"}
    return cost(info.architecture, arguments).parameters


def _family(info: ModelInfo) -> list[str]:
    """Names of the networks of the same kind as the model's."""
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
    """Networks to look at: the widest of each kind that has widths, and all of the others."""
    of_any_width = [name for name in OF_ANY_WIDTH if name in names]
    for name in of_any_width:
        arguments = _arguments(info, name)
        low, high = 0, len(WIDTHS)  # the first does not fit, or is the only one that may
        while high - low > 1:
            middle = (low + high) // 2
            wide = cost(name, {**arguments, "width": WIDTHS[middle]})
            low, high = (middle, high) if fits(wide) else (low, middle)
        yield name, {**arguments, "width": WIDTHS[low]}
    kinds = {type(create_config(name)) for name in of_any_width}
    for name in names:
        if type(create_config(name)) not in kinds:
            yield name, _arguments(info, name)


def _arguments(info: ModelInfo, name: str) -> dict[str, Any]:
    """What a network is built with: as the model is, where it is of the same kind; as many mel bands."""
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
    out: Path,
) -> str:
    """The recipe by which a proposed network learns from the model.

    Args:
        proposal: The network.
        info: Of the model.
        teacher: The model's file or checkpoint.
        clips: Manifests to train on, with the model's labels, and the folder of their recordings; None for
            the manifests' own.
        out: Where the recipe is going to lie.

    Returns:
        TOML, as ``earmark train`` takes it.
    """
    window_s = proposal.use.budget.seconds or info.window_s
    top = {
        "name": f"{info.name}_small",
        "description": f"{info.name}, in the budget {proposal.use.budget.name}",
        "source": f"proposed by earmark compress: {proposal.architecture}, taught by {info.name}",
        "command": f"earmark train {out}",
        "cost": "not measured yet",
        "expected": "not measured yet",
        "license": info.license,
        "task": info.task,
        "window_s": window_s,
        "padding": info.padding,
    }
    tables: dict[str, Mapping[str, Any]] = {
        "model": {"architecture": proposal.architecture},
        "model.arguments": proposal.arguments,
        "front_end": info.front_end.to_dict(),
        "data": {"labels": list(info.labels), "cache": True},
        "augment": {"roll_s": 0.1 * window_s, "gain_db": [-6.0, 6.0], "mixup_alpha": 0.3},
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 1e-4, "batch_size": 32, "epochs": 100},
        "teacher": {"path": str(teacher), "distill_weight": 0.9, "label_weight": 0.1},
    }
    manifests, audio = clips
    source = {"manifests": list(map(str, manifests)), "audio": None if audio is None else str(audio)}
    lines = [f"# {line}" for line in proposal.summary().splitlines()]
    lines += [f"# Afterwards: earmark compress CHECKPOINT --fuse --precision {proposal.precision} --out FILE"]
    lines += _toml(top)
    for name, values in tables.items():
        lines += ["", f"[{name}]", *_toml(values)]
        if name == "data":
            lines += ["", "[[data.sources]]", *_toml(source)]
    return "\n".join(lines) + "\n"


def _toml(values: Mapping[str, Any]) -> list[str]:
    """Lines of a table; JSON's texts, numbers and lists are TOML's."""
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None
    ]


def require_manifests(paths: Sequence[Path], clips: Sequence[Clip]) -> None:
    """Refuses clips that no recipe can name, or nobody labelled, with a ModelError."""
    if any(path.suffix != ".csv" for path in paths) or not all(clip.labelled for clip in clips):
        raise ModelError("a recipe takes manifests (.csv) of labelled clips: name those with --clips")
