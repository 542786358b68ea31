"""Names of models: the shipped ones, the table of published weights, and their files in the cache.

Conventions: a model is named by a name of the table or by the path of a model file. Nothing is downloaded
here, and PyTorch is not needed.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.presets import FRONT_ENDS
from earmark.model_file.info import ModelInfo, Padding, Task
from earmark.model_file.labels import label_set

DEFAULT = "mn05_open"
"""Name of the default model, which ships with the package."""
CACHE_VARIABLE = "EARMARK_CACHE"
"""Environment variable that overrides the platform's cache folder."""

SPEEDS = {"fast": 0.2e9, "medium": 0.7e9, "slow": 2.5e9}
"""Speed class -> most multiply-accumulate operations for a 10 s clip; above them a model is "very slow"."""

_SHIPPED = Path(__file__).parent / "shipped"
_TABLE = Path(__file__).parent / "registry.toml"


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """Weights that others published, with all metadata that is needed to use them.

    Source: registry.toml, which names the sources of its facts; what is not known is None or empty.

    Args:
        name: Name of the model.
        url: URL of the published file.
        architecture: Name in the registry of networks.
        arguments: Arguments of the architecture, except the number of classes.
        front_end: Front-end of the network.
        labels: Name of a label set; None for weights to start a training from, which cannot tag.
        num_classes: Classes of the published head.
        task: As in :class:`~earmark.model_file.info.ModelInfo`.
        window_s: As in :class:`~earmark.model_file.info.ModelInfo`.
        padding: As in :class:`~earmark.model_file.info.ModelInfo`.
        size: Size of the published file in bytes.
        sha256: SHA-256 of the published file, or its first digits.
        layout: Naming scheme of the tensors if it is not the architecture's own: "torchvision".
        params: Number of parameters.
        macs: Multiply-accumulate operations for a 10 s clip.
        peak_memory_kb: Peak memory of the feature maps of a 10 s clip in 16 bits, in 1000 bytes.
        scores: Published scores; fractions in [0, 1].
        scored_on: Dataset of the scores.
        description: What the model is for.
        license: Licence of the weights.
        license_note: Remark on the licence.
        source: Paper and repository.
    """

    name: str
    url: str
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    front_end: FrontEnd
    labels: str | None = None
    num_classes: int
    task: Task
    window_s: float
    padding: Padding
    size: int | None = None
    sha256: str = ""
    layout: str = ""
    params: int | None = None
    macs: int | None = None
    peak_memory_kb: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    scored_on: str = ""
    description: str = ""
    license: str = ""
    license_note: str = ""
    source: str = ""

    def model_info(self, embedding_size: int) -> ModelInfo:
        """The model info of the published network, without card and provenance.

        Args:
            embedding_size: Number of channels of its embedding.

        Returns:
            The model info; the labels of weights without any are "output 0", "output 1", ...
        """
        numbered = tuple(f"output {number}" for number in range(self.num_classes))
        return ModelInfo(
            name=self.name,
            labels=label_set(self.labels) if self.labels else numbered,
            front_end=self.front_end,
            task=self.task,
            architecture=self.architecture,
            arguments=self.arguments,
            window_s=self.window_s,
            padding=self.padding,
            embedding_size=embedding_size,
            description=self.description,
            license=self.license,
            source=self.source,
        )

    @property
    def model_file(self) -> Path:
        """Path of the model file in the cache."""
        return cache_folder() / f"{self.name}.onnx"

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint in the cache."""
        return cache_folder() / f"{self.name}.safetensors"

    @property
    def download_size(self) -> int | None:
        """Size of the published file in bytes; that of float32 parameters if it is not known."""
        return self.size or (self.params and 4 * self.params)

    @property
    def speed(self) -> str:
        """Speed class by :data:`SPEEDS`; "" if the cost is not known."""
        if self.macs is None:
            return ""
        return next((name for name, most in SPEEDS.items() if self.macs <= most), "very slow")

    @property
    def is_cached(self) -> bool:
        """Whether the model is on this machine."""
        return self.cached_file is not None

    @property
    def cached_file(self) -> Path | None:
        """The file of the model on this machine: a checkpoint if it has no labels; None: there is none."""
        with suppress(ModelError):  # without a home folder nothing is cached
            path = self.model_file if self.labels else self.checkpoint
            return path if path.is_file() else None
        return None


def published() -> Mapping[str, PublishedModel]:
    """Returns the published models by name, in the order of the table."""
    return _read_models(_TABLE, "models")


def compared() -> Mapping[str, PublishedModel]:
    """Returns published networks to compare with: scores and costs without weights; their URL is empty."""
    return _read_models(_TABLE, "compared")


def content() -> Mapping[str, Any]:
    """Returns the table as it is."""
    return _read_table(_TABLE)


@cache
def _read_table(path: Path) -> Mapping[str, Any]:
    import tomllib  # not needed to run a shipped model

    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def _read_models(path: Path, kind: str) -> Mapping[str, PublishedModel]:
    table = _read_table(path)
    return {name: _entry(name, table["families"], own) for name, own in table.get(kind, {}).items()}


def _entry(name: str, families: Mapping[str, Any], own: Mapping[str, Any]) -> PublishedModel:
    values = {**families[own["family"]], **own, "name": name}
    folder, file = values.pop("folder", ""), values.pop("file", "")
    values.setdefault("url", folder + file)
    base = FRONT_ENDS[values["front_end"]].to_dict()
    values["front_end"] = FrontEnd.from_dict(base | values.pop("front_end_args", {}))
    del values["family"]
    return PublishedModel(**values)


def published_model(name: str) -> PublishedModel:
    """Returns a published model.

    Raises:
        ModelError: If there is none of that name; the message suggests similar names.
    """
    if name not in published():
        raise ModelError(f"unknown published model {name!r}{_similar(name, list(published()))}")
    return published()[name]


def cache_folder() -> Path:
    """Returns the folder of downloaded models: ``EARMARK_CACHE``, or the platform's cache folder.

    Raises:
        ModelError: If that would be in the home folder of a user who has none.
    """
    try:
        return _cache_folder(os.environ.get(CACHE_VARIABLE))
    except RuntimeError:
        raise ModelError(
            f"there is no home folder for downloaded models: set the environment variable {CACHE_VARIABLE} "
            "to a folder"
        ) from None


def _cache_folder(chosen: str | None) -> Path:
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "earmark" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "earmark"
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (folder if folder.is_absolute() else Path.home() / ".cache") / "earmark"


def shipped() -> list[str]:
    """Lists the models that come with the package, in alphabetical order."""
    return sorted(path.stem for path in _SHIPPED.glob("*.onnx"))


def list_models(pattern: str = "*") -> list[str]:
    """Lists the models that :func:`earmark.load` accepts by name: shipped ones first, then published ones.

    Args:
        pattern: Shell-style pattern that the names must match, such as "mn*_as".
    """
    tagging = (name for name, known in published().items() if known.labels)
    return fnmatch.filter([*shipped(), *tagging], pattern)


def lookup(model: str | os.PathLike[str] | None = None) -> Path | None:
    """Returns the file of a model, or None if it is not on this machine; ``model`` as for :func:`find`."""
    wanted = DEFAULT if model is None else os.fspath(model)
    return next((path for path in _candidates(wanted) if path.is_file()), None)


def _candidates(wanted: str) -> Iterator[Path]:
    """Where the file of a model may be; the cache is asked for only if the model does not ship."""
    if Path(wanted).name == wanted:
        yield _SHIPPED / f"{wanted}.onnx"
        with suppress(ModelError):  # without a home folder nothing is cached
            yield cache_folder() / f"{wanted}.onnx"
    yield Path(wanted)


def find(model: str | os.PathLike[str] | None = None) -> Path:
    """Returns the file of a model that is on this machine.

    Args:
        model: A name, the path of a model file, or None for the default model.

    Raises:
        ModelError: If there is no such model or file, or it was not downloaded; the message names the remedy
            or suggests similar names.
    """
    path = lookup(model)
    if path:
        return path
    if model is None:
        raise ModelError(f"the default model {DEFAULT} is not installed: pass the path of a model file")
    wanted = os.fspath(model)
    known = published().get(wanted)
    if known is not None and known.labels is None:
        raise ModelError(f"{wanted} cannot tag: it has no labels, only initial weights for training")
    if known is not None:
        raise ModelError(f"{wanted} is not on this machine: download it with earmark pull {wanted}")
    if Path(wanted).suffix or Path(wanted).name != wanted:
        raise ModelError(f"{wanted}: no such model file")
    raise ModelError(f"unknown model {wanted!r}{_similar(wanted, list_models())}")


def _similar(wanted: str, known: list[str]) -> str:
    near = get_close_matches(wanted, known, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f": {guess}(earmark models lists all)"
