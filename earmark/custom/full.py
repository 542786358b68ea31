"""Depth "full": all weights of the base model's network, trained by earmark's training loop.

Source: first the classifier, then all weights: Kumar et al., Fine-Tuning can Distort Pretrained Features,
arXiv:2202.10054.

Conventions: :mod:`earmark.custom.full_recipe` says what is trained, and how. Run folders are temporary.
Scores of clips are those of the windows that ``earmark tag`` cuts. Needs the extra "train".
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from earmark.audio.encode import encode, to_int16
from earmark.custom.base_network import network_of
from earmark.custom.classifier import Fitter
from earmark.custom.example import Example
from earmark.custom.features import Base, log_mels, read_region
from earmark.custom.full_recipe import BATCH, recipe_of, write_checkpoint, write_manifest
from earmark.custom.table import Floats, Table
from earmark.model_file.info import ModelInfo
from earmark.models.checkpoint import load_checkpoint
from earmark.models.onnx_graph import network_to_onnx
from earmark.training.trainer import train_network

if TYPE_CHECKING:
    from earmark.models import Network

RUN = "run"
Progress = Callable[[int, int], object]


def full_fitter(
    base: Base,
    examples: Sequence[Example],
    seed: int,
    cache: bool = True,
    progress: Progress = lambda done, total: None,
) -> Fitter:
    """Returns a function that fine-tunes the network of the base to some clips.

    Args:
        base: The base model.
        examples: The clips of the table.
        seed: Of order, augmentation and dropout.
        cache: Whether decoded clips are kept in the cache folder.
        progress: Called with the number of training steps done and of all.

    Raises:
        ModelError: If the weights of the base cannot be read.
        AudioError: If a region cannot be read.
    """
    return _FullFitter(base, examples, seed, cache, progress)


class _FullFitter:
    """Fine-tunes the network of a base model to some clips; its folder lives as long as it does."""

    def __init__(
        self, base: Base, examples: Sequence[Example], seed: int, cache: bool, progress: Progress
    ) -> None:
        self._base, self._examples, self._seed, self._cache = base, examples, seed, cache
        self._progress = progress
        self._network = network_of(base.content, base.info)  # raises before any work
        self._folder = Path(tempfile.mkdtemp(prefix="earmark-fit-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._paths = [self._path(number, example) for number, example in enumerate(examples)]

    def __call__(self, table: Table, clips: NDArray[np.bool_]) -> _Tuned:
        """Fine-tunes the network."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name, torch.random.fork_rng([]):
            folder = Path(name)
            write_checkpoint(folder, self._network, self._base.info, table, clips)
            write_manifest(folder, self._paths, table, clips)
            recipe = recipe_of(self._base.info, table, folder, self._seed, self._cache)
            train_network(recipe, folder / RUN, progress=self._reporting(recipe.optimizer.epochs))
            network, _ = load_checkpoint(folder / RUN / "last.safetensors")
        return _Tuned(network, self._base, self._examples, table)

    def _path(self, number: int, example: Example) -> Path:
        """The recording, a link where its name is no text, or a file with the region of it."""
        if example.end_s is not None:
            path, rate = self._folder / f"{number}.wav", self._base.tagger.sample_rate
            path.write_bytes(encode(to_int16(read_region(example, rate)), rate, "wav"))
            return path
        path = example.path.absolute()
        if os.fsencode(path).decode(errors="ignore") != str(path):
            path = self._folder / f"{number}{path.suffix}"
            path.symlink_to(example.path.absolute())
        return path

    def _reporting(self, epochs: int) -> Callable[[Mapping[str, Any]], None]:
        def report(facts: Mapping[str, Any]) -> None:
            if "step" in facts:
                done = (facts["epoch"] - 1) * facts["steps"] + facts["step"]
                self._progress(done, epochs * facts["steps"])

        return report


class _Tuned:
    """A network that was fine-tuned."""

    def __init__(self, network: Network, base: Base, examples: Sequence[Example], table: Table) -> None:
        self._network, self._base, self._examples, self._table = network, base, examples, table

    @torch.no_grad()
    def logits(self, rows: NDArray[np.int64]) -> Floats:
        """Computes the logits of rows."""
        owner = self._table.owner[: self._table.num_plain]
        found = np.zeros((len(rows), len(self._table.labels)), np.float32)
        for clip in np.unique(owner[rows]):
            chosen = owner[rows] == clip
            logits = np.concatenate(list(self._clip_logits(self._examples[clip])))
            found[chosen] = logits[rows[chosen] - np.searchsorted(owner, clip)]
        return found

    def _clip_logits(self, example: Example) -> Iterator[Floats]:
        """Logits of the windows of a clip, as ``earmark tag`` cuts them, some windows at a time."""
        windows = log_mels(self._base, example)
        while batch := list(islice(windows, BATCH)):
            yield self._network(torch.from_numpy(np.stack(batch))).logits.numpy()

    def graph(self, base: Base, info: ModelInfo) -> bytes:
        """Returns the graph of the network."""
        content: bytes = network_to_onnx(self._network, info).SerializeToString()
        return content
