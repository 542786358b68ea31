"""Suggestions as a folder of clips to sort, and the threshold that follows from how they were sorted.

    write_suggestions(suggester.suggestions(), "Dog", Path("review"))
    # listen; move each clip into review/Dog/ or review/other/
    threshold = read_review(Path("review")).threshold(precision=0.9)

Conventions: a clip's folder says whether the label is heard in it. Precision and recall are those of the
archive, estimated with the weights of the suggestions; windows of one tenth of the scores count as alike.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.custom.suggest import Suggestion
from earmark.errors import DataError
from earmark.events.clips import ClipFolder
from earmark.events.event import Event
from earmark.model_file.atomic import write_atomically
from earmark.model_file.label_selection import select_labels
from earmark.model_file.onnx_file import read_model_file, replace_info
from earmark.model_file.tables import read_table

TABLE = "suggestions.csv"
COLUMNS = ("file", "label", "score", "weight", "source", "start_s", "end_s")
DEFAULT_THRESHOLD = 0.5
"""Of the other labels of a model that has no thresholds."""
OTHER = "other"
"""Folder of clips in which the label is not heard; background for a fit."""


def write_suggestions(
    suggestions: Sequence[Suggestion], label: str, folder: Path, context_s: float = 0.0
) -> list[str]:
    """Cuts suggestions out of their recordings into a folder to sort.

    The folder gets the clips, a folder named as the label, a folder "other", and the table
    ``suggestions.csv``.

    Args:
        suggestions: At least one.
        label: Their label.
        folder: Created if necessary; has no such table yet.
        context_s: Seconds before and after each window.

    Returns:
        Warnings about the recordings.

    Raises:
        DataError: If the folder has suggestions already, or the label cannot be the name of a folder.
        AudioError: If a recording cannot be read any more.
        OSError: If a clip cannot be written.
    """
    require_new(folder)
    own = folder_name(label)
    clips, warnings = ClipFolder(folder, context_s), []
    by_path: dict[str, list[Suggestion]] = {}
    for one in suggestions:
        by_path.setdefault(one.path, []).append(one)
    for path, members in by_path.items():
        events = [
            Event(label, one.start_s, one.end_s, one.score, one.score, one.end_s - one.start_s)
            for one in members
        ]
        warnings += clips.add(Path(path), path, events)
    weights = {(one.path, one.start_s): one.weight for one in suggestions}
    rows = [
        (
            clip.name,
            label,
            f"{clip.event.peak:.6f}",
            f"{weights[clip.source, clip.event.start_s]:.3f}",
            clip.source,
            f"{clip.event.start_s:.3f}",
            f"{clip.event.end_s:.3f}",
        )
        for clip in clips.clips
    ]
    for name in (own, OTHER):
        (folder / name).mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomically(folder / TABLE, text.getvalue().encode("utf-8", "surrogateescape"))
    return warnings


def require_new(folder: Path) -> None:
    """Refuses a folder that has suggestions already.

    Raises:
        DataError: If it has.
    """
    if (folder / TABLE).exists():
        raise DataError(f"{folder}: has suggestions already: sort them, or choose another folder")


def folder_name(label: str) -> str:
    """The folder that clips of a label are sorted into: the label, with ``/`` as ``-``.

    Raises:
        DataError: If that is no name of a folder.
    """
    name = label.replace("/", "-").replace(os.sep, "-").strip()
    if name in ("", ".", "..", OTHER) or "\0" in name:
        raise DataError(f"label {label!r} cannot be the name of a folder")
    return name


@dataclass(frozen=True, eq=False)
class Review:
    """Suggestions that were sorted.

    Args:
        label: Their label.
        scores: That they were suggested with, shape (clip,).
        heard: Whether the label was heard in each, shape (clip,).
        weights: Windows of the archive that each stands for, shape (clip,).
        num_unsorted: Suggestions that are not in a folder yet.
    """

    label: str
    scores: NDArray[np.float64]
    heard: NDArray[np.bool_]
    weights: NDArray[np.float64]
    num_unsorted: int

    def threshold(self, precision: float) -> Threshold:
        """Estimates the lowest threshold with at least that precision in the archive.

        Args:
            precision: In (0, 1].

        Raises:
            DataError: If the label was heard nowhere, or no threshold has that precision.
        """
        return threshold_for(precision, self.scores, self.heard, self.weights)


class Threshold(NamedTuple):
    """A threshold, and the precision and recall that it has in the archive, estimated."""

    value: float
    precision: float
    recall: float


def read_review(folder: Path, others: Iterable[Path] = ()) -> Review:
    """Reads how suggestions were sorted.

    Args:
        folder: That :func:`write_suggestions` wrote. A clip in a folder of the label's name has the label; in
            any other folder it has not; beside the table it is unsorted.
        others: Further folders of classes that clips may have been moved to.

    Raises:
        DataError: If there is no table, it is damaged, or no clip is sorted.
    """
    rows = read_table(folder / TABLE, what="the table of suggestions")
    label = rows[0][1]["label"] if rows else ""
    homes: dict[str, str] = {}
    for root in (folder, *others):
        for path in root.glob("*/**/*"):
            homes.setdefault(path.name, path.relative_to(root).parts[0])
    found = []
    for line, row in rows:
        try:
            numbers = float(row["score"]), float(row["weight"])
        except (KeyError, ValueError):
            raise DataError(f"{folder / TABLE}, line {line}: is not a row of suggestions") from None
        if row["file"] in homes:
            found.append((*numbers, homes[row["file"]] == folder_name(label)))
    if not found:
        raise DataError(
            f"{folder}: no suggestion is sorted yet: move the clips into {folder_name(label)}/ where the "
            f"label is heard, and into {OTHER}/ where it is not"
        )
    scores, weights, heard = zip(*found, strict=True)
    return Review(
        label, np.array(scores), np.array(heard, bool), np.array(weights), num_unsorted=len(rows) - len(found)
    )


def threshold_for(precision: float, scores: ArrayLike, heard: ArrayLike, weights: ArrayLike) -> Threshold:
    """Chooses the lowest threshold that has a precision, of weighted clips.

    Args:
        precision: In (0, 1].
        scores: Shape (clip,).
        heard: Whether the label is right, shape (clip,).
        weights: How many each clip stands for, shape (clip,).

    Raises:
        DataError: If no clip has the label, or no threshold has the precision.
    """
    if not 0 < precision <= 1:
        raise DataError(f"precision must be above 0 and at most 1, got {precision:g}")
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    sorted_scores = np.asarray(scores, float)[order]
    mass = np.asarray(weights, float)[order]
    right = np.cumsum(mass * np.asarray(heard, bool)[order])
    if not len(right) or not right[-1]:
        raise DataError("the label was heard in none of the clips: no threshold can be chosen")
    precisions = right / np.cumsum(mass)
    is_last = np.append(np.diff(sorted_scores) < 0, True)
    able = np.flatnonzero(is_last & (precisions >= precision - 1e-12))
    if not len(able):
        best = float(precisions[is_last].max())
        raise DataError(f"no threshold has a precision of {precision:g}: the highest is {best:.2f}")
    at = int(able[-1])
    below = sorted_scores[at + 1] if at + 1 < len(sorted_scores) else 0.0
    value = float((sorted_scores[at] + below) / 2)
    return Threshold(value, float(precisions[at]), float(right[at] / right[-1]))


def with_threshold(
    model: str | os.PathLike[str], review: Review, threshold: Threshold, output: str | os.PathLike[str]
) -> None:
    """Writes a model file with another threshold of one label.

    Args:
        model: Path of the model file; its other thresholds stay, or are 0.5 if it has none.
        review: What the threshold was chosen by.
        threshold: The threshold.
        output: Path of the new model file.

    Raises:
        ModelError: If the model file cannot be read, or has no such label.
        OSError: If the output cannot be written.
    """
    content, info = read_model_file(model)
    [index] = select_labels(info.labels, [review.label])
    values = list(info.thresholds or (DEFAULT_THRESHOLD,) * len(info.labels))
    values[index] = threshold.value
    rule = (
        f"{review.label}: precision {threshold.precision:.2f} and recall {threshold.recall:.2f}, estimated "
        f"from {len(review.scores)} reviewed clips"
    )
    rules = [one for one in (info.threshold_rule, rule) if one]
    changed = info.changed(threshold=tuple(values), threshold_rule="; ".join(rules))
    write_atomically(output, replace_info(content, changed))
