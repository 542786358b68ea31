"""Loggers of a training, in addition to ``log.jsonl``.

Conventions: a logger is chosen by name, and its package is the extra of that name. Steps are counted over the
whole run. Values of a step are named ``step/...``, those of an epoch ``epoch/...``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from earmark.errors import RecipeError, extra
from earmark.training.config.recipe import Recipe
from earmark.training.cross_validation import run_folder
from earmark.training.trainer import Progress

_EXCLUDED = {"epoch", "step", "steps", "left_min", "skipped"}


class Logger(Protocol):
    """Shows the values of runs, one after the other."""

    def open(self, folder: Path, described: Mapping[str, Any], step: int) -> None:
        """Starts a run, or resumes it.

        Args:
            folder: Run folder.
            described: Its recipe.
            step: The first to be written; values of later steps are discarded.
        """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values to the open run."""

    def close(self) -> None:
        """Ends the open run."""


class TensorBoard:
    """Writes event files for TensorBoard, to ``tensorboard/`` in the run folder.

    Raises:
        MissingExtraError: If its package is not installed.
    """

    def __init__(self) -> None:
        with extra("logging to TensorBoard", "tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

        self._make: Callable[..., Any] = SummaryWriter
        self._writer: Any = None

    def open(self, folder: Path, described: Mapping[str, Any], step: int) -> None:
        """See :class:`Logger`."""
        self._writer = self._make(folder / "tensorboard", purge_step=step)
        self._writer.add_text("recipe", "```json\n" + json.dumps(described, indent=1) + "\n```", step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Logger`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See :class:`Logger`."""
        self._writer.close()


class WeightsAndBiases:
    """Writes to Weights & Biases; with WANDB_MODE=offline to ``wandb/`` in the run folder only.

    The project is WANDB_PROJECT (default: "earmark").

    Raises:
        MissingExtraError: If its package is not installed.
    """

    def __init__(self) -> None:
        with extra("logging to Weights & Biases", "wandb"):
            import wandb

        self._wandb: Any = wandb
        self._run: Any = None

    def open(self, folder: Path, described: Mapping[str, Any], step: int) -> None:
        """See :class:`Logger`.

        Raises:
            RecipeError: If Weights & Biases refuses the run, for example without a login.
        """
        provenance = _provenance(folder)
        own = f"{folder.resolve()} {provenance.get('started')}"  # the same when a killed run is resumed
        try:
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "earmark"),
                name=f"{described['name']} {folder.name}",
                id=hashlib.sha256(own.encode()).hexdigest()[:16],
                resume="allow",
                dir=folder,
                config={**described, "run": provenance},
            )
        except self._wandb.Error as error:
            raise RecipeError(
                f"Weights & Biases: {error}: log in, or set WANDB_MODE=offline to write local files only"
            ) from None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Logger`."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """See :class:`Logger`."""
        self._run.finish()


def _provenance(folder: Path) -> dict[str, Any]:
    """The provenance of a run; empty for a run of an earlier version."""
    path = folder / "run.json"
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return stored


LOGGERS: Mapping[str, Callable[[], Logger]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
"""By name, as in recipes and on the command line."""


def open_loggers(names: Sequence[str]) -> list[Logger]:
    """Opens loggers by name, each once; nothing is written before a run starts.

    Raises:
        RecipeError: If there is no such logger.
        MissingExtraError: If the package of one is not installed.
    """
    unknown = [name for name in names if name not in LOGGERS]
    if unknown:
        raise RecipeError(f"unknown logger {unknown[0]!r}: choose from {', '.join(LOGGERS)}")
    return [LOGGERS[name]() for name in dict.fromkeys(names)]


@contextmanager
def logging_to(loggers: Sequence[Logger], recipe: Recipe, folder: Path) -> Iterator[Progress]:
    """A progress callback that passes values on to loggers; ``{"fold": ...}`` starts a run.

    Args:
        loggers: Each receives all values.
        recipe: Of the runs.
        folder: Of the runs, see :func:`earmark.training.cross_validation.run_folder`.
    """
    described = recipe.model_dump(mode="json", exclude_none=True)
    runs = _Runs(loggers, folder, described)
    try:
        yield runs
    finally:
        runs.close()


class _Runs:
    """Opens a run at its first step; a run that is complete already is not opened."""

    def __init__(self, loggers: Sequence[Logger], folder: Path, described: Mapping[str, Any]) -> None:
        self.loggers, self.folder, self.described = loggers, folder, described
        self.fold: int | None = None
        self.opened: list[Logger] = []
        self.step = 0

    def __call__(self, facts: Mapping[str, Any]) -> None:
        if "fold" in facts:
            self.close()
            self.fold = facts["fold"]
            return
        if "epoch" not in facts:  # a message, no values
            return
        if "step" in facts:
            self.step = (facts["epoch"] - 1) * facts["steps"] + facts["step"]
        if not self.opened:
            folder = run_folder(self.folder, self.fold)
            for logger in self.loggers:
                logger.open(folder, {**self.described, "fold": self.fold}, self.step)
                self.opened.append(logger)
        kind = "step" if "step" in facts else "epoch"
        values = {f"{kind}/{name}": value for name, value in facts.items() if name not in _EXCLUDED}
        for logger in self.opened:
            logger.write(self.step, values)

    def close(self) -> None:
        for logger in self.opened:
            logger.close()
        self.opened = []
