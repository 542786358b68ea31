"""Names of models -> files on this machine, and the table of published weights.

Conventions: a model is named either by a name from the table (:func:`names`) or by the path of a model file.
What was fetched or made lies in one folder (:func:`cache_folder`). No torch, no network here.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.presets import FRONT_ENDS
from earmark.model_file.info import Padding, Task

DEFAULT = "mn04_esc18"
"""The model that is used where none is named; it ships with the package."""
CACHE_VARIABLE = "EARMARK_CACHE"
"""The environment variable that names another folder than the platform's for what is fetched."""

_SHIPPED = Path(__file__).parent / "shipped"
_TABLE = Path(__file__).parent / "registry.toml"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that somebody published, and all that is needed to use them rightly.

    Source: registry.toml, which says where its facts come from; what is not known is None or empty.

    Args:
        name: The model's name.
        url: Of the published file.
        architecture: Name in the registry of networks.
        arguments: What the architecture is built with, apart from the number of classes.
        front_end: Waveform -> log-mel.
        labels: Name of a label set, or None for a starting point of trainings, which hears nothing by itself.
        num_classes: Of the published head.
        task: As in a model's record.
        window_s: As in a model's record.
        padding: As in a model's record.
        size: Of the published file, in bytes.
        sha256: Of the published file, or its first digits.
        layout: Whose names the tensors bear, where it is not the architecture: "torchvision".
        params: Number of parameters.
        macs: Multiply-accumulate operations of a 10 s clip.
        scores: As published, from 0 to 1 where they are shares.
        scored_on: What the scores were measured on.
        description: What the model is for.
        license: Of the weights.
        license_note: What is to be known about the licence.
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
    scores: Mapping[str, float] = field(default_factory=dict)
    scored_on: str = ""
    description: str = ""
    license: str = ""
    license_note: str = ""
    source: str = ""

    @property
    def model_file(self) -> Path:
        """Where the model file lies once it is made."""
        return cache_folder() / f"{self.name}.onnx"

    @property
    def checkpoint(self) -> Path:
        """Where the weights lie once they are converted."""
        return cache_folder() / f"{self.name}.safetensors"

    @property
    def on_this_machine(self) -> bool:
        """Whether it was fetched and converted."""
        return (self.model_file if self.labels else self.checkpoint).is_file()


def published() -> Mapping[str, Published]:
    """The table of published weights by name, in its own order."""
    return _read_table(_TABLE)


@cache
def _read_table(path: Path) -> Mapping[str, Published]:
    import tomllib  # only where the table is needed: `earmark tag` starts without it

    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: _entry(name, table["families"], own) for name, own in table["models"].items()}


def _entry(name: str, families: Mapping[str, Any], own: Mapping[str, Any]) -> Published:
    values = {**families[own["family"]], **own, "name": name}
    folder, file = values.pop("folder", ""), values.pop("file", "")
    values.setdefault("url", folder + file)
    base = FRONT_ENDS[values["front_end"]].to_dict()
    values["front_end"] = FrontEnd.from_dict(base | values.pop("front_end_args", {}))
    del values["family"]
    return Published(**values)


def entry(name: str) -> Published:
    """The published weights of a name.

    Raises:
        ModelError: If there are none; the message names the nearest.
    """
    if name not in published():
        raise ModelError(f"there are no published weights named {name!r}{_nearest(name, list(published()))}")
    return published()[name]


def cache_folder() -> Path:
    """Where fetched models lie: ``EARMARK_CACHE``, or else where the platform keeps what can be had again."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "earmark" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "earmark"
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (folder if folder.is_absolute() else Path.home() / ".cache") / "earmark"


def shipped() -> list[str]:
    """The models that came with the package, in alphabetical order."""
    return sorted(path.stem for path in _SHIPPED.glob("*.onnx"))


def names() -> list[str]:
    """The models that :func:`earmark.load` knows by name: what ships, then the published ones that hear."""
    return [*shipped(), *(name for name, known in published().items() if known.labels)]


def list_models(pattern: str = "*") -> list[str]:
    """Lists the models that :func:`earmark.load` knows by name: shipped ones first, then published ones.

    Args:
        pattern: Shell-style pattern that the names match, such as "mn*_as".
    """
    return fnmatch.filter(names(), pattern)


def look(model: str | os.PathLike[str] | None = None) -> Path | None:
    """The file of a model, or None if it is not on this machine; ``model`` as in :func:`find`."""
    wanted = DEFAULT if model is None else os.fspath(model)
    is_name = Path(wanted).name == wanted
    by_name = [folder / f"{wanted}.onnx" for folder in (_SHIPPED, cache_folder()) if is_name]
    return next((path for path in (*by_name, Path(wanted)) if path.is_file()), None)


def find(model: str | os.PathLike[str] | None = None) -> Path:
    """The file of a model that is on this machine.

    Args:
        model: A name, the path of a model file, or None for the default model.

    Raises:
        ModelError: If there is neither a model of that name nor such a file, or it was not fetched yet; the
            message says how to, or names the nearest.
    """
    path = look(model)
    if path:
        return path
    if model is None:
        raise ModelError(f"the default model {DEFAULT} is not installed: give the path of a model file")
    wanted = os.fspath(model)
    if wanted in published():
        raise ModelError(_absence(published()[wanted]))
    if Path(wanted).suffix or Path(wanted).name != wanted:
        raise ModelError(f"{wanted}: there is no such model file")
    raise ModelError(f"there is no model named {wanted!r}{_nearest(wanted, names())}")


def _absence(known: Published) -> str:
    if known.labels is None:
        return f"{known.name} is a starting point for training: it has no labels of sounds, so it cannot tag"
    return f"{known.name} is not on this machine yet: earmark pull '{known.name}' fetches it"


def _nearest(wanted: str, known: list[str]) -> str:
    near = get_close_matches(wanted, known, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f": {guess}(earmark models lists all)"
