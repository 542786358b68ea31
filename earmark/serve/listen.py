"""The WebSocket of live sound: samples in, scores and events out.

The first frame says what the samples are, binary frames hold them, ``{"type": "stop"}`` ends the stream. The
next frame is read when the last one has been answered, so that nothing piles up: a client that sends faster
than the network computes is held up by its own connection.

Conventions: every message is JSON with a "type". An error is a message and then the end of the connection,
with code 1003 (wrong kind of frame), 1007 (samples or JSON that cannot be read), 1008 (not allowed, or too
slow), 1009 (frame too large) or 1013 (too many streams).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocketDisconnect

from earmark.audio.pcm_reader import decode
from earmark.errors import EarmarkError
from earmark.events.online import Notice
from earmark.events.options import EventOptions
from earmark.inference.listener import Listener
from earmark.serve.access import SUBPROTOCOL, bearer
from earmark.serve.errors import RequestError, request_error
from earmark.serve.recordings import PCM_ENCODINGS, PcmFormat, pcm_format
from earmark.serve.state import ServerState

UNSUPPORTED, INVALID, POLICY, TRY_AGAIN, GOING_AWAY = 1003, 1007, 1008, 1013, 1001
_LOG = logging.getLogger("earmark.serve")
_FIRST_FRAME_S = 10.0


class Opening(BaseModel):
    """The first frame: what the samples are, and what is wanted."""

    model_config = ConfigDict(extra="forbid")

    sample_rate: int
    format: str = "f32le"
    channels: int = 1
    model: str | None = None
    threshold: float | None = Field(None, ge=0, le=1)
    top: int = Field(5, ge=0, le=1000)
    token: str | None = None
    type: str | None = None


class StreamError(RequestError):
    """The end of a stream by an error, with the code that closes it."""

    def __init__(self, closing: int, code: str, message: str) -> None:
        super().__init__(400, message, code)
        self.closing = closing


def listen_router() -> APIRouter:
    """Makes the route of the WebSocket."""
    router = APIRouter()

    @router.websocket("/v1/listen")
    async def listen(socket: WebSocket) -> None:
        state: ServerState = socket.app.state.server
        try:
            state.access.check_names(socket.headers)
        except RequestError:
            await socket.close(POLICY)  # before it is accepted: the client gets status 403
            return
        token, offered = _token(socket)
        await socket.accept(offered)
        state.metrics.requests.labels("/v1/listen", "101").inc()
        await Stream(socket, state, token).run()

    return router


def _token(socket: WebSocket) -> tuple[str | None, str | None]:
    """The token that comes with the connection, and the subprotocol that holds it."""
    for offered in socket.scope.get("subprotocols", []):
        if offered.startswith(SUBPROTOCOL):
            return offered.removeprefix(SUBPROTOCOL), offered
    return bearer(socket.headers), None


class Stream:
    """One live stream.

    Args:
        socket: Accepted.
        state: Of the server.
        token: What the client sent with its connection.
    """

    def __init__(self, socket: WebSocket, state: ServerState, token: str | None) -> None:
        self._socket, self._state, self._token = socket, state, token
        self._events, self._rest = 0, b""

    async def run(self) -> None:
        """Listens until the client stops, an error, or the end of the server."""
        try:
            await self._serve()
        except WebSocketDisconnect:
            pass
        except TimeoutError:
            await self._fail(StreamError(POLICY, "too_slow", "the client took too long"))
        except Exception as error:
            await self._fail(error)

    async def _serve(self) -> None:
        opening = await self._opening()
        if self._state.is_stopping or self._state.streams >= self._state.limits.streams:
            raise StreamError(
                TRY_AGAIN, "too_many_streams", "no more live streams are possible: try again later"
            )
        pcm = _pcm(opening)
        served = self._state.models.get(opening.model)
        options = EventOptions("auto" if opening.threshold is None else opening.threshold)
        listener = served.tagger.listen(pcm.rate, options)
        with self._counted():
            await self._send(
                type="ready",
                model=served.name,
                labels=len(listener.labels),
                window_s=round(listener.window_s, 4),
                hop_s=round(listener.hop_s, 4),
            )
            reason = await self._listen(listener, pcm, opening.top)
            notices = await self._compute(listener.flush)
            await self._notify(notices)
            await self._send(
                type="end", events=self._events, time_s=round(listener.position_s, 3), reason=reason
            )
        await self._socket.close(GOING_AWAY if reason == "server" else 1000)

    async def _listen(self, listener: Listener, pcm: PcmFormat, top: int) -> str:
        """Takes samples until the stream ends; returns why: "client" or "server"."""
        while True:
            frame = await self._next()
            if frame is None:
                return "server"
            if isinstance(frame, str):
                if _message(frame).get("type") != "stop":
                    raise StreamError(
                        UNSUPPORTED, "unexpected_message", 'samples or {"type": "stop"} are expected'
                    )
                if self._rest:
                    raise StreamError(
                        INVALID, "partial_sample", f"the stream ends {len(self._rest)} bytes into a sample"
                    )
                return "client"
            for piece in self._pieces(frame, pcm, listener):
                await self._feed(listener, piece, top)

    async def _feed(self, listener: Listener, piece: Any, top: int) -> None:
        before = listener.scores
        notices = await self._compute(lambda: listener.feed(piece))
        if listener.scores is not before:
            await self._send(type="scores", time_s=round(listener.position_s, 3), top=_best(listener, top))
        await self._notify(notices)

    def _pieces(self, frame: bytes, pcm: PcmFormat, listener: Listener) -> Iterator[Any]:
        """Whole samples (time, channel), at most half a hop at a time, so that each window is seen."""
        content = self._rest + frame
        size = pcm.frame_bytes
        whole = len(content) // size * size
        self._rest = content[whole:]
        samples = decode(content[:whole], PCM_ENCODINGS[pcm.encoding][2]).reshape(-1, pcm.channels)
        count = max(1, math.floor(listener.hop_s * pcm.rate / 2))
        for first in range(0, len(samples), count):
            yield samples[first : first + count]

    async def _next(self) -> bytes | str | None:
        """The next frame; None when the server stops."""
        receiving = asyncio.ensure_future(self._socket.receive())
        stopping = asyncio.ensure_future(self._state.stopping.wait())
        try:
            await asyncio.wait(
                (receiving, stopping), timeout=self._state.limits.idle_s, return_when=asyncio.FIRST_COMPLETED
            )
            if receiving.done():
                return _content(receiving.result())
            if stopping.done():
                return None
            raise StreamError(
                POLICY,
                "too_slow",
                f"no samples came for {self._state.limits.idle_s:g} s: send silence to go on",
            )
        finally:
            receiving.cancel()
            stopping.cancel()

    async def _opening(self) -> Opening:
        async with asyncio.timeout(_FIRST_FRAME_S):
            frame = _content(await self._socket.receive())
        if not isinstance(frame, str):
            raise StreamError(UNSUPPORTED, "unexpected_message", "the first frame must be JSON, as text")
        try:
            opening = Opening.model_validate(_message(frame))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "the first frame"
            raise StreamError(INVALID, "invalid_parameter", f"{name}: {first['msg']}") from None
        if not self._state.access.is_known(self._token or opening.token):
            raise StreamError(POLICY, "unauthorized", "the token is missing or wrong")
        return opening

    async def _compute(self, function: Any) -> Any:
        return await asyncio.wrap_future(self._state.live_workers.submit(function))

    async def _notify(self, notices: list[Notice]) -> None:
        for notice in notices:
            event = notice.event
            facts: dict[str, Any] = {"label": event.label, "start_s": round(event.start_s, 3)}
            if notice.kind == "start":
                self._events += 1
            else:
                facts["end_s"] = round(event.end_s, 3)
            await self._send(type=f"event_{notice.kind}", **facts, score=round(event.peak, 4))

    async def _send(self, **message: Any) -> None:
        """Sends a message; a client that does not read loses its connection."""
        async with asyncio.timeout(self._state.limits.idle_s):
            await self._socket.send_json(message)

    async def _fail(self, error: Exception) -> None:
        found = error if isinstance(error, StreamError) else request_error(error)
        closing = found.closing if isinstance(found, StreamError) else _CLOSING.get(found.status, INVALID)
        if found.status == 500:
            _LOG.error("a live stream failed", exc_info=error)
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):  # the client may have gone
            await self._send(type="error", code=found.code, message=str(found))
            await self._socket.close(closing)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._state.streams += change
        self._state.metrics.streams.set(self._state.streams)


_CLOSING = {404: POLICY, 401: POLICY, 415: UNSUPPORTED, 500: 1011, 503: TRY_AGAIN}


def _content(event: Any) -> bytes | str:
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1005), event.get("reason"))
    content = event.get("bytes")
    return str(event["text"]) if content is None else bytes(content)


def _message(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise StreamError(INVALID, "invalid_json", "a text frame must be a JSON object")
    return found


def _pcm(opening: Opening) -> PcmFormat:
    try:
        return pcm_format(opening.sample_rate, opening.channels, opening.format)
    except EarmarkError as error:
        raise StreamError(UNSUPPORTED, "unsupported_audio", str(error)) from None


def _best(listener: Listener, top: int) -> list[dict[str, Any]]:
    """The labels with the highest scores."""
    order = np.argsort(-listener.scores, kind="stable")[:top].tolist()
    return [
        {"label": listener.labels[index], "score": round(float(listener.scores[index]), 4)} for index in order
    ]
