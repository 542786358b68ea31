"""What depth "full" hands to the training loop: a recipe, the checkpoint it starts from, and a manifest.

Conventions: all lie in one folder. Classes are numbered from 0, since a label may hold any character. Batch
norms are fused, as they are in a model file, so nothing depends on the batch. An epoch takes a random window
of each clip, so clips weigh the same, and there are as many epochs as it takes to see each window twelve
times on average.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earmark.custom.graph_head import Layer
from earmark.custom.probe import fit_probe
from earmark.custom.table import Table
from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.model_file.info import ModelInfo
from earmark.models.checkpoint import save_checkpoint
from earmark.models.registry import create_model
from earmark.training.config.data import Augment, ClipSource, Data
from earmark.training.config.learning import Loss, Model, Optimizer, Schedule
from earmark.training.config.recipe import Recipe

if TYPE_CHECKING:
    from earmark.models import Network

PASSES, BATCH = 12, 16
"""How often each window is seen on average, and windows of a step."""
CHECKPOINT, MANIFEST = "probe.safetensors", "clips.csv"
_FITTED = {"fitted": ("yes",)}
"""Column and value of the manifest by which the clips to train on are chosen."""


def recipe_of(base: ModelInfo, table: Table, folder: Path, seed: int, cache: bool) -> Recipe:
    """Returns the recipe of a fine-tuning.

    Args:
        base: Model info of the base model.
        table: Its windows and task decide.
        folder: With the checkpoint and the manifest.
        seed: Of the recipe.
        cache: Whether decoded clips are kept in the cache folder, or in this one.
    """
    assert isinstance(base.front_end, FrontEnd)  # others have no weights that can be read: network_of
    epochs = max(1, round(PASSES * table.num_plain / len(table.targets)))
    return Recipe(
        name="fit",
        description="Fine-tuning to own sounds",
        source="arXiv:2202.10054",
        command="earmark fit --depth full",
        cost="minutes",
        expected="docs/results.md",
        seed=seed,
        task=table.task,
        window_s=base.window_s,
        padding=base.padding,
        front_end=base.front_end,
        model=Model(
            architecture=base.architecture,
            arguments=_arguments(base),
            init_from=str(folder / CHECKPOINT),
        ),
        data=Data(
            sources=(ClipSource(manifests=(folder / MANIFEST,), train_filter=_FITTED),),
            labels=_classes(table),
            cache=True,
            cache_folder=None if cache else folder / "decoded",
        ),
        augment=Augment(roll_s=base.window_s, gain_db=(-12, 12), mixup_alpha=0.3),
        loss=Loss(class_weights="balanced"),
        schedule=Schedule(warmup_epochs=0.1 * epochs),
        optimizer=Optimizer(
            learning_rate=1e-4,
            weight_decay=1e-3,
            batch_size=BATCH,
            max_grad_norm=1,
            epochs=epochs,
            channels_last=True,
        ),
    )


def write_checkpoint(
    folder: Path, network: Network, base: ModelInfo, table: Table, clips: NDArray[np.bool_]
) -> None:
    """Writes a checkpoint of the base whose last layer is the classifier of depth "probe".

    Args:
        folder: Where to.
        network: Of the base, its batch norms fused.
        base: Model info of the base.
        table: Features and targets.
        clips: Those that the classifier is fitted to, (clip,).

    Raises:
        ModelError: If the last layer does not take the features of the table.
    """
    layers = [(name, one) for name, one in network.named_modules() if isinstance(one, nn.Linear)]
    name, last = layers[-1] if layers else ("", None)
    shape = (len(base.labels), table.features.shape[1])
    if last is None or last.weight.shape != shape:
        raise ModelError("depth full needs a network that ends in a fully connected layer: use depth head")
    [layer] = fit_probe(table, clips).layers
    started = create_model(base.architecture, num_classes=len(table.labels), **_arguments(base))
    started.load_state_dict(network.state_dict() | _weights(name, layer))
    info = base.changed(
        labels=_classes(table),
        task=table.task,
        arguments=_arguments(base),
        precision="fp32",
        threshold=None,
        threshold_rule="",
        calibration=None,
    )
    save_checkpoint(folder / CHECKPOINT, started, info)


def write_manifest(folder: Path, paths: Sequence[Path], table: Table, clips: NDArray[np.bool_]) -> None:
    """Writes all clips, so that no class is missing, and which of them to train on.

    Args:
        folder: Where to.
        paths: A file of each clip.
        table: Its targets are the classes.
        clips: Those to train on, (clip,).
    """
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "labels", "fitted"])
        for number, fitted in enumerate(clips):
            labels = ";".join(map(str, np.flatnonzero(table.targets[number])))
            writer.writerow([number, paths[number], labels, "yes" if fitted else "no"])


def _arguments(base: ModelInfo) -> dict[str, Any]:
    return {**base.arguments, "fused": True}


def _classes(table: Table) -> tuple[str, ...]:
    return tuple(map(str, range(len(table.labels))))


def _weights(name: str, layer: Layer) -> dict[str, Tensor]:
    slopes, offsets = layer
    return {f"{name}.weight": torch.from_numpy(slopes.T.copy()), f"{name}.bias": torch.from_numpy(offsets)}
