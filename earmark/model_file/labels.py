"""Label sets by name, AudioSet's ontology, and what it makes of scores: parents from children, a few of many.

Conventions: a label is its published name, spelt as published; sets are in the order of the models' classes.
Scores are (..., class). AudioSet's labels and ontology are Google's (CC BY 4.0 and CC BY-SA 4.0); the table
that ships is made by recipes/audioset/ontology.py.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError

Floats = NDArray[np.float32]

_AUDIOSET = Path(__file__).parent / "audioset.tsv"
_CORPORA = Path(__file__).parent / "corpora.toml"
_AUDIOSET_CLASSES = 527
_TAU_SCENES = (
    "airport",
    "bus",
    "metro",
    "metro_station",
    "park",
    "public_square",
    "shopping_mall",
    "street_pedestrian",
    "street_traffic",
    "tram",
)


@dataclass(frozen=True, eq=False)
class Ontology:
    """A hierarchy of sounds, in which a node may have several parents.

    Args:
        ids: Name of every node to its published id, in the table's order.
        children: Name of every node to the names right below it.
        parents: Name of every node to the names right above it.
    """

    ids: dict[str, str]
    children: dict[str, tuple[str, ...]]
    parents: dict[str, tuple[str, ...]]

    def descendants(self, name: str) -> tuple[str, ...]:
        """Every node below a node, each once, nearest first.

        Raises:
            ModelError: If there is no such node; the message names the nearest.
        """
        return self._reached(name, self.children)

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Every node above a node, each once, nearest first; errors as for descendants."""
        return self._reached(name, self.parents)

    def _reached(self, name: str, steps: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        if name not in self.ids:
            raise ModelError(f"AudioSet's ontology has no node {name!r}: {_nearest(name, tuple(self.ids))}")
        found: dict[str, None] = {}
        ahead = list(steps[name])
        for node in ahead:  # grows while it is walked, so nodes come by their distance
            if node not in found:
                found[node] = None
                ahead += steps[node]
        return tuple(found)


@cache
def audioset_ontology() -> Ontology:
    """AudioSet's ontology: 632 nodes, of which 527 are labels.

    Source: Gemmeke et al., "Audio Set", ICASSP 2017, and the ontology that Google publishes with it.
    """
    rows = [line.split("\t") for line in _lines(_AUDIOSET)]
    names = [name for _, _, name in rows]
    children = {name: tuple(names[int(line)] for line in lines.split()) for _, lines, name in rows}
    parents: dict[str, list[str]] = {name: [] for name in names}
    for name, below in children.items():
        for child in below:
            parents[child].append(name)
    ids = {name: id_ for id_, _, name in rows}
    return Ontology(ids, children, {name: tuple(above) for name, above in parents.items()})


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def _audioset_labels() -> tuple[str, ...]:
    return tuple(audioset_ontology().ids)[:_AUDIOSET_CLASSES]


@cache
def _corpus_labels() -> dict[str, tuple[str, ...]]:
    tables = tomllib.loads(_CORPORA.read_text(encoding="utf-8"))
    return {name: tuple(labels) for name, labels in tables.items()}


_LABEL_SETS: dict[str, Callable[[], tuple[str, ...]]] = {
    "audioset": _audioset_labels,
    "tau_scenes": lambda: _TAU_SCENES,
    "fsd50k": lambda: _corpus_labels()["fsd50k"],
    "openmic": lambda: _corpus_labels()["openmic"],
    "speech_commands": lambda: _corpus_labels()["speech_commands"],
}


def label_set(name: str) -> tuple[str, ...]:
    """The labels of a published set, in the order of its models' classes.

    Args:
        name: "audioset" (527 sounds), "tau_scenes" (10 acoustic scenes of TAU Urban Acoustic Scenes),
            "fsd50k" (200 sounds), "openmic" (20 instruments of OpenMIC-2018) or "speech_commands" (35 words
            of its second version).

    Raises:
        ModelError: If there is no set of that name.
    """
    if name not in _LABEL_SETS:
        raise ModelError(f"there is no label set {name!r}: there are {', '.join(_LABEL_SETS)}")
    return _LABEL_SETS[name]()


@cache
def rolled_up_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    """A model's labels, and behind them their ancestors in AudioSet's ontology that are none of them.

    Args:
        labels: Of the model, all of them nodes of the ontology.

    Raises:
        ModelError: If one is not.
    """
    ontology = audioset_ontology()
    foreign = [label for label in labels if label not in ontology.ids]
    if foreign:
        raise ModelError(
            f"label {foreign[0]!r} is none of AudioSet's: only models with AudioSet's labels can be rolled up"
        )
    above = {name for label in labels for name in ontology.ancestors(label)} - set(labels)
    return (*labels, *(name for name in ontology.ids if name in above))


def roll_up(labels: tuple[str, ...], scores: Floats) -> Floats:
    """Scores of a model's labels and of all their parents in AudioSet's ontology.

    A node's score is the maximum over itself and its descendants, as far as they are labels of the model.

    Args:
        labels: Of the model, all of them nodes of the ontology.
        scores: Shape (..., class), one class per label.

    Returns:
        Shape (..., class), one class per label of ``rolled_up_labels(labels)``.

    Raises:
        ModelError: If a label is none of AudioSet's.
    """
    gathered, starts = _gathered(labels)
    return np.asarray(np.maximum.reduceat(np.asarray(scores)[..., gathered], starts, axis=-1))


@cache
def _gathered(labels: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the scores that each node is the maximum of, end to end, and where each node's begin."""
    ontology = audioset_ontology()
    position = {label: index for index, label in enumerate(labels)}
    sources = [
        [position[label] for label in (name, *ontology.descendants(name)) if label in position]
        for name in rolled_up_labels(labels)
    ]
    starts = np.cumsum([0, *map(len, sources[:-1])])
    return np.array([index for source in sources for index in source]), starts


def choose(labels: Sequence[str], wanted: str | Iterable[str]) -> tuple[int, ...]:
    """Finds labels by name.

    Args:
        labels: To choose from.
        wanted: Names, or one text of names with commas between them; a name may hold commas itself. Letters
            may be large or small, unless the labels tell them apart.

    Returns:
        Positions of the labels, ascending, each once.

    Raises:
        ModelError: If one is unknown, or none is named; the message names the nearest.
    """
    names = _separated(wanted, labels) if isinstance(wanted, str) else list(wanted)
    if not names:
        raise ModelError("no label was named: give at least one")
    return tuple(sorted({_position(name, labels) for name in names}))


def _separated(text: str, labels: Sequence[str]) -> list[str]:
    """Cuts at commas, but takes as many pieces together as make a label."""
    known = {_key(label) for label in labels}
    pieces = text.split(",")
    names = []
    while pieces:
        counts = range(len(pieces), 0, -1)
        count = next((count for count in counts if _key(",".join(pieces[:count])) in known), 1)
        names.append(",".join(pieces[:count]).strip())
        del pieces[:count]
    return [name for name in names if name]


def _key(label: str) -> str:
    """A label without what may differ when people type it: large letters, and spaces at commas."""
    return ",".join(piece.strip() for piece in label.casefold().split(","))


def _position(name: str, labels: Sequence[str]) -> int:
    if name in labels:
        return labels.index(name)
    alike = [index for index, label in enumerate(labels) if _key(label) == _key(name)]
    if len(alike) == 1:
        return alike[0]
    raise ModelError(f"there is no label {name!r}: {_nearest(name, labels)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    """What to do about an unknown name: those that are spelt alike or hold it."""
    small = {entry.casefold(): entry for entry in known}
    near = get_close_matches(name.casefold(), small, n=3, cutoff=0.6)
    near += [entry for entry in small if name.casefold() in entry and entry not in near]
    if near:
        return f"did you mean {' or '.join(repr(small[entry]) for entry in near[:3])}?"
    return f"there are {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
