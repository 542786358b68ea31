"""The models that a server answers with, and their answers as dicts that JSON can represent.

Conventions: a model is used by several threads at once. Tags come from the windows that the model was trained
for, events from scores as fine as it gives them: the same as ``earmark tag`` with and without ``--events``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.events.options import EventOptions
from earmark.inference.embeddings import Embeddings
from earmark.inference.local_scores import finest_scores
from earmark.inference.pooling import pool_blocks
from earmark.inference.recording import OpenRecording
from earmark.inference.result import Result
from earmark.inference.tagger import Tagger
from earmark.inference.window_store import in_blocks
from earmark.serve.errors import RequestError

Threshold = float | Literal["auto"]

FAINTEST = 0.05
"""Labels whose score reaches this anywhere are part of a timeline."""


class Timeline(NamedTuple):
    """Scores along time of some labels: facts, and rows of scores (step, label)."""

    facts: dict[str, Any]
    scores: NDArray[np.float32]

    def rows(self) -> Iterator[list[float]]:
        """The scores of each step, rounded to thousandths."""
        for row in self.scores:
            yield np.round(row.astype(np.float64), 3).tolist()


class ServedModel:
    """A model that is open for requests.

    Args:
        tagger: The model.
        is_default: Whether requests that name no model get this one.
    """

    def __init__(self, tagger: Tagger, is_default: bool) -> None:
        self.tagger, self.name = tagger, tagger.info.name
        self._is_default = is_default
        self._events_tagger, self._window_s, self._hop_s = finest_scores(tagger)

    def card(self) -> dict[str, Any]:
        """What clients need to know of the model."""
        info = self.tagger.info
        is_one = not isinstance(info.threshold, tuple)
        return {
            "name": info.name,
            "summary": info.description,
            "num_labels": len(info.labels),
            "labels": list(info.labels),
            "task": info.task,
            "sample_rate_hz": info.front_end.sample_rate,
            "window_s": info.window_s,
            "threshold": info.threshold if is_one else None,
            "thresholds": None if info.thresholds is None else list(info.thresholds),
            "calibrated": info.calibration is not None,
            "licence": info.license,
            "default": self._is_default,
        }

    def tag(
        self, recording: OpenRecording, top: int | None, threshold: Threshold | None, windows: bool
    ) -> dict[str, Any]:
        """Tags a recording."""
        result = self.tagger.tag(recording).filter(threshold=threshold, top=top)
        facts = result.to_dict()
        answer = {key: facts[key] for key in ("model", "duration_s", "tags")}
        if windows:
            answer["windows"] = facts["windows"]
        return {**answer, "warnings": facts["warnings"]}

    def events(
        self, recording: OpenRecording, options: EventOptions, labels: Sequence[str], timeline: bool
    ) -> tuple[dict[str, Any], Timeline | None]:
        """Finds the events of a recording, and the scores along time if these are wanted."""
        result = self._events_tagger.tag(recording, window_s=self._window_s, hop_s=self._hop_s)
        if labels:
            result = result.filter(labels=labels)
        events = [event.to_dict() for event in result.events(options=options)]
        facts = {
            "model": result.model,
            "duration_s": round(result.duration_s, 4),
            "events": events,
            "warnings": list(result.warnings),
        }
        return facts, _timeline(result, options) if timeline else None

    def embed(self, recording: OpenRecording, windows: bool) -> dict[str, Any]:
        """Computes the embedding of a recording."""
        result = self.tagger.tag(recording)
        found = Embeddings.from_result(result)
        answer: dict[str, Any] = {
            "model": found.model,
            "duration_s": round(result.duration_s, 4),
            "embedding": found.clip.tolist(),
        }
        if windows:
            spans = zip(found.start_s.tolist(), found.end_s.tolist(), found.windows, strict=True)
            answer["windows"] = [
                {"start_s": round(start_s, 4), "end_s": round(end_s, 4), "embedding": vector.tolist()}
                for start_s, end_s, vector in spans
            ]
        return {**answer, "warnings": list(result.warnings)}


def _timeline(result: Result, options: EventOptions) -> Timeline:
    highest = pool_blocks(
        (np.stack([one.scores for one in block]) for block in in_blocks(result.windows)), "max"
    )
    labels = [label for label, score in zip(result.labels, highest, strict=True) if score >= FAINTEST]
    thresholds = dict(
        zip(result.labels, options.resolved(result.thresholds).limits(result.labels).on, strict=True)
    )
    facts = {
        "start_s": 0.0,
        "labels": labels,
        "thresholds": [round(float(thresholds[one]), 4) for one in labels],
    }
    series = result.filter(labels=labels or result.labels[:1]).score_series
    facts |= {"hop_s": series.step_s, "resolution_s": series.resolution_s}
    return Timeline(facts, series.scores[:, : len(labels)])


class Models:
    """The models of a server, by name; the first is the default.

    Args:
        taggers: At least one.

    Raises:
        ModelError: If there is none, or two have the same name.
    """

    def __init__(self, taggers: Iterable[Tagger]) -> None:
        served = [ServedModel(tagger, not number) for number, tagger in enumerate(taggers)]
        self._by_name = {one.name: one for one in served}
        if not served:
            raise ModelError("no model given: name at least one")
        if len(self._by_name) < len(served):
            names = [one.name for one in served]
            double = next(name for name in names if names.count(name) > 1)
            raise ModelError(f"two models have the name {double}: give one of them another name")
        self._cards = [one.card() for one in served]

    def cards(self) -> list[dict[str, Any]]:
        """What clients need to know of each model."""
        return self._cards

    def get(self, name: str | None) -> ServedModel:
        """The model of a name; None: the default.

        Raises:
            RequestError: If no model has the name.
        """
        if name is None:
            return next(iter(self._by_name.values()))
        if name not in self._by_name:
            known = ", ".join(self._by_name)
            raise RequestError(404, f"no model {name[:80]!r}: this server has {known}", "unknown_model")
        return self._by_name[name]
