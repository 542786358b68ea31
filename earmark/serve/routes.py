"""The requests of the interface: models, tags, events, embeddings, health, metrics.

Conventions: parameters are those of ``earmark tag``. Answers are built by :mod:`earmark.serve.models`; the
classes of :mod:`earmark.serve.answers` describe them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

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
from earmark.serve.recordings import Deadline, LimitedRecording, Upload, open_upload
from earmark.serve.state import ServerState

router = APIRouter()

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


ModelName = Annotated[str | None, Query(description="Name of a model; default: the first of the server.")]
Labels = Annotated[list[str] | None, Query(description="Only this label; repeatable.")]
Top = Annotated[int, Query(ge=1, le=10_000, description="Number of tags at most.")]


Length = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] | None
Score = Annotated[
    Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None,
    Query(description="A score from 0 to 1, or auto: the model's own."),
]
MinDuration = Annotated[Length, Query(description="Shorter events are dropped; default: 0.25.")]
MergeGap = Annotated[Length, Query(description="Longest gap within an event; default: 0.1.")]
Windows = Annotated[bool, Query(description="Answer for each window, too.")]
WithTimeline = Annotated[bool, Query(description="Answer with the scores along time, too.")]


def state_of(request: Request) -> ServerState:
    """The state of the server that answers."""
    found: ServerState = request.app.state.server
    return found


State = Annotated[ServerState, Depends(state_of)]


async def _answer(request: Request, state: ServerState, work: Callable[[LimitedRecording], str]) -> Response:
    """Reads the recording of a request, and has a thread compute the answer."""
    if state.is_stopping:
        raise RequestError(503, "the server is stopping", "stopping", {"Retry-After": "10"})
    limits = state.limits
    with state.workers.place() as place:
        upload = await read_body(request, limits, place.resources)
        deadline = Deadline(limits.timeout_s)
        compute = partial(_compute, upload, limits.max_duration_s, deadline, work)
        content, seconds = await place.run(compute, deadline, partial(client_gone, request))
    state.metrics.audio.labels(request.url.path).inc(seconds)
    return Response(content, media_type="application/json")


def _compute(
    upload: Upload, longest_s: float, deadline: Deadline, work: Callable[[LimitedRecording], str]
) -> tuple[bytes, float]:
    with open_upload(upload, longest_s, deadline) as recording:
        content = work(recording).encode()
        return content, recording.samples_read / recording.sample_rate


def _answers(answer: type[BaseModel]) -> dict[str, Any]:
    """Describes an upload and its answers for OpenAPI."""
    return {"openapi_extra": BODY, "responses": {200: {"model": answer}, **errors(*_MEANINGS)}}


@router.get(
    "/v1/models", summary="List the models", responses={200: {"model": ModelsAnswer}, **errors(400, 401, 403)}
)
async def models(state: State) -> Response:
    """Lists the models of this server with their labels; the first is the default."""
    return JSONResponse({"models": state.models.cards()})


@router.post("/v1/tag", summary="Tag a recording", **_answers(TagAnswer))
async def tag(
    request: Request,
    state: State,
    model: ModelName = None,
    top: Top = 10,
    threshold: Score = None,
    windows: Windows = False,
) -> Response:
    """Tags a recording: the labels with the highest scores, and where they are highest."""
    served = state.models.get(model)
    served.check(threshold=threshold)
    return await _answer(request, state, lambda recording: served.tag(recording, top, threshold, windows))


@router.post("/v1/events", summary="Find events", **_answers(EventsAnswer))
async def events(
    request: Request,
    state: State,
    model: ModelName = None,
    threshold: Score = "auto",
    label: Labels = None,
    min_duration_s: MinDuration = None,
    merge_gap_s: MergeGap = None,
    timeline: WithTimeline = False,
) -> Response:
    """Finds when sounds start and end; with ``timeline``, also their scores along time."""
    served, labels = state.models.get(model), label or []
    served.check(labels)
    given: dict[str, Any] = {"min_duration_s": min_duration_s, "merge_gap_s": merge_gap_s}
    own = {name: value for name, value in given.items() if value is not None}
    options = EventOptions("auto" if threshold is None else threshold, **own)
    return await _answer(
        request, state, lambda recording: served.events(recording, options, labels, timeline)
    )


@router.post("/v1/embed", summary="Embed a recording", **_answers(EmbedAnswer))
async def embed(
    request: Request, state: State, model: ModelName = None, windows: Windows = False
) -> Response:
    """Computes the embedding of a recording, and with ``windows`` that of each window."""
    served = state.models.get(model)
    return await _answer(request, state, lambda recording: served.embed(recording, windows))


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
