"""AudioSet's ontology, and scores of its parent sounds computed from those of their children.

Source: Gemmeke et al., "Audio Set", ICASSP 2017, and the ontology that Google publishes with it (CC BY-SA
4.0). The table in the package is written by recipes/audioset/ontology.py.

Conventions: nodes have their published names; scores are (..., class).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.model_file.label_selection import nearest

Floats = NDArray[np.float32]
_TABLE = Path(__file__).parent / "audioset.tsv"


@dataclass(frozen=True, eq=False)
class Ontology:
    """A hierarchy of sounds, in which a node may have several parents.

    Args:
        ids: Node name -> published id, in the table's order.
        children: Node name -> names of its children.
        parents: Node name -> names of its parents.
    """

    ids: dict[str, str]
    children: dict[str, tuple[str, ...]]
    parents: dict[str, tuple[str, ...]]

    def descendants(self, name: str) -> tuple[str, ...]:
        """All nodes below a node, each once, nearest first.

        Raises:
            ModelError: If there is no such node; the message names similar ones.
        """
        return self._reached(name, self.children)

    def ancestors(self, name: str) -> tuple[str, ...]:
        """All nodes above a node, each once, nearest first; raises as :meth:`descendants`."""
        return self._reached(name, self.parents)

    def _reached(self, name: str, steps: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        if name not in self.ids:
            raise ModelError(f"AudioSet's ontology has no sound {name!r}: {nearest(name, tuple(self.ids))}")
        found: dict[str, None] = {}
        ahead = list(steps[name])
        for node in ahead:  # breadth-first: the list grows while it is iterated
            if node not in found:
                found[node] = None
                ahead += steps[node]
        return tuple(found)


@cache
def audioset_ontology() -> Ontology:
    """AudioSet's ontology: 632 nodes, of which the first 527 are AudioSet's labels, in their order."""
    text = _TABLE.read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.split("\n") if line and not line.startswith("#")]
    names = [name for _, _, name in rows]
    children = {name: tuple(names[int(line)] for line in lines.split()) for _, lines, name in rows}
    parents: dict[str, list[str]] = {name: [] for name in names}
    for name, below in children.items():
        for child in below:
            parents[child].append(name)
    ids = {name: id_ for id_, _, name in rows}
    return Ontology(ids, children, {name: tuple(above) for name, above in parents.items()})


@cache
def rollup_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    """A model's labels, followed by those of their ancestors in AudioSet's ontology that are not among them.

    Args:
        labels: The model's labels, all of them nodes of the ontology.

    Raises:
        ModelError: If a label is not in the ontology.
    """
    ontology = audioset_ontology()
    foreign = [label for label in labels if label not in ontology.ids]
    if foreign:
        raise ModelError(f"label {foreign[0]!r} is not in AudioSet's ontology: rollup needs AudioSet labels")
    above = {name for label in labels for name in ontology.ancestors(label)} - set(labels)
    return (*labels, *(name for name in ontology.ids if name in above))


def rollup_scores(labels: tuple[str, ...], scores: Floats) -> Floats:
    """Scores of a model's labels and of all their ancestors in AudioSet's ontology.

    A node's score is the maximum over itself and those of its descendants that the model has as labels.

    Args:
        labels: The model's labels, all of them nodes of the ontology.
        scores: Shape (..., class), one class per label.

    Returns:
        Shape (..., class), one class per label of ``rollup_labels(labels)``.

    Raises:
        ModelError: If a label is not in the ontology.
    """
    gathered, starts = _gathered(labels)
    return np.asarray(np.maximum.reduceat(np.asarray(scores)[..., gathered], starts, axis=-1))


@cache
def _gathered(labels: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the scores under each node, concatenated, and where each node's group begins."""
    ontology = audioset_ontology()
    position = {label: index for index, label in enumerate(labels)}
    groups = [
        [position[label] for label in (name, *ontology.descendants(name)) if label in position]
        for name in rollup_labels(labels)
    ]
    starts = np.cumsum([0, *map(len, groups[:-1])])
    return np.array([index for group in groups for index in group]), starts
