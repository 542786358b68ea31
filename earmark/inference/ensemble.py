"""Ensembles: several models that answer as one, by the mean of their logits.

Conventions: members agree on labels, task, window and padding; each hears through its own front-end. The
embedding of an ensemble is those of its members, end to end. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.model_file.info import ModelInfo

ARCHITECTURE = "ensemble"
"""What the record of an ensemble has in the place of a network's name."""

_MENDING = {
    "task": "take models of one task",
    "window_s": "earmark convert --window makes a model file with another window",
    "padding": "take models of one padding",
}


def joined(infos: Sequence[ModelInfo], name: str | None = None) -> ModelInfo:
    """What several models are together.

    Args:
        infos: Of the members, at least one; of a single one, its own record is the answer.
        name: Of the ensemble; by default those of its members with "+" between them.

    Returns:
        The record. Its front-ends are the members', each once; there is no threshold, since none was chosen.

    Raises:
        ModelError: If members do not agree on labels, task, window or padding.
    """
    first, *others = infos
    if not others:
        return first
    for other in others:
        _require_agreement(first, other)
    front_ends = tuple(dict.fromkeys(one for info in infos for one in info.front_ends))
    members = [
        {
            "name": info.name,
            "architecture": info.architecture,
            "arguments": dict(info.arguments),
            "front_ends": [front_ends.index(one) for one in info.front_ends],
        }
        for info in infos
    ]
    names = [info.name for info in infos]
    title = name or "+".join(names)
    meaning = f"The mean of the logits of {_listed(names)}"
    return ModelInfo(
        name=title,
        labels=first.labels,
        front_end=front_ends[0],
        further_front_ends=front_ends[1:],
        task=first.task,
        architecture=ARCHITECTURE,
        arguments={"members": members},
        window_s=first.window_s,
        padding=first.padding,
        embedding_size=sum(info.embedding_size for info in infos),
        description=meaning,
        license=_once(info.license for info in infos),
        source=_once(info.source for info in infos),
        provenance={"members": {info.name: dict(info.provenance) for info in infos}},
        card="\n".join([f"# {title}\n\n{meaning}.\n", *dict.fromkeys(info.card for info in infos)]),
    )


class JointSession:
    """Runs the graphs of several models as if they were one.

    Args:
        sessions: Each has ``run(names, inputs)`` as an inference session of ONNX Runtime does.
        infos: Of the models that they run.
    """

    def __init__(self, sessions: Sequence[Any], infos: Sequence[ModelInfo]) -> None:
        joint = joined(infos)
        inputs = dict(zip(joint.front_ends, joint.graph_inputs, strict=True))
        self._members = [
            (
                session,
                {own: inputs[one] for own, one in zip(info.graph_inputs, info.front_ends, strict=True)},
            )
            for session, info in zip(sessions, infos, strict=True)
        ]

    def run(
        self, names: Sequence[str], inputs: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Answers what is asked for.

        Args:
            names: Of "logits" and "embedding".
            inputs: By the names of the ensemble's record.

        Returns:
            float32 (batch, class) and (batch, channel), in the order of the names.
        """
        answers = [
            session.run(["logits", "embedding"], {own: inputs[name] for own, name in renamed.items()})
            for session, renamed in self._members
        ]
        logits, embeddings = zip(*answers, strict=True)
        answer = {"logits": np.mean(logits, 0), "embedding": np.concatenate(embeddings, 1)}
        return [answer[name] for name in names]


def require_same_labels(name: str, labels: Sequence[str], other: str, others: Sequence[str]) -> None:
    """Refuses two models that do not have the same labels in the same order.

    Args:
        name: Of a model.
        labels: Its labels.
        other: Name of another model.
        others: The other's labels.

    Raises:
        ModelError: If they differ; the message says in what.
    """
    if tuple(labels) == tuple(others):
        return
    if len(labels) != len(others):
        difference = f"they have {len(labels)} and {len(others)} labels"
    else:
        pairs = enumerate(zip(labels, others, strict=True), start=1)
        number, (one, another) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
        difference = f"label {number} is {one!r} of the first, {another!r} of the other"
    raise ModelError(
        f"{name} and {other} cannot answer together: {difference}: "
        "take models with the same labels in the same order"
    )


def _require_agreement(first: ModelInfo, other: ModelInfo) -> None:
    require_same_labels(first.name, first.labels, other.name, other.labels)
    for name, mending in _MENDING.items():
        one, another = getattr(first, name), getattr(other, name)
        if one != another:
            raise ModelError(
                f"{first.name} and {other.name} cannot answer together: {name} is {one} of the first, "
                f"{another} of the other: {mending}"
            )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _once(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
