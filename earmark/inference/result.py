"""The result of tagging a recording: windows, scores, tags.

Conventions: scores lie in [0, 1] and are probabilities only where ``calibrated`` is true; times are seconds
from the start of the recording.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.events.detect import detect
from earmark.events.event import Event, ScoreSeries
from earmark.events.options import EventOptions
from earmark.events.windows import average_windows
from earmark.inference.pooling import Pooling, pool_blocks
from earmark.inference.window_store import Window, in_blocks, viewed
from earmark.model_file.label_selection import select_labels
from earmark.model_file.ontology import rollup_labels, rollup_scores

Floats = NDArray[np.float32]
Threshold = float | Sequence[float] | Literal["auto"]
"""Lowest score of a tag: one for all labels, one per label, or "auto", the model's own thresholds."""
Limits = tuple[float, ...] | None
SCORES_AT_ONCE = 1 << 17
"""Scores of windows that events are detected in at a time."""


class Tag(NamedTuple):
    """A label, its score in [0, 1], and the span of its highest-scoring window in seconds."""

    label: str
    score: float
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Result:
    """The output of a tagger for one recording.

    Args:
        labels: One per class.
        windows: Windows in order of time; those of long recordings are read from a temporary file as needed.
        duration_s: Duration of the recording in seconds.
        sample_rate: Sample rate of the recording in Hz.
        model: Name of the model.
        pooling: How the scores of the windows are pooled: "max" or "mean".
        warnings: Faults of the recording that did not prevent tagging, one line each.
        path: Path of the recording if it was a file.
        calibrated: Whether scores are probabilities.
        thresholds: The model's own threshold of each label; None if the model has none.
        min_scores: Lowest score of a tag for each label, set by :meth:`filter`; None: any score.
        top: Maximum number of tags, set by :meth:`filter`; None: all.
        hop_s: Hop between the windows in seconds; None: the length of the first window.
    """

    labels: tuple[str, ...]
    windows: Sequence[Window]
    duration_s: float
    sample_rate: int
    model: str
    pooling: Pooling
    warnings: tuple[str, ...] = ()
    path: str | None = None
    calibrated: bool = False
    thresholds: tuple[float, ...] | None = None
    min_scores: tuple[float, ...] | None = None
    top: int | None = None
    hop_s: float | None = None

    @cached_property
    def scores(self) -> Floats:
        """Scores of the recording, float32 (class,)."""
        return pool_blocks(self._score_blocks(), self.pooling)

    @cached_property
    def embedding(self) -> Floats:
        """Mean embedding over the windows, float32 (channel,)."""
        blocks = (np.stack([window.embedding for window in block]) for block in in_blocks(self.windows))
        return pool_blocks(blocks, "mean")

    @cached_property
    def tags(self) -> tuple[Tag, ...]:
        """Tags sorted by score, highest first; all labels unless :meth:`filter` limits them."""
        return self._tags(self.min_scores)[: self.top]

    @property
    def detected(self) -> tuple[Tag, ...]:
        """Tags that reach the model's own thresholds, highest score first; none if it has no thresholds."""
        return () if self.thresholds is None else self._tags(self.thresholds)

    @cached_property
    def score_series(self) -> ScoreSeries:
        """Scores over time: the mean of the windows that overlap each step of one hop."""
        return self._series(range(len(self.labels)))

    def events(
        self, threshold: Threshold | None = None, options: EventOptions | None = None
    ) -> tuple[Event, ...]:
        """Detects when sounds start and end.

        Times are as precise as the windows are short and close: tag with local scores
        (:func:`earmark.inference.local_scores.with_local_scores`), or with windows of 2 s every 0.5 s.

        Args:
            threshold: A score of at least this starts an event: a number, one number per label, or "auto" for
                the model's own. None: as the options say.
            options: How events are detected; None: the defaults of :class:`earmark.EventOptions`.

        Returns:
            Events in order of start.

        Raises:
            ModelError: If the model has no thresholds of its own, or the number of thresholds is not the
                number of labels.
        """
        options = options or EventOptions()
        if threshold is not None:
            options = replace(options, threshold=self._limits(threshold))
        options = options.resolved(self.thresholds)
        on = options.limits(self.labels).on.astype(np.float32)
        reached = np.flatnonzero(pool_blocks(self._score_blocks(), "max") >= on).tolist()
        at_once = max(1, SCORES_AT_ONCE // len(self.windows))
        events: list[Event] = []
        for first in range(0, len(reached), at_once):  # labels in turn, so that memory stays small
            chosen = reached[first : first + at_once]
            events += detect(self._series(chosen), options.selected(chosen))
        return tuple(sorted(events, key=lambda event: (event.start_s, event.end_s)))

    def filter(
        self,
        labels: str | Iterable[str] | None = None,
        *,
        rollup: bool = False,
        threshold: Threshold | None = None,
        top: int | None = None,
    ) -> Result:
        """Returns the result with fewer labels or tags, or with the parents of AudioSet's ontology.

        The filters apply in the order rollup, labels, threshold, top. Threshold and top limit ``tags`` and
        ``to_dict()``; ``scores``, ``windows`` and ``detected`` still cover all labels of the result.

        Args:
            labels: Labels to keep: names, or one string of comma-separated names.
            rollup: Adds every parent in AudioSet's ontology: in each window a label's score becomes the
                maximum over itself and its descendants. Parents get the lowest threshold of their
                descendants; rolled-up scores are not calibrated.
            threshold: Lowest score of a tag: a number, one number per label, or "auto" for the model's own.
            top: Maximum number of tags.

        Raises:
            ModelError: If a label is unknown, the labels are not AudioSet's, the model has no thresholds of
                its own, or the number of thresholds is not the number of labels.
        """
        result = self._rolled_up() if rollup else self
        if labels is not None:
            result = result._selected(select_labels(result.labels, labels))
        if threshold is not None:
            result = replace(result, min_scores=result._limits(threshold))
        return result if top is None else replace(result, top=top)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as a dict that JSON can represent, with the tags that :meth:`filter` left."""
        windows = list(map(self._window_dict, self.windows))
        return {**self._facts(), "windows": windows, "warnings": list(self.warnings)}

    def to_json(self) -> str:
        """Returns :meth:`to_dict` as JSON, with less memory for long recordings."""
        facts, warnings = (json.dumps(part, ensure_ascii=False) for part in (self._facts(), self.warnings))
        windows = ", ".join(json.dumps(self._window_dict(one), ensure_ascii=False) for one in self.windows)
        return f'{facts[:-1]}, "windows": [{windows}], "warnings": {warnings}}}'

    def _series(self, indices: Sequence[int]) -> ScoreSeries:
        """Scores over time of some of the labels."""
        labels = tuple(self.labels[index] for index in indices)
        scores = np.concatenate([block[:, list(indices)] for block in self._score_blocks()])
        spans = self._spans
        return average_windows(labels, spans, scores, self.hop_s or float(spans[0, 1] - spans[0, 0]))

    @cached_property
    def _spans(self) -> NDArray[np.float64]:
        """Start and end of each window, (window, 2)."""
        spans = ((window.start_s, window.end_s) for window in self.windows)
        return np.fromiter(spans, np.dtype((float, 2)), len(self.windows))

    def _score_blocks(self) -> Iterator[Floats]:
        """Scores of the windows, (window, class), block by block."""
        return (np.stack([window.scores for window in block]) for block in in_blocks(self.windows))

    def _facts(self) -> dict[str, Any]:
        """What :meth:`to_dict` says before the windows."""
        return {
            "path": self.path,
            "duration_s": round(self.duration_s, 4),
            "sample_rate": self.sample_rate,
            "model": self.model,
            "calibrated": self.calibrated,
            "tags": [_rounded(tag) for tag in self.tags],
        }

    def _tags(self, min_scores: tuple[float, ...] | None) -> tuple[Tag, ...]:
        """All tags of at least these scores."""
        order = np.argsort(-self.scores, kind="stable").tolist()
        scores, spans = self.scores.tolist(), self._best_spans
        return tuple(
            Tag(self.labels[index], scores[index], *spans[index])
            for index in order
            if min_scores is None or scores[index] >= min_scores[index]
        )

    @cached_property
    def _best_spans(self) -> list[tuple[float, float]]:
        """Start and end of the first window with the highest score of each label."""
        best = np.full(len(self.labels), -np.inf, np.float32)
        spans = np.zeros((len(self.labels), 2))
        for block in in_blocks(self.windows):
            scores = np.stack([window.scores for window in block])
            at, highest = scores.argmax(0), scores.max(0)
            better = highest > best
            best[better] = highest[better]
            spans[better] = np.array([(window.start_s, window.end_s) for window in block])[at[better]]
        return [(start_s, end_s) for start_s, end_s in spans.tolist()]

    def _limits(self, threshold: Threshold) -> tuple[float, ...]:
        if isinstance(threshold, str):
            if threshold != "auto":
                raise ModelError(f"threshold must be a number or 'auto', got {threshold!r}")
            if self.thresholds is None:
                raise ModelError(f"model {self.model} has no thresholds of its own: pass a number")
            return self.thresholds
        limits = np.asarray(threshold, np.float64)
        if limits.ndim and len(limits) != len(self.labels):
            raise ModelError(
                f"threshold must have one value per label ({len(self.labels)}), got {len(limits)}"
            )
        return tuple(np.broadcast_to(limits, len(self.labels)).tolist())

    def _rolled_up(self) -> Result:
        result = self._view(rollup_labels(self.labels), lambda scores: rollup_scores(self.labels, scores))

        def lowest(limits: Limits) -> Limits:
            return limits and tuple((-rollup_scores(self.labels, -np.array(limits))).tolist())

        thresholds, min_scores = lowest(self.thresholds), lowest(self.min_scores)
        return replace(result, calibrated=False, thresholds=thresholds, min_scores=min_scores)

    def _selected(self, indices: Sequence[int]) -> Result:
        positions = list(indices)
        result = self._view(tuple(self.labels[one] for one in indices), lambda scores: scores[positions])

        def kept(limits: Limits) -> Limits:
            return limits and tuple(limits[index] for index in indices)

        return replace(result, thresholds=kept(self.thresholds), min_scores=kept(self.min_scores))

    def _view(self, labels: tuple[str, ...], view: Callable[[Floats], Floats]) -> Result:
        return replace(self, labels=labels, windows=viewed(self.windows, view))

    def _window_dict(self, window: Window) -> dict[str, Any]:
        tags = replace(self, windows=(window,)).tags
        rounded = [{"label": tag.label, "score": round(tag.score, 4)} for tag in tags]
        return {"start_s": round(window.start_s, 4), "end_s": round(window.end_s, 4), "tags": rounded}


def _rounded(tag: Tag) -> dict[str, Any]:
    return {
        "label": tag.label,
        "score": round(tag.score, 4),
        "start_s": round(tag.start_s, 4),
        "end_s": round(tag.end_s, 4),
    }
