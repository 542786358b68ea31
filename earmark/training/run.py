"""Runs a recipe: cross-validation, model card and export, behind ``earmark.train`` and ``earmark train``.

Conventions: a model file is written only after all runs are complete; the same call resumes whatever was
interrupted. Several processes may make the same call; the main one writes all files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earmark.export.export import export_model
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo
from earmark.training.config.recipe import Recipe, load_recipe
from earmark.training.cross_validation import cross_validate, run_folder
from earmark.training.loggers import logging_to, open_loggers
from earmark.training.model_card import model_card
from earmark.training.runtime.devices import Devices, open_devices
from earmark.training.trainer import Progress, train_network

RUNS = Path("runs")
"""Default parent of run folders."""


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Args:
        folder: With a run folder for each fold.
        info: Model info with metrics, threshold and model card; of a single fold, that of its checkpoint.
        model_file: The model file; None if only one fold was trained, or in a process that is not the main
            one.
        export_error: Largest difference between the outputs of the model file and of the network.
    """

    folder: Path
    info: ModelInfo
    model_file: Path | None = None
    export_error: float = 0.0


def train(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    fold: int | None = None,
    loggers: Sequence[str] = (),
    progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> TrainingResult:
    """Trains the networks of a recipe and writes a model file, or resumes an interrupted training.

    Args:
        recipe: Path of a TOML file, or a recipe.
        overrides: Values to replace, such as ``"optimizer.epochs=5"`` or ``"run.device=cuda"``; for a path
            only.
        output: Folder of the runs and the model file (default: ``runs/<name of the recipe>``).
        fold: Train and evaluate this fold only, without a model file.
        loggers: "tensorboard", "wandb", in addition to those of the recipe.
        progress: Called with the values of each step and each epoch.

    Returns:
        The folder, the model info and the path of the model file.

    Raises:
        RecipeError: If the recipe is not valid, the folder holds a run of another recipe, or the loss is not
            finite.
        EarmarkError: As :func:`earmark.training.trainer.train_network`.
        ValueError: If overrides are given for a recipe that is not a path.
    """
    if isinstance(recipe, Recipe):
        if overrides:
            raise ValueError("overrides apply to the path of a recipe: change the recipe instead")
        loaded = recipe
    else:
        loaded = load_recipe(recipe, overrides)
    folder = RUNS / loaded.name if output is None else Path(output)
    with _reporting(loaded, folder, loggers, progress) as (devices, report):
        if fold is not None:
            report({"fold": fold})
            info = train_network(loaded, run_folder(folder, fold), fold, report)
            return TrainingResult(folder, info)
        result = cross_validate(loaded, folder, report)
        if not devices.is_main:
            return TrainingResult(folder, result.info)
    card = model_card(loaded, result)
    info = result.info.changed(card=card)
    model_file = folder / f"{loaded.name}.onnx"
    export_error = export_model(result.network, info, model_file)
    write_atomically(folder / "card.md", card)
    return TrainingResult(folder, info, model_file, export_error)


@contextmanager
def _reporting(
    recipe: Recipe,
    folder: Path,
    loggers: Sequence[str],
    progress: Callable[[Mapping[str, Any]], None] | None,
) -> Iterator[tuple[Devices, Progress]]:
    """The devices of a run, and a callback that passes values to ``progress`` and the loggers."""
    opened = open_loggers([*recipe.logging.loggers, *loggers])
    with open_devices(recipe.run.device) as devices, logging_to(opened, recipe, folder) as log:

        def report(facts: Mapping[str, Any]) -> None:
            # Clips that cannot be read are reported by the process that found them.
            if devices.is_main or not {"fold", "epoch"} & facts.keys():
                if progress is not None:
                    progress(facts)
                log(facts)

        yield devices, report
