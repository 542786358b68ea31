"""earmark tags sounds: small networks that say what is heard in a recording, fast on a laptop CPU.

    import earmark

    result = earmark.load().tag("street.wav")
    for tag in result.tags[:5]:
        print(tag.label, tag.score, tag.start_s, tag.end_s)

Conventions: names are looked up when they are first used, so that importing earmark costs nothing and never
imports PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from earmark.version import __version__

if TYPE_CHECKING:
    from earmark.errors import (
        AudioError,
        DataError,
        EarmarkError,
        MissingExtraError,
        ModelError,
        RecipeError,
    )
    from earmark.features.front_end import FrontEnd
    from earmark.hub.pull import pull
    from earmark.inference.embeddings import Embeddings
    from earmark.inference.load import load
    from earmark.inference.tagger import Result, Tag, Tagger, Window
    from earmark.model_file.info import ModelInfo

_HOMES = {
    "AudioError": "errors",
    "DataError": "errors",
    "EarmarkError": "errors",
    "Embeddings": "inference.embeddings",
    "FrontEnd": "features.front_end",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "ModelInfo": "model_file.info",
    "RecipeError": "errors",
    "Result": "inference.tagger",
    "Tag": "inference.tagger",
    "Tagger": "inference.tagger",
    "Window": "inference.tagger",
    "load": "inference.load",
    "pull": "hub.pull",
}

__all__ = [
    "AudioError",
    "DataError",
    "EarmarkError",
    "Embeddings",
    "FrontEnd",
    "MissingExtraError",
    "ModelError",
    "ModelInfo",
    "RecipeError",
    "Result",
    "Tag",
    "Tagger",
    "Window",
    "__version__",
    "load",
    "pull",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'earmark' has no attribute {name!r}")
    return getattr(import_module(f"earmark.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
