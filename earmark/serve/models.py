"""The models that a server answers with, and their answers as JSON.

Conventions: answers are text, made in the thread that computes them, because those of long recordings are
large. A model is used by several threads at once. Tags come from the windows that the model was trained
for, events from scores as fine as it gives them: the same as ``earmark tag`` with and without ``--events``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from earmark.errors import ModelError
from earmark.events.options import EventOptions
from earmark.inference.local_scores import finest_scores
from earmark.inference.pooling import pool_blocks
from earmark.inference.recording import OpenRecording
from earmark.inference.result import Result, Tag
from earmark.inference.tagger import Tagger
from earmark.inference.window_store import Window, in_blocks
from earmark.model_file.label_selection import select_labels
from earmark.serve.errors import RequestError

Threshold = float | Literal["auto"]

FAINTEST = 0.05
"""Labels whose score reaches this anywhere are part of a timeline."""


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

    def check(self, labels: Sequence[str] = (), threshold: Threshold | None = None) -> None:
        """Checks parameters before a recording is read.

        Raises:
            ModelError: If a label is unknown, or the model has no thresholds of its own and is to use them.
        """
        if labels:
            select_labels(self.tagger.labels, labels)
        if threshold == "auto" and self.tagger.info.thresholds is None:
            raise ModelError(f"model {self.name} has no thresholds of its own: pass a number")

    def tag(self, recording: OpenRecording, top: int, threshold: Threshold | None, windows: bool) -> str:
        """Tags a recording; returns JSON."""
        result = self.tagger.tag(recording).filter(threshold=threshold, top=top)
        answer = _facts(result) | {"tags": [_tag(one) for one in result.tags]}
        return _json(answer, windows=_tagged_windows(result) if windows else None)

    def events(
        self, recording: OpenRecording, options: EventOptions, labels: Sequence[str], timeline: bool
    ) -> str:
        """Finds the events of a recording, and the scores along time if these are wanted; returns JSON."""
        result = self._events_tagger.tag(recording, window_s=self._window_s, hop_s=self._hop_s)
        if labels:
            result = result.filter(labels=labels)
        answer = _facts(result) | {"events": [event.to_dict() for event in result.events(options=options)]}
        if not timeline:
            return _json(answer)
        return f'{_json(answer)[:-1]}, "timeline": {_timeline(result, options)}}}'

    def embed(self, recording: OpenRecording, windows: bool) -> str:
        """Computes the embedding of a recording; returns JSON."""
        result = self.tagger.tag(recording)
        answer = _facts(result) | {"embedding": result.embedding.tolist()}
        return _json(answer, windows=_embedded_windows(result) if windows else None)


def _facts(result: Result) -> dict[str, Any]:
    return {
        "model": result.model,
        "duration_s": round(result.duration_s, 4),
        "warnings": list(result.warnings),
    }


def _tag(tag: Tag) -> dict[str, Any]:
    return {
        "label": tag.label,
        "score": round(tag.score, 4),
        "start_s": round(tag.start_s, 4),
        "end_s": round(tag.end_s, 4),
    }


def _span(window: Window) -> dict[str, Any]:
    return {"start_s": round(window.start_s, 4), "end_s": round(window.end_s, 4)}


def _tagged_windows(result: Result) -> Iterator[dict[str, Any]]:
    for window in result.windows:
        tags = replace(result, windows=(window,)).tags
        yield _span(window) | {"tags": [{"label": one.label, "score": round(one.score, 4)} for one in tags]}


def _embedded_windows(result: Result) -> Iterator[dict[str, Any]]:
    for window in result.windows:
        yield _span(window) | {"embedding": window.embedding.tolist()}


def _timeline(result: Result, options: EventOptions) -> str:
    """The scores along time of the labels that are not faint everywhere, as JSON."""
    blocks = (np.stack([one.scores for one in block]) for block in in_blocks(result.windows))
    loudest = pool_blocks(blocks, "max")
    limits = options.resolved(result.thresholds).limits(result.labels).on
    chosen = np.flatnonzero(loudest >= FAINTEST).tolist()
    series = result.filter(labels=[result.labels[index] for index in chosen or [0]]).score_series
    facts = {
        "start_s": 0.0,
        "hop_s": round(series.step_s, 6),
        "resolution_s": round(series.resolution_s, 3),
        "labels": [result.labels[index] for index in chosen],
        "thresholds": [round(float(limits[index]), 4) for index in chosen],
    }
    rows = (np.round(row[: len(chosen)].astype(np.float64), 3).tolist() for row in series.scores)
    return _json(facts, scores=rows)


def _json(facts: dict[str, Any], **lists: Iterable[Any] | None) -> str:
    """JSON of facts, and of lists that are long: their items are turned into text one by one."""
    pieces = [json.dumps(facts, ensure_ascii=False)[:-1]]
    for name, items in lists.items():
        if items is not None:
            pieces.append(
                f', "{name}": [' + ", ".join(json.dumps(item, ensure_ascii=False) for item in items) + "]"
            )
    return "".join(pieces) + "}"


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
