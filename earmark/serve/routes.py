"""The requests of the interface: models, tags, events, embeddings, health, metrics.

Conventions: parameters are those of ``earmark tag``. Answers are built by :mod:`earmark.serve.models`; the
classes of :mod:`earmark.serve.answers` describe them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from earmark.events.options import EventOptions
from earmark.serve.answers import (
    EmbedAnswer,
    ErrorAnswer,
    EventsAnswer,
    Health,
    ModelsAnswer,
    TagAnswer,
)
from earmark.serve.bodies import FORM, PCM, client_gone, read_body
from earmark.serve.errors import RequestError
from earmark.serve.metrics import CONTENT_TYPE
from earmark.serve.models import ServedModel, Threshold, Timeline
from earmark.serve.recordings import Deadline, LimitedRecording, Upload, open_upload
from earmark.serve.state import ServerState

router = APIRouter()
Answer = TypeVar("Answer")
Work = Callable[[LimitedRecording], Answer]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}},
        "required": ["file"],
    }
}
BODY = {
    "requestBody": {
        "required": True,
        "description": "A recording: a file in any format that FFmpeg reads, a form with the field `file`, "
        "or raw samples.",
        "content": {
            "application/octet-stream": _BINARY,
            "audio/*": _BINARY,
            "video/*": _BINARY,
            FORM: _FORM,
            f"{PCM};rate=48000;channels=1;format=s16le": _BINARY,
        },
    }
}
_MEANINGS = {
    400: "The body is empty, or not what its content type says; or the server has another name.",
    401: "The token is missing or wrong.",
    403: "The request comes from a page of another site.",
    404: "No model has this name.",
    408: "The body came too slowly.",
    413: "The body is too large, or the recording too long.",
    415: "The content type, or the format of the recording, is not one that is read.",
    422: "A parameter is not possible, or the recording has no usable samples.",
    429: "Too many requests are in progress: try again after Retry-After seconds.",
    503: "The request took too long, or the server is stopping.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describes errors for OpenAPI."""
    return {status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in statuses}


UPLOAD_ERRORS = errors(*_MEANINGS)

ModelName = Annotated[str | None, Query(description="Name of a model; default: the first of the server.")]
Label = Annotated[list[str] | None, Query(description="Only this label; repeatable.")]
Score = Annotated[
    float | None,
    Query(ge=0, le=1, description="Lowest score."),
]


def threshold_of(text: str | None) -> Threshold | None:
    """Reads a score from 0 to 1, or auto.

    Raises:
        RequestError: If it is neither.
    """
    if text is None or text == "auto":
        return "auto" if text else None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise RequestError(422, f"threshold must be a number from 0 to 1 or auto, got {text[:40]!r}")
    return value


ThresholdText = Annotated[
    str | None,
    Query(
        description="A score from 0 to 1, or auto: the model's own.",
        pattern=r"^(auto|0|0?\.\d{1,9}|0\.|1|1\.0{0,9})$",
    ),
]
Seconds = Annotated[float | None, Query(ge=0, le=3600, allow_inf_nan=False)]
Flag = Annotated[bool, Query()]


def state_of(request: Request) -> ServerState:
    """The state of the server that answers."""
    found: ServerState = request.app.state.server
    return found


State = Annotated[ServerState, Depends(state_of)]


class Job:
    """One upload on its way to an answer: its place, its body, its time."""

    def __init__(self, request: Request, state: ServerState, place: Any, upload: Upload) -> None:
        self._request, self._state, self._place, self._upload = request, state, place, upload

    async def run(self, work: Work[Answer]) -> Answer:
        """Computes an answer from the recording in a thread."""
        limits = self._state.limits
        deadline = Deadline(limits.timeout_s)
        answer, seconds = await self._place.run(
            partial(_analyse, self._upload, limits.max_duration_s, deadline, work),
            deadline,
            partial(client_gone, self._request),
        )
        self._state.metrics.audio.labels(self._request.url.path).inc(seconds)
        found: Answer = answer
        return found


def _analyse(
    upload: Upload, longest_s: float, deadline: Deadline, work: Work[Answer]
) -> tuple[Answer, float]:
    with open_upload(upload, longest_s, deadline) as recording:
        answer = work(recording)
        return answer, recording.samples_read / recording.sample_rate


@asynccontextmanager
async def _job(request: Request, state: ServerState) -> AsyncIterator[Job]:
    if state.is_stopping:
        raise RequestError(503, "the server is stopping", "stopping", {"Retry-After": "10"})
    with state.workers.place() as place:
        async with read_body(request, state.limits) as upload:
            yield Job(request, state, place, upload)


@router.get(
    "/v1/models", summary="List the models", responses={200: {"model": ModelsAnswer}, **errors(400, 401, 403)}
)
async def models(state: State) -> Response:
    """Lists the models of this server with their labels; the first is the default."""
    return JSONResponse({"models": state.models.cards()})


@router.post(
    "/v1/tag",
    summary="Tag a recording",
    openapi_extra=BODY,
    responses={200: {"model": TagAnswer}, **UPLOAD_ERRORS},
)
async def tag(
    request: Request,
    state: State,
    model: ModelName = None,
    top: Annotated[
        int | None,
        Query(ge=1, le=10_000, description="Number of tags; default: 10, or all with a threshold."),
    ] = None,
    threshold: ThresholdText = None,
    windows: Flag = False,
) -> Response:
    """Tags a recording: the labels with the highest scores, and where they are highest."""
    served, limit = state.models.get(model), threshold_of(threshold)
    count = 10 if top is None and limit is None else top
    async with _job(request, state) as job:
        return JSONResponse(await job.run(partial(_tag, served, count, limit, windows)))


def _tag(
    served: ServedModel,
    top: int | None,
    threshold: Threshold | None,
    windows: bool,
    recording: LimitedRecording,
) -> dict[str, Any]:
    return served.tag(recording, top, threshold, windows)


@router.post(
    "/v1/events",
    summary="Find events",
    openapi_extra=BODY,
    responses={200: {"model": EventsAnswer}, **UPLOAD_ERRORS},
)
async def events(
    request: Request,
    state: State,
    model: ModelName = None,
    threshold: ThresholdText = "auto",
    label: Label = None,
    min_duration_s: Seconds = None,
    merge_gap_s: Seconds = None,
    timeline: Flag = False,
) -> Response:
    """Finds when sounds start and end; with ``timeline``, also their scores along time."""
    served = state.models.get(model)
    given: dict[str, Any] = {"min_duration_s": min_duration_s, "merge_gap_s": merge_gap_s}
    options = EventOptions(
        threshold_of(threshold) or 0.0, **{k: v for k, v in given.items() if v is not None}
    )
    async with _job(request, state) as job:
        facts, scores = await job.run(
            lambda recording: served.events(recording, options, label or [], timeline)
        )
    if scores is None:
        return JSONResponse(facts)
    return StreamingResponse(_with_timeline(facts, scores), media_type="application/json")


def _with_timeline(facts: dict[str, Any], timeline: Timeline) -> Iterator[str]:
    """The JSON of an answer in pieces: that of a long recording is large."""
    yield json.dumps(facts, ensure_ascii=False)[:-1] + ', "timeline": '
    yield json.dumps(timeline.facts, ensure_ascii=False)[:-1] + ', "scores": ['
    piece: list[str] = []
    for number, row in enumerate(timeline.rows()):
        piece.append((", " if number else "") + json.dumps(row))
        if len(piece) == 256:
            yield "".join(piece)
            piece = []
    yield "".join(piece) + "]}}"


@router.post(
    "/v1/embed",
    summary="Embed a recording",
    openapi_extra=BODY,
    responses={200: {"model": EmbedAnswer}, **UPLOAD_ERRORS},
)
async def embed(request: Request, state: State, model: ModelName = None, windows: Flag = False) -> Response:
    """Computes the embedding of a recording, and with ``windows`` that of each window."""
    served = state.models.get(model)
    async with _job(request, state) as job:
        return JSONResponse(await job.run(lambda recording: served.embed(recording, windows)))


@router.get("/healthz", summary="Is the server up", responses={200: {"model": Health}, **errors(400, 403)})
async def health(state: State) -> Response:
    """Says that the server runs; needs no token."""
    return JSONResponse({"status": "stopping" if state.is_stopping else "ok"})


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(400, 401, 403)},
)
async def metrics(state: State) -> Response:
    """Counts and times in the format of Prometheus."""
    state.metrics.queue.set(state.workers.waiting)
    state.metrics.active.set(state.workers.taken)
    return Response(state.metrics.text(), media_type=CONTENT_TYPE)
