"""Ensembles: several models as one, the mean of their logits.

Conventions: members have the same front-end, labels, task and window. The padding of an ensemble is that of
its first member: all get the same windows. Its embedding is the concatenation of its members' embeddings. An
ensemble is not calibrated and has no thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.inference.engines import Session
from earmark.inference.tagger import Tagger
from earmark.model_file.info import ModelInfo

ARCHITECTURE = "ensemble"
"""The architecture in the model info of an ensemble."""

_REMEDIES = {
    "task": "choose models of one task",
    "front_end": "choose models with one front-end",
    "window_s": "earmark convert --window makes a model file with another window",
}


def ensemble(taggers: Sequence[Tagger]) -> Tagger:
    """Combines several taggers.

    Args:
        taggers: The members, at least one.

    Raises:
        ModelError: If they differ in labels, task, front-end or window.
    """
    info = ensemble_info([tagger.info for tagger in taggers])
    sessions = [tagger.session for tagger in taggers]
    return Tagger(EnsembleSession(sessions) if len(sessions) > 1 else sessions[0], info)


def ensemble_info(infos: Sequence[ModelInfo], name: str | None = None) -> ModelInfo:
    """Builds the model info of an ensemble.

    Args:
        infos: Model infos of the members, at least one; that of a single member is returned as it is.
        name: Name of the ensemble; default: the names of its members with "+" between them.

    Raises:
        ModelError: If they differ in labels, task, front-end or window.
    """
    first, *others = infos
    if not others:
        return first
    for other in others:
        _require_agreement(first, other)
    names = [info.name for info in infos]
    members = [
        {"name": info.name, "architecture": info.architecture, "arguments": dict(info.arguments)}
        for info in infos
    ]
    title = name or "+".join(names)
    description = f"The mean of the logits of {', '.join(names[:-1])} and {names[-1]}"
    return ModelInfo(
        name=title,
        labels=first.labels,
        front_end=first.front_end,
        task=first.task,
        architecture=ARCHITECTURE,
        arguments={"members": members},
        window_s=first.window_s,
        padding=first.padding,
        embedding_size=sum(info.embedding_size for info in infos),
        description=description,
        license=_distinct(info.license for info in infos),
        source=_distinct(info.source for info in infos),
        provenance={"members": {info.name: dict(info.provenance) for info in infos}},
        card="\n".join([f"# {title}\n\n{description}.\n", *dict.fromkeys(info.card for info in infos)]),
    )


class EnsembleSession:
    """Runs the sessions of several models with one input.

    Args:
        sessions: Sessions of the members.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions = tuple(sessions)

    def run(
        self, names: Sequence[str], inputs: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Computes the mean of the logits (batch, class) and all embeddings (batch, channel), as named."""
        outputs = [session.run(["logits", "embedding"], inputs) for session in self.sessions]
        logits, embeddings = zip(*outputs, strict=True)
        combined = {"logits": np.mean(logits, 0), "embedding": np.concatenate(embeddings, 1)}
        return [combined[name] for name in names]


def require_same_labels(name: str, labels: Sequence[str], other: str, others: Sequence[str]) -> None:
    """Checks that two models have the same labels in the same order.

    Args:
        name: Name of a model.
        labels: Its labels.
        other: Name of another model.
        others: Its labels.

    Raises:
        ModelError: If they differ; the message names the first difference.
    """
    if tuple(labels) == tuple(others):
        return
    if len(labels) != len(others):
        difference = f"{len(labels)} and {len(others)} labels"
    else:
        pairs = enumerate(zip(labels, others, strict=True), start=1)
        number, (one, another) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
        difference = f"label {number} is {one!r} and {another!r}"
    raise ModelError(
        f"{name} and {other} cannot form an ensemble: {difference}: "
        "choose models with the same labels in the same order"
    )


def _require_agreement(first: ModelInfo, other: ModelInfo) -> None:
    require_same_labels(first.name, first.labels, other.name, other.labels)
    for name, remedy in _REMEDIES.items():
        one, another = getattr(first, name), getattr(other, name)
        if one == another:
            continue
        if name == "front_end":
            one, another = _difference(one.to_dict(), another.to_dict())
        raise ModelError(
            f"{first.name} and {other.name} cannot form an ensemble: {name} is {one} and {another}: {remedy}"
        )


def _difference(first: Mapping[str, object], other: Mapping[str, object]) -> tuple[str, str]:
    """The first value in which two front-ends differ, of each."""
    name = next(key for key in [*first, *other] if first.get(key) != other.get(key))
    return f"{name}={first.get(name)!r}", f"{name}={other.get(name)!r}"


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
