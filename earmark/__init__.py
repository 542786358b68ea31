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
    from earmark.embeddings import Embeddings
    from earmark.errors import (
        AudioError,
        DataError,
        EarmarkError,
        MissingExtraError,
        ModelError,
        RecipeError,
    )
    from earmark.frontend import FrontEnd
    from earmark.record import Record
    from earmark.tagger import Result, Tag, Tagger, Window
    from earmark.zoo import load, pull

_HOMES = {
    "AudioError": "errors",
    "DataError": "errors",
    "EarmarkError": "errors",
    "Embeddings": "embeddings",
    "FrontEnd": "frontend",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "RecipeError": "errors",
    "Record": "record",
    "Result": "tagger",
    "Tag": "tagger",
    "Tagger": "tagger",
    "Window": "tagger",
    "load": "zoo",
    "pull": "zoo",
}

__all__ = [
    "AudioError",
    "DataError",
    "EarmarkError",
    "Embeddings",
    "FrontEnd",
    "MissingExtraError",
    "ModelError",
    "RecipeError",
    "Record",
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
