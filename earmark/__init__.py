"""earmark tags sounds with small networks, fast on a laptop CPU.

    import earmark

    result = earmark.load().tag("street.wav")
    for tag in result.tags[:5]:
        print(tag.label, tag.score, tag.start_s, tag.end_s)

Conventions: names are imported when they are first used, so importing earmark is fast and never imports
PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from earmark.version import __version__ as __version__

if TYPE_CHECKING:
    from earmark.custom.fit import fit as fit
    from earmark.custom.options import FitOptions as FitOptions
    from earmark.custom.report import FitReport as FitReport
    from earmark.errors import AudioError as AudioError
    from earmark.errors import DataError as DataError
    from earmark.errors import EarmarkError as EarmarkError
    from earmark.errors import MissingExtraError as MissingExtraError
    from earmark.errors import ModelError as ModelError
    from earmark.errors import RecipeError as RecipeError
    from earmark.evaluation.evaluation import Evaluation as Evaluation
    from earmark.evaluation.run import EvaluationOptions as EvaluationOptions
    from earmark.evaluation.run import evaluate as evaluate
    from earmark.events.event import Event as Event
    from earmark.events.online import Notice as Notice
    from earmark.events.options import EventOptions as EventOptions
    from earmark.features.front_end import FrontEnd as FrontEnd
    from earmark.hub.pull import pull as pull
    from earmark.hub.registry import list_models as list_models
    from earmark.inference.embeddings import Embeddings as Embeddings
    from earmark.inference.listener import Listener as Listener
    from earmark.inference.load import load as load
    from earmark.inference.result import Result as Result
    from earmark.inference.result import Tag as Tag
    from earmark.inference.tagger import Tagger as Tagger
    from earmark.inference.window_store import Window as Window
    from earmark.model_file.info import ModelInfo as ModelInfo
    from earmark.training.run import train as train

_MODULES = {
    "custom.fit": ("fit",),
    "custom.options": ("FitOptions",),
    "custom.report": ("FitReport",),
    "errors": ("AudioError", "DataError", "EarmarkError", "MissingExtraError", "ModelError", "RecipeError"),
    "evaluation.evaluation": ("Evaluation",),
    "evaluation.run": ("EvaluationOptions", "evaluate"),
    "events.event": ("Event",),
    "events.online": ("Notice",),
    "events.options": ("EventOptions",),
    "features.front_end": ("FrontEnd",),
    "hub.pull": ("pull",),
    "hub.registry": ("list_models",),
    "inference.embeddings": ("Embeddings",),
    "inference.listener": ("Listener",),
    "inference.load": ("load",),
    "inference.result": ("Result", "Tag"),
    "inference.tagger": ("Tagger",),
    "inference.window_store": ("Window",),
    "model_file.info": ("ModelInfo",),
    "training.run": ("train",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'earmark' has no attribute {name!r}")
    from earmark.errors import extra

    with extra(f"earmark.{name}", "train"):
        return getattr(import_module(f"earmark.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
